"""The Phoenix-compatible API's calls: curl's answers byte by byte, every number, sessions and the limit."""

from __future__ import annotations

import itertools
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from daemon.contract import ExportInfo
from daemon.http import phoenix_rules as rules
from daemon.http.phoenix_access import Settings
from daemon.http.phoenix_rules import PRECEDENCE, Facts, Refusal, own_code, refusal
from engine.errors import TABLE, Busy, Corrupt
from tests.daemon.phoenix.rig import LOG, MOUNT, Rig

SCRIPT = Path(__file__).parents[1] / "http" / "phoenix_curl.sh"  # tests/daemon/http/phoenix_curl.sh


# --- the page's own lines -----------------------------------------------------------------------


def test_the_pages_lines_are_answered_byte_by_byte(rig: Rig, tmp_path: Path) -> None:
    log = tmp_path / "rman.log"
    log.write_bytes(LOG)
    rig.memory.restores[7] = "done"
    done = subprocess.run(
        ["sh", SCRIPT, str(rig.client.base_url).rstrip("/"), log, "7", "8"],
        capture_output=True, check=True, text=True, timeout=60,
    )  # fmt: skip
    not_begun = '{"error_code": 4295622659, "error_msg": "START_BACKUP cmd not received yet.", "result": {}}'
    begun = (
        '{"error_code": 0, "error_msg": "", "result": {"mount_path": "/Phoenix/testmount/oracle_data", '
        '"mount_name": "testmount", "mount_params": {"timeo": 1200, "retrans": 5}}}'
    )
    ok = '{"error_code": 0, "error_msg": "", "result": {"mount_name": "testmount"'
    snap = f"{1:032x}_1"
    assert done.stdout.splitlines() == [
        not_begun,
        ok + ', "is_reached_max_snapshots": false}}',
        begun,
        begun,
        ok + "}}",
        '{"error_code": 0, "error_msg": "", "result": {"snap_name": "'
        + snap
        + '", "mount_name": "testmount"}}',
        not_begun,
        not_begun,
        ok + ', "jobid": 7}}',
        '{"error_code": 4295622663, "error_msg": "Restore Path is missing on Export Service.", "result": {}}',
        '{"error_code": 4295622665, "error_msg": "Backup mount does not exist on Export Service.", "result": {}}',
    ]
    for line in done.stdout.splitlines():
        strictly(line)
    said = json.dumps({"mountpoint": "/local/testmount", "platform": "linux"}).encode()
    assert rig.memory.logs == [("s1", "rman.log.sent", said), ("s1", "rman.log", LOG)]


def strictly(line: str) -> None:
    """No key twice, integers of 64 bits that python and jq read alike."""

    def whole(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        assert len({key for key, _ in pairs}) == len(pairs)
        return dict(pairs)

    found = json.loads(line, object_pairs_hook=whole)
    assert type(found["error_code"]) is int
    assert found["error_code"] == 0 or 2**32 < found["error_code"] < 2**63
    by_jq = subprocess.run(["jq", "-r", ".error_code"], input=line, capture_output=True, text=True)
    assert by_jq.stdout == f"{found['error_code']}\n"


# --- every number, and which comes first --------------------------------------------------------

FAILED = ExportInfo("testmount", "10.0.0.0/8", state="failed: stale")


def _store(state: rules.StoreState) -> Callable[[Rig], None]:
    return lambda rig: setattr(rig, "store", state)


CAUSES: dict[Refusal, Callable[[Rig], Any]] = {
    rules.DECOMMISSIONING: _store("decommissioning"),
    rules.DECOMMISSIONED: _store("decommissioned"),
    rules.NO_MOUNT: lambda rig: rig.memory.infos.clear(),
    rules.DELETING: lambda rig: rig.memory.set("testmount", state="deleting"),
    rules.INCONSISTENT: lambda rig: rig.memory.set("testmount", state="failed"),
    rules.NOT_EXPORTED: lambda rig: rig.memory.shared.append(FAILED),
    rules.NOT_BEGUN: lambda rig: None,
    rules.MAX_PENDING: lambda rig: rig.memory.set("testmount", pending=5),
    rules.NO_RESTORE: lambda rig: None,
}
CALLS: dict[rules.Call, Callable[[Rig], Any]] = {
    "status": lambda rig: rig.ask("GET", f"{MOUNT}/backup"),
    "begin": lambda rig: rig.ask("POST", f"{MOUNT}/backup"),
    "log": lambda rig: rig.log(),
    "commit": lambda rig: rig.ask("PUT", f"{MOUNT}/backup"),
    "delete": lambda rig: rig.ask("DELETE", f"{MOUNT}/restores/7"),
}


PUBLISHED = {  # in the order in which they go before each other
    4295622675: "Store Decommission in progress.",
    4295622676: "Store was decommissioned.",
    4295622665: "Backup mount does not exist on Export Service.",
    4295622667: "Backup mount marked for delete on Export Service.",
    4295622669: "Backup mount is inconsistent state on Export Service.",
    4295622670: "Failed to export path to NFS.",
    4295622659: "START_BACKUP cmd not received yet.",
    4295622664: "Backup mount exceeded max pending snapshots.",
    4295622663: "Restore Path is missing on Export Service.",
}


def test_the_numbers_and_messages_are_the_published_ones() -> None:
    told = [(rule.refusal.code, rule.refusal.message) for rule in PRECEDENCE]
    assert told == list(PUBLISHED.items())


@pytest.mark.parametrize("rule", PRECEDENCE, ids=lambda rule: str(rule.refusal.code))
def test_every_refusal(rig: Rig, rule: rules.Rule) -> None:
    CAUSES[rule.refusal](rig)
    for call, ask in CALLS.items():
        if rig.memory.infos:
            rig.memory.set("testmount", session="")
        status, code, message, result = ask(rig)
        assert status == 200 and (result == {}) == (code != 0)
        if call in rule.calls:
            assert (code, message) == rule.refusal
        else:
            assert code != rule.refusal.code


PAIRS = [
    (first, second)
    for first, second in itertools.combinations(PRECEDENCE, 2)
    if first.calls & second.calls
    and {first.refusal, second.refusal} != {rules.DECOMMISSIONING, rules.DECOMMISSIONED}
    and {first.refusal, second.refusal} != {rules.DELETING, rules.INCONSISTENT}
]


@pytest.mark.parametrize(
    ("first", "second"), PAIRS, ids=[f"{a.refusal.code % 100}-{b.refusal.code % 100}" for a, b in PAIRS]
)  # fmt: skip
def test_of_two_the_first_is_told(rig: Rig, first: rules.Rule, second: rules.Rule) -> None:
    CAUSES[second.refusal](rig)
    CAUSES[first.refusal](rig)
    for call in first.calls & second.calls:
        assert CALLS[call](rig)[1] == first.refusal.code


def test_one_cause_alone_is_never_two() -> None:
    assert refusal("begin", Facts(None)) == rules.NO_MOUNT
    assert refusal("begin", Facts(None, "decommissioned")) == rules.DECOMMISSIONED


def test_own_numbers_are_apart() -> None:
    published = {rule.refusal.code for rule in PRECEDENCE}
    for row in TABLE:
        error = row.__new__(row)
        code = own_code(error)
        assert code not in published and not str(code).startswith("42956226")
        assert code - rules.OWN_CODES == row.kind.exit


# --- sessions and the limit ---------------------------------------------------------------------


def test_the_limit_is_told_and_kept_but_never_for_who_has_begun(rig: Rig) -> None:
    rig.memory.set("testmount", pending=4)
    assert rig.ask("GET", f"{MOUNT}/backup")[3]["is_reached_max_snapshots"] is False
    assert rig.ask("POST", f"{MOUNT}/backup")[1] == 0
    rig.memory.set("testmount", pending=5)
    status, code, _, result = rig.ask("GET", f"{MOUNT}/backup")
    assert (status, code, result["is_reached_max_snapshots"]) == (200, 0, True)
    assert rig.ask("POST", f"{MOUNT}/backup")[1] == 0  # it comes back
    assert rig.ask("PUT", f"{MOUNT}/backup")[1] == 0
    assert rig.ask("POST", f"{MOUNT}/backup")[1] == rules.MAX_PENDING.code


def test_without_a_limit_and_without_a_target_nothing_is_pending(rig: Rig) -> None:
    rig.settings = Settings(max_pending=0)
    rig.memory.set("testmount", pending=1000)
    assert rig.ask("POST", f"{MOUNT}/backup")[1] == 0


def test_a_second_begin_is_the_same_session_with_a_new_lease(rig: Rig) -> None:
    first = rig.ask("POST", f"{MOUNT}/backup")
    assert rig.ask("POST", f"{MOUNT}/backup") == first
    assert len(rig.memory.known) == 1 and rig.memory.renewed == 1


def test_a_begin_while_another_commits_is_busy(rig: Rig) -> None:
    rig.ask("POST", f"{MOUNT}/backup")
    rig.memory.known["s1"] = rig.memory.known["s1"].__class__("s1", "testmount", "committing", 1, 2)
    status, code, _, _ = rig.ask("POST", f"{MOUNT}/backup")
    assert (status, code) == (409, rules.OWN_CODES + 12)


def test_exports_that_concern_the_client_decide(rig: Rig) -> None:
    rig.memory.shared += [FAILED, ExportInfo("testmount", "127.0.0.0/8", state="active")]
    assert rig.ask("POST", f"{MOUNT}/backup")[1] == 0
    rig.memory.shared[:] = [
        ExportInfo("testmount", "10.0.0.0/8", state="active"),
        ExportInfo("testmount", "127.0.0.0/8", state="failed: stale"),
    ]
    assert rig.ask("POST", f"{MOUNT}/backup")[1] == rules.NOT_EXPORTED.code


@pytest.mark.parametrize(
    "job", ["x", "7x", "-1", "+7", "07", "7.0", "%37%00", "9" * 19, "%D9%A7", ""]
)
def test_a_job_that_is_no_number(rig: Rig, job: str) -> None:
    rig.memory.restores[7] = "done"
    assert rig.ask("DELETE", f"{MOUNT}/restores/{job}")[1] == rules.NO_RESTORE.code
    assert rig.memory.restores == {7: "done"}


def test_a_restore_under_way_is_refused_with_an_own_number(rig: Rig) -> None:
    rig.memory.restores[7] = "running"
    status, code, message, _ = rig.ask("DELETE", f"{MOUNT}/restores/7")
    assert (status, code) == (409, rules.OWN_CODES + 12) and "running" in message


def test_trouble_has_its_own_number_and_a_bug_no_traceback(
    rig: Rig, expect_log: Callable[[str], None]
) -> None:
    rig.memory.trouble = Corrupt("index")
    assert rig.ask("GET", f"{MOUNT}/backup")[:2] == (500, rules.OWN_CODES + 20)
    expect_log("bug .* in GET")
    rig.memory.trouble = RuntimeError("secret detail")
    status, code, message, _ = rig.ask("GET", f"{MOUNT}/backup")
    assert (status, code) == (500, rules.OWN_CODES + 1) and "secret" not in message


def test_what_changed_meanwhile_is_told_by_the_table(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.ask("POST", f"{MOUNT}/backup")

    def gone(session_id: str, *, label: str = "") -> None:
        rig.memory.set("testmount", session="")
        raise Busy("session", found="that it was abandoned")

    monkeypatch.setattr(rig.memory, "commit", gone, raising=False)
    assert rig.ask("PUT", f"{MOUNT}/backup")[1] == rules.NOT_BEGUN.code
