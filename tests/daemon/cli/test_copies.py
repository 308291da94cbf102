"""The commands about copies, beside a store that no daemon serves, and through one."""

from __future__ import annotations

import json
import os
import pty
import re
from pathlib import Path
from typing import Any

import click
import pytest

from daemon.cli.output import Until
from engine.keys import Identity, load
from tests import warm
from tests.cli.support import LIMIT, good, holdfast, new_store, noise, refused, write
from tests.daemon.cli.support import Served, asked, said
from tests.locations.places import Place


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("k") / "key"
    path.write_text(Identity.new().printed())
    path.chmod(0o600)
    return path


def test_a_location_from_its_beginning_to_its_end(place: Place, tmp_path: Path, key: Path) -> None:
    store = new_store(tmp_path / "store")
    write(store, {b"x": noise(50_000, 1)})

    def run(*words: str | Path) -> str:
        code, text = said("--store", store, *words)
        assert code == 0
        return text

    def code(*words: str | Path) -> int:
        return said("--store", store, *words)[0]

    run("snapshot", "m")
    url = place.url
    add = ("location", "add")
    refused(holdfast(store, "snapshot", "m", "--wait", "remote"), 2, "holdfast location add")
    assert code(*add, "nas", url) == 2  # no secret, and no terminal to ask at
    out = tmp_path / "recovery"
    made = run(*add, "nas", url, "--recovery-key-out", out, "--key-file", key)
    assert made == f"location nas: 1 point to be kept at {url}\n"
    assert out.stat().st_mode & 0o777 == 0o600
    assert isinstance(load(str(out)), Identity)
    assert code(*add, "nas", url, "--recovery-key-out", f"{out}2") == 11
    assert not Path(f"{out}2").exists()
    assert code(*add, "two", url, "--recovery-key-out", out) == 11
    rows = run("uploads").splitlines()
    heads = ["LOCATION", "POINT", "MOUNT", "STATE", "SINCE", "SENT", "REQUESTS", "REASON"]
    assert rows[0].split() == heads
    assert rows[1].split()[3] == "queued"
    changed = run("location", "change", "nas", "--bandwidth", "08:00-18:00=5M,1G", "--verify", "1")
    assert changed.splitlines()[1:] == [
        "bytes sent a second: 08:00-18:00=5M,1G", "bytes fetched a second: no limit",
    ]  # fmt: skip
    assert "no limit" in run("location", "change", "nas", "--bandwidth", "none").splitlines()[1]
    assert code("location", "change", "nas", "--bandwidth", "x") == 2
    assert "1 point to be sent" in run("location", "change", "nas", "--all-mounts")
    assert re.match(r"nas: 1 point, .* sent, \d+ requests\n", run("upload"))
    assert re.search(r"\nnas: .* sent so far, \d+ requests\n", run("uploads"))
    assert run("upload") == "nothing waits\n"
    point = run("snapshot", "m", "--wait", "remote").split()[-1]
    told = {one["point"]: one for one in json.loads(run("uploads", "--watch", "--json"))}
    assert (told[point]["location"], told[point]["state"]) == ("nas", "verified")
    assert run("uploads", "--retry") == "0 points queued again\n"
    assert json.loads(run("location", "list", "--json"))[0]["verified"] == 2
    assert "nas       2" in run("location", "list")
    assert code("lock", point, "--until", "0d") == 2
    told = run("lock", point, "--until", "2099-12-31")
    assert told == f"point {point} locked until 2099-12-31 00:00:00Z\n"
    assert json.loads(run("location", "list", "--json"))[0]["locking"] == 0
    assert "2099-12-31 00:00:00Z" in run("points") and "until 2099-12-31" in run("show", point)
    refused(holdfast(store, "rm", point), 15, "until 2099-12-31")
    assert code("delete", "m", "--yes") == 15
    assert "lock point" in run("audit")
    new = tmp_path / "new"
    assert said("adopt", place.url, "--store", new, "--key-file", key)[0] == 0
    place.gone()
    assert said("--store", new, "check", "--read-data")[0] == 22  # not 20: that is no damage
    refused(holdfast(store, "snapshot", "m", "--wait", "remote"), 12, "the point itself exists")
    assert code("upload", "nas") == 10
    assert code("lock", point, "--until", "2099-12-31T12:30:00Z") == 0
    assert json.loads(run("location", "list", "--json"))[0]["locking"] == 1
    assert run("location", "remove", "nas") == "location nas removed; what lies there stays\n"
    assert run("location", "list", "--json") == "[]\n"


def test_until_when() -> None:
    until = Until()
    assert until.convert("2027-01-31", None, None) == (1_801_353_600 * 10**9, 0.0)
    assert until.convert("2027-01-31T12:30Z", None, None) == (1_801_398_600 * 10**9, 0.0)
    assert until.convert("1.5d", None, None) == (0, 129_600.0)
    for wrong in (
        "2027",
        "tomorrow",
        "2027-02-30",
        "2027-01-31T25:00",
        "30",
        "1e9d",
        "2027-01-31+02:00",
    ):
        with pytest.raises(click.BadParameter, match="is no time"):
            until.convert(wrong, None, None)


def _told(done: Any) -> Any:
    return json.loads(good(done))


def test_through_a_daemon(served: Served, place: Place, tmp_path: Path, key: Path) -> None:
    add = (
        "location",
        "add",
        "far",
        place.url,
        "--credentials",
        place.source(tmp_path),
        "--key-file",
        key,
        "--mount",
        "m",
        "--verify",
        "1",
    )
    assert "far: " in good(asked(served, *add))
    try:
        point = good(asked(served, "snapshot", "m", "--wait", "remote")).split()[-1]
        good(asked(served, "uploads", "--watch"))
        found = _told(
            asked(served, "uploads", "--location", "far", "--state", "verified", "--json")
        )
        assert point in [one["point"] for one in found]
        assert good(asked(served, "upload")) == "nothing waits\n"
        reclaim = ("location", "reclaim", "far")
        planned = _told(asked(served, *reclaim, "--dry-run", "--price-month", "1", "--json"))
        assert planned["requests"] and planned["packs"] == 0
        assert "requests: " in good(asked(served, *reclaim, "--for", "10m", "--grace", "0s"))
        refused(asked(served, "location", "reclaim", "near"), 10, "near")
        ran = _told(asked(served, "jobs", "--kind", "reclaim", "--json"))
        assert [one["state"] for one in ran[:2]] == ["done", "done"]
    finally:
        good(asked(served, "location", "remove", "far"))


def test_a_passphrase_is_asked_for_twice(tmp_path: Path) -> None:
    store = new_store(tmp_path / "store")
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    words = ["--store", str(store), "location", "add"]
    done, shown = _typed(
        [*words, "one", f"file://{tmp_path}/one"], b"secret\nother\nsecret\nsecret\n"
    )
    assert done == 0, shown
    assert b"secret" not in shown
    assert shown.count(b"Passphrase of one") == 2
    given = tmp_path / "given"
    given.touch(0o600)
    given.write_text("secret\n")
    more = ("--passphrase-file", str(given), "--json")
    made = _told(holdfast(store, "location", "add", "two", f"file://{tmp_path}/two", *more))
    assert "secret" not in json.dumps(made)


def _typed(words: list[str], keys: bytes) -> tuple[int, bytes]:
    """Run a command at a terminal where this is typed; its exit code and what the terminal showed."""
    leader, follower = pty.openpty()
    try:
        running = warm.start(words, stdin=follower, stdout=follower, stderr=follower)
        os.close(follower)
        shown = b""
        for line in keys.splitlines(keepends=True):
            while not shown.endswith(b": "):
                shown += os.read(leader, 4096)
            os.write(leader, line)
            shown += os.read(leader, 1)
        code = running.wait(LIMIT)
        try:
            while more := os.read(leader, 4096):
                shown += more
        except OSError:  # the other end is closed
            pass
        return code, shown
    finally:
        os.close(leader)
