"""The command that lists incidents: when nothing else works, too."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from engine.incidents import Journal
from engine.seam import REAL
from fsmount import request
from tests.cli.support import good, holdfast, mounted, new_store, noise, unmounted


def listed(store: Path) -> dict[str, Any]:
    return json.loads(good(holdfast(store, "incidents", "--json")))


def test_incidents_are_listed_when_the_index_is_damaged_and_forgotten_when_told(
    tmp_path: Path,
) -> None:
    store = new_store(tmp_path / "store")
    assert listed(store) == {"incidents": [], "silent": []}
    assert good(holdfast(store, "incidents")) == "no incidents\n"
    os.truncate(store / "index" / "data.mdb", 5000)
    assert holdfast(store, "points").returncode == 20
    (found,) = listed(store)["incidents"]
    assert (found["kind"], found["thing"], found["count"]) == ("corrupt", "index", 1)
    assert found["first"] == found["last"] > 0
    lines = good(holdfast(store, "incidents", "--reset")).splitlines()
    assert len(lines) == 2
    assert "cut short" in lines[1]
    assert listed(store)["incidents"] == []


def test_names_in_incidents_are_escaped_and_the_key_is_not_in_them(tmp_path: Path) -> None:
    store = new_store(tmp_path / "store")
    journal = Journal()
    journal.placed(str(store), REAL)
    journal.note("corrupt", "file \x1b[2Jevil\udcff\n", "text\x07")
    text = good(holdfast(store, "incidents"))
    assert r"file \x1b[2Jevil\xff\n" in text
    assert r"text\x07" in text
    key = json.loads((store / "format.json").read_text())["id_key"]
    assert key not in (store / "incidents.jsonl").read_text()


def test_there_is_no_store(tmp_path: Path) -> None:
    assert holdfast(tmp_path, "incidents").returncode == 10


@pytest.mark.needs_fuse
def test_a_worker_is_asked_for_what_it_could_not_write_yet(tmp_path: Path, live: Path) -> None:
    store = tmp_path / "store"
    good(holdfast(store, "init"))
    good(holdfast(store, "create", "m", "--quota", "100K"))
    mounted(store, "m", live, "--write-through")
    try:
        pid = int(request(str(store), "m", "status")["pid"])
        (store / "incidents.jsonl").mkdir()  # no file can be written there
        with pytest.raises(OSError):
            (live / "large").write_bytes(noise(200_000, 1))
        (found,) = listed(store)["incidents"]
        assert (found["kind"], found["thing"]) == ("quota", "mount m")
        os.kill(pid, signal.SIGSTOP)
        try:
            assert listed(store) == {"incidents": [], "silent": ["m"]}
        finally:
            os.kill(pid, signal.SIGCONT)
        (store / "incidents.jsonl").rmdir()
    finally:
        unmounted(live)
