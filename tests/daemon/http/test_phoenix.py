"""The Phoenix-compatible API over a real listener: curl's answers byte by byte, every number, uploads, strangers."""

from __future__ import annotations

import itertools
import json
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.contract import ExportInfo, TokenInfo
from daemon.http import phoenix
from daemon.http import phoenix_rules as rules
from daemon.http.gate import Gate
from daemon.http.phoenix_access import Settings, within
from daemon.http.phoenix_rules import PRECEDENCE, Facts, Refusal, own_code, refusal
from daemon.http.upload import safe_name
from engine.errors import TABLE, Busy, Corrupt
from tests.daemon.http.phoenix_rig import BASE, Memory, listening

SCRIPT = Path(__file__).with_name("phoenix_curl.sh")  # tests/daemon/http/phoenix_curl.sh
MOUNT = f"{BASE}/mounts/testmount"
LOG = b"piece handle=/local/testmount/0a_1_1\n"


class Rig:
    """A served API, its backend, its settings and a client."""

    def __init__(self) -> None:
        self.memory = Memory()
        self.memory.add("testmount", path="/Phoenix/testmount/oracle_data")
        self.settings = Settings(max_upload=1 << 20)
        self.store: rules.StoreState = "active"
        self.gate: Gate | None = None
        self.client = httpx.Client()

    def ask(self, method: str, path: str, **more: Any) -> tuple[int, int, str, dict[str, Any]]:
        """HTTP status, error_code, error_msg, result."""
        answer = self.client.request(method, path, **more)
        assert answer.headers["content-type"] == "application/json"
        found = json.loads(answer.text)
        assert list(found) == ["error_code", "error_msg", "result"]
        return answer.status_code, found["error_code"], found["error_msg"], found["result"]

    def log(self, content: bytes = LOG, name: str = "rman.log") -> tuple[int, int, str, dict[str, Any]]:
        return self.ask(
            "POST", f"{MOUNT}/uploadlog", files={"file": (name, content)},
            data={"mountpoint": "/local/testmount", "platform": "linux"},
        )  # fmt: skip


@pytest.fixture(scope="module")
def served() -> Iterator[Rig]:
    rig = Rig()
    app = phoenix.app(
        rig.memory, lambda: rig.settings, store_state=lambda: rig.store  # type: ignore[arg-type]
    )  # fmt: skip
    with listening(app) as url, httpx.Client(base_url=url, timeout=20) as client:
        rig.client = client
        yield rig


@pytest.fixture
def rig(served: Rig) -> Rig:
    fresh = Rig()
    served.memory.__dict__.update(fresh.memory.__dict__)
    served.settings, served.store = fresh.settings, fresh.store
    return served


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


def test_the_numbers_and_messages_are_the_published_ones() -> None:
    page = Path("/work/shared/spec/druva-api.md")
    assert [rule.refusal.code - 4295622600 for rule in PRECEDENCE] == [75, 76, 65, 67, 69, 70, 59, 64, 63]
    if page.exists():  # it is not part of the tree
        for rule in PRECEDENCE:
            assert f"| {rule.refusal.code} |" in page.read_text()
            assert f"| {rule.refusal.message} |" in page.read_text()


@pytest.mark.parametrize("rule", PRECEDENCE, ids=lambda rule: str(rule.refusal.code))
def test_every_refusal(rig: Rig, rule: rules.Rule) -> None:
    CAUSES[rule.refusal](rig)
    for call, ask in CALLS.items():
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


@pytest.mark.parametrize("job", ["x", "7x", "-1", "+7", "07", "7.0", "%37%00", "9" * 19, "%D9%A7", ""])
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


def test_what_changed_meanwhile_is_told_by_the_table(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.ask("POST", f"{MOUNT}/backup")

    def gone(session_id: str, *, label: str = "") -> None:
        rig.memory.set("testmount", session="")
        raise Busy("session", found="that it was abandoned")

    monkeypatch.setattr(rig.memory, "commit", gone, raising=False)
    assert rig.ask("PUT", f"{MOUNT}/backup")[1] == rules.NOT_BEGUN.code


# --- routes and names ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    ["/", "/druva-phoenix/v1", f"{BASE}/mounts", f"{BASE}/mounts/testmount", f"{MOUNT}/backup/",
     f"{MOUNT}/Backup", f"{BASE}/mounts/a/b/backup", f"{MOUNT}/restores", "/v1/mounts", f"{BASE}x/mounts/t/backup",
     "/druva-phoenix/v2/mounts/testmount/backup", f"{MOUNT}/restores/1/2"],
)  # fmt: skip
def test_unknown_routes_are_a_true_404(rig: Rig, path: str) -> None:
    assert rig.ask("GET", path)[:2] == (404, rules.OWN_CODES + 10)


def test_a_known_path_with_another_method_is_a_405_that_says_which(rig: Rig) -> None:
    answer = rig.client.request("PATCH", f"{MOUNT}/backup")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, POST, PUT")
    assert rig.ask("GET", f"{MOUNT}/uploadlog")[0] == 405
    assert rig.client.head(f"{MOUNT}/backup").status_code == 405


@pytest.mark.parametrize(
    "name",
    ["TESTMOUNT", "..", "%2e%2e", ".", "%2Fetc", "a%2Fb", "testmount%00", "%ff%fe", "x" * 10_000, "-rf", "test mount",
     "testmount%2F", "%252e", "t\u00e9st", "testmount;", "$(id)", "testmount%0a"],
)  # fmt: skip
def test_a_bad_name_is_a_mount_that_is_not_there(rig: Rig, name: str) -> None:
    for method, rest in (("GET", "backup"), ("POST", "backup"), ("PUT", "backup"), ("DELETE", "restores/7")):
        raw = f"{BASE}/mounts/{name}/{rest}".encode()
        url = rig.client.base_url.copy_with(raw_path=raw)
        answer = rig.client.request(method, url)
        assert (answer.status_code, answer.json()["error_code"]) == (200, rules.NO_MOUNT.code)


@settings(max_examples=150)
@given(
    st.sampled_from(["GET", "POST", "PUT", "DELETE"]),
    st.binary(min_size=1, max_size=60),
    st.sampled_from(["backup", "uploadlog", "restores/1"]),
)
def test_no_name_is_ever_a_500(served: Rig, method: str, name: bytes, rest: str) -> None:
    quoted = "".join(f"%{byte:02x}" for byte in name)
    raw = f"{BASE}/mounts/{quoted}/{rest}".encode()
    answer = served.client.request(method, served.client.base_url.copy_with(raw_path=raw))
    assert answer.status_code < 500
    assert answer.json()["error_code"] > 0 or name == b"testmount"


def test_raw_nonsense_on_the_line_is_no_500(rig: Rig) -> None:
    address = (rig.client.base_url.host, rig.client.base_url.port)
    for path in (b"//", b"/%", b"/%zz/../..", BASE.encode() + b"/mounts/%", b"/druva-phoenix/v1/mounts/\xff/backup"):
        with socket.create_connection(address, timeout=10) as line:
            line.sendall(b"GET " + path + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            answer = b"".join(iter(lambda: line.recv(65536), b""))
        assert answer[:12] in (b"HTTP/1.1 404", b"HTTP/1.1 200", b"HTTP/1.1 400")


# --- uploads ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "kept"),
    [("rman.log", "rman.log"), ("/etc/passwd", "passwd"), ("..\\..\\boot.ini", "boot.ini"), ("..", "log"),
     ("", "log"), (".hidden", "hidden"), ("a b\x00\n\x1b[2Jc", "a_b_2Jc"), ("\u00e9.log", "log"), ("x" * 300, "x" * 100)],
)  # fmt: skip
def test_a_files_name_is_a_label(sent: str, kept: str) -> None:
    assert safe_name(sent) == kept


def test_an_upload_at_its_limit_and_over_it(rig: Rig) -> None:
    rig.ask("POST", f"{MOUNT}/backup")
    most = rig.settings.max_upload
    assert rig.log(b"x" * most)[1] == 0
    assert len(rig.memory.logs[-1][2]) == most
    for extra in (1, 200_000):
        status, code, _, _ = rig.log(b"x" * (most + extra))
        assert (status, code) == (413, rules.OWN_CODES + 2)

    def endless() -> Iterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n'
        for _ in range(40):
            yield b"x" * 65536

    kind = {"content-type": "multipart/form-data; boundary=b"}
    answer = rig.client.post(f"{MOUNT}/uploadlog", content=endless(), headers=kind)
    assert (answer.status_code, answer.json()["error_code"]) == (413, rules.OWN_CODES + 2)
    assert len(rig.memory.logs) == 2
    assert rig.ask("PUT", f"{MOUNT}/backup")[1] == 0


PART = b'--b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\nhello\r\n'


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("multipart/form-data; boundary=b", b""),
        ("multipart/form-data; boundary=b", b"--b--\r\n"),
        ("multipart/form-data; boundary=b", PART[:-4]),  # cut off
        ("multipart/form-data; boundary=b", b"no boundary here at all"),
        ("multipart/form-data; boundary=b", PART + PART + b"--b--\r\n"),
        ("multipart/form-data; boundary=b", PART.replace(b'; filename="f"', b"") + b"--b--\r\n"),
        ("multipart/form-data; boundary=b", PART.replace(b'"file"', b'"other"') + b"--b--\r\n"),
        ("multipart/form-data; boundary=b", b"--b\r\n" + b"X: y\r\n" * 100 + b"\r\nz\r\n--b--\r\n"),
        ("multipart/form-data; boundary=b", b"--b\r\nX: " + b"y" * 10_000 + b"\r\n\r\nz\r\n--b--\r\n"),
        ("multipart/form-data; boundary=b", b"--b\r\n\r\nx\r\n" * 30 + b"--b--\r\n"),
        ("multipart/form-data; boundary=b", PART.replace(b"hello", b"x" * 5000).replace(b'; filename="f"', b"")),
        ("multipart/form-data; boundary=" + "b" * 300, PART),
        ("multipart/form-data", PART + b"--b--\r\n"),
        ("multipart/form-data; boundary=", PART),
        ("application/json", b"{}"),
        ("application/x-www-form-urlencoded", b"file=x"),
        ("", b"x"),
    ],
)
def test_a_broken_upload_is_refused_and_keeps_nothing(rig: Rig, kind: str, body: bytes) -> None:
    rig.ask("POST", f"{MOUNT}/backup")
    headers = {"content-type": kind} if kind else {}
    answer = rig.client.post(f"{MOUNT}/uploadlog", content=body, headers=headers)
    assert (answer.status_code, answer.json()["error_code"]) == (400, rules.OWN_CODES + 2)
    assert rig.memory.logs == []


@settings(max_examples=150)
@given(
    st.lists(st.one_of(st.sampled_from([PART, b"--b", b"--b--", b"\r\n", b"\r\n\r\n", b'name="file"']), st.binary(max_size=40))),
    st.one_of(st.just("multipart/form-data; boundary=b"), st.text("multipart/form-data;boundary=\"*'%b ", max_size=40)),
)  # fmt: skip
def test_no_upload_is_ever_a_500(served: Rig, parts: list[bytes], kind: str) -> None:
    if not served.memory.infos["testmount"].session:
        served.memory.begin("testmount")
    headers = {"content-type": kind}
    answer = served.client.post(f"{MOUNT}/uploadlog", content=b"".join(parts), headers=headers)
    assert answer.status_code in (200, 400, 413)


def test_an_upload_that_is_cut_off_leaves_the_session(rig: Rig) -> None:
    rig.ask("POST", f"{MOUNT}/backup")
    head = f"POST {MOUNT}/uploadlog HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999\r\n"
    with socket.create_connection((rig.client.base_url.host, rig.client.base_url.port), timeout=10) as line:
        line.sendall(head.encode() + b"Content-Type: multipart/form-data; boundary=b\r\n\r\n" + PART[:-3])
    assert rig.memory.logs == []
    assert rig.ask("PUT", f"{MOUNT}/backup")[1] == 0


# --- who may ask --------------------------------------------------------------------------------


def test_only_addresses_of_the_list(rig: Rig) -> None:
    rig.settings = Settings(allow=("10.0.0.0/8", "::1/128"))
    assert rig.ask("GET", f"{MOUNT}/backup")[:2] == (403, rules.OWN_CODES + 14)
    rig.settings = Settings(allow=("127.0.0.1/32",))
    assert rig.ask("GET", f"{MOUNT}/backup")[0] == 200
    assert within("::ffff:127.0.0.9", ("127.0.0.0/8",)) and not within("", ("0.0.0.0/0",))
    assert not within("fe80::1", ("127.0.0.0/8",))


def test_no_web_page_may_ask(rig: Rig) -> None:
    origin = str(rig.client.base_url).rstrip("/")
    assert rig.ask("POST", f"{MOUNT}/backup", headers={"origin": origin})[0] == 403
    assert not rig.memory.known


class Known:
    """The tokens of a test, by their secrets."""

    def __init__(self, *tokens: TokenInfo) -> None:
        self.by_secret = {f"secret-{token.id}": token for token in tokens}

    def verify(self, presented: str) -> TokenInfo | None:
        return self.by_secret.get(presented)


class Book:
    """An audit log in memory."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, ...]] = []

    def write(self, who: str, origin: str, act: str, about: str, result: str) -> None:
        self.lines.append((who, origin, act, about, result))


def test_tokens_where_they_are_required() -> None:
    rig, book = Rig(), Book()
    rig.memory.restores[7] = "done"
    rig.settings = Settings(token_required=True)
    known = Known(
        TokenInfo("w", "writer", ["testmount"], "", 1), TokenInfo("v", "writer", [], "", 1),
        TokenInfo("o", "writer", ["other"], "", 1), TokenInfo("r", "restorer", [], "", 1),
        TokenInfo("e", "writer", [], "", 1, expires_ns=5), TokenInfo("x", "writer", [], "", 1, revoked_ns=5),
    )  # fmt: skip
    gate = Gate(known, book, clock=lambda: 10, failures_per_minute=100)
    app = phoenix.app(rig.memory, lambda: rig.settings, gate=gate)  # type: ignore[arg-type]
    with listening(app) as url, httpx.Client(base_url=url, timeout=20) as rig.client:

        def ask(token: str, method: str, rest: str = "backup") -> int:
            headers = {"authorization": f"Bearer secret-{token}"} if token else {}
            return rig.ask(method, f"{MOUNT}/{rest}", headers=headers)[0]

        assert [ask(one, "GET") for one in ("", "?", "e", "x", "o", "w", "r")] == [401, 401, 401, 401, 403, 200, 200]
        assert [ask(one, "POST") for one in ("r", "w", "v", "w")] == [403, 200, 403, 200]
        assert [ask(one, "PUT") for one in ("r", "v", "w")] == [403, 403, 200]
        assert [ask(one, "DELETE", "restores/7") for one in ("w", "r")] == [403, 200]
        rig.settings = Settings()
        assert [ask(one, "GET") for one in ("", "w", "?")] == [200, 200, 401]
    assert ("w", "127.0.0.1", "begin session", "mount testmount", "ok") in book.lines
    assert ("v", "127.0.0.1", "commit session", "mount testmount", "permission_denied") in book.lines
    assert ("r", "127.0.0.1", "delete restore", "mount testmount", "ok") in book.lines
