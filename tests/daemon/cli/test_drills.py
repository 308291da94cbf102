"""The commands about drills and retention, beside a store that no daemon serves, and through one."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from daemon.service.collapse import MARK, Watch
from daemon.state import State
from tests.cli.support import good, holdfast, new_store, noise, refused, write
from tests.daemon.cli.support import Served, asked, command, said
from tests.daemon.supervise.daemons import until


def told(*words: str | Path) -> str:
    code, text = said(*words)
    assert code == 0
    return text


def test_a_drill_through_the_service(served: Served) -> None:
    mine = ("--api", served.api, "--token-file", served.token)
    done = asked(served, "drill", "m", "--into", "out", "--keep")
    # Which of the points is chance.
    assert re.search("of m from local: [34] files, .* restored in", good(done))
    kept = Path(done.stderr.strip().removeprefix("kept in "))
    assert kept.parent.parent == served.base / "out" and (kept / "same").read_bytes() == b"same"
    point = json.loads(told(*mine, "points", "--json"))[0]["id"]
    row = json.loads(told(*mine, "drill", point, "--json"))
    assert (row["point"], row["mount"], row["error"]) == (point, "m", "")
    heads, *rows = told("--store", served.store, "drills", "m").splitlines()
    assert heads.split()[:4] == ["DRILL", "MOUNT", "POINT", "FROM"] and len(rows) == 2
    assert rows[0].split()[2] == point and rows[0].endswith("ok")
    assert "recovered in" in told(*mine, "status")
    assert "RECOVERY" in told(*mine, "mounts")
    refused(asked(served, "drill", "nope"), 10)
    refused(asked(served, "drill", "m", "--into", str(served.base)), 2, "name of a restore target")
    assert [one["act"] for one in json.loads(told(*mine, "audit", "--json"))].count("start drill") == 3  # fmt: skip


def test_a_drill_beside_the_store(tmp_path: Path) -> None:
    store, place = new_store(tmp_path / "store"), tmp_path / "place"
    place.mkdir()
    write(store, {b"x": noise(50_000, 1)})
    point = good(holdfast(store, "snapshot", "m")).split()[-1]
    assert f"point {point} of m from local" in told("--store", store, "drill", "--into", place)
    assert os.listdir(place) == []
    assert len(told("--store", store, "drills").splitlines()) == 2
    config = tmp_path / "holdfast.toml"
    flag = tmp_path / "flag"
    hook = f'command = ["/bin/sh", "-c", "touch {flag}; exec sleep 300"]\ntimeout_s = 300\n'
    config.write_text(f'store = "{store}"\n[mounts.m.hooks.verify]\n{hook}')
    # Whoever runs the tests in the background has had SIGINT ignored.
    program = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
        " from daemon.cli.main import main; main()"
    )
    words = [sys.executable, "-c", program, "--store", store, "drill"]
    environment = {**os.environ, "HOLDFAST_CONFIG": str(config)}
    with subprocess.Popen(words, env=environment, stderr=subprocess.DEVNULL) as process:
        until(flag.exists)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
    assert os.listdir(store / "daemon" / "drills") == []
    assert len(told("--store", store, "drills").splitlines()) == 2  # it is none that ended


def test_retention_is_shown_and_released(tmp_path: Path) -> None:
    store = new_store(tmp_path / "store")
    config = tmp_path / "holdfast.toml"
    config.write_text(f'store = "{store}"\n[mounts.m.keep]\nlast = 2\nwithin_s = "1d"\n')
    heads, row = told("--store", store, "retention", "show").splitlines()
    assert heads.split() == "MOUNT KEEPS FROZEN SINCE BECAUSE OF POINT WHY".split()
    assert row.split() == ["m", "all", "-", "-", "-"]
    here = {"HOLDFAST_CONFIG": str(config)}
    done = command("--store", store, "retention", "release", "m", **here)
    assert good(done) == "retention of m goes on: it keeps the last 2 and those of the last 1 d\n"
    refused(holdfast(store, "retention", "release", "nope"), 10)


def test_deleting_by_hand_says_that_retention_waits(tmp_path: Path) -> None:
    store = new_store(tmp_path / "store")
    point = good(holdfast(store, "snapshot", "m")).split()[-1]
    kept = good(holdfast(store, "snapshot", "m")).split()[-1]
    good(holdfast(store, "retention", "show"))
    watch = Watch(frozen="expected more, found less", since_ns=1, point=kept)
    with State.open(str(store)) as state:
        state.marks.put(MARK + "m", watch.to_json())
    assert f"{kept}" in good(holdfast(store, "retention", "show"))
    done = holdfast(store, "rm", point)
    assert good(done) == f"point {point} deleted\n"
    assert "retention of m waits" in done.stderr and "found less" in done.stderr
    assert "retention waits: expected more" in good(holdfast(store, "status"))
    good(holdfast(store, "retention", "release", "m"))
    assert holdfast(store, "rm", kept).stderr == ""
