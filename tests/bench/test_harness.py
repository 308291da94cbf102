"""The benchmark's own tools: comparing trees, pairing repetitions, judging targets, its mounts."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from tools.bench import __main__ as bench
from tools.bench import measure, report, sets
from tools.bench.gen.base import DataSet
from tools.bench.peers import mounted, registry
from tools.bench.peers.base import Delivery
from tools.bench.peers.plain import Copy, TarZstd
from tools.bench.results import Results, middle, paired
from tools.bench.targets import TARGETS, Target


def silent(_: str) -> None:
    """Say nothing."""


@pytest.fixture
def data(tmp_path: Path) -> DataSet:
    """A set of two small generations; the second changes, adds and deletes a file."""
    folders = tmp_path / "g0", tmp_path / "g1"
    for number, folder in enumerate(folders):
        (folder / "sub").mkdir(parents=True)
        (folder / "same").write_bytes(b"the same" * 1000)
        (folder / "sub" / "changed").write_bytes(b"version %d" % number * 1000)
        (folder / f"only{number}").write_bytes(os.urandom(5000))
    return DataSet("some", folders)


def row(peer: str, repeat: int, **values: float) -> dict[str, object]:
    """A row of the set dbimg."""
    return {"set": "dbimg", "peer": peer, "repeat": repeat, **values}


def test_equal_trees_have_no_difference(data: DataSet, tmp_path: Path) -> None:
    shutil.copytree(data.generations[0], tmp_path / "copy")
    assert measure.difference(data.generations[0], tmp_path / "copy") is None


@pytest.mark.parametrize("harm", ["byte", "length", "missing", "added", "type"])
def test_every_kind_of_difference_is_found(data: DataSet, tmp_path: Path, harm: str) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(data.generations[0], copy)
    victim = copy / "sub" / "changed"
    if harm == "byte":
        content = bytearray(victim.read_bytes())
        content[-1] ^= 1
        victim.write_bytes(content)
    elif harm == "length":
        victim.write_bytes(victim.read_bytes() + b"x")
    elif harm == "added":
        (copy / "more").mkdir()
    else:
        victim.unlink()
        if harm == "type":
            victim.symlink_to("same")
    assert measure.difference(data.generations[0], copy) is not None


def test_a_failing_command_says_what_it_said() -> None:
    script = "import sys; sys.exit('no such thing')"
    with pytest.raises(measure.BenchError, match="no such thing"):
        measure.run([sys.executable, "-c", script])


def test_peak_memory_of_a_child_is_seen() -> None:
    usage = measure.run([sys.executable, "-c", "x = bytearray(64 << 20)"])
    assert usage.peak > 64 << 20


def test_used_bytes_leave_holes_out(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as out:
        out.truncate(1 << 30)
    (tmp_path / "full").write_bytes(os.urandom(1 << 20))
    measure.sync_file_system(tmp_path)
    assert 1 << 20 <= measure.used_bytes(tmp_path) < 2 << 20


@pytest.mark.parametrize("maker", [Copy, TarZstd])
def test_a_peer_is_measured_and_what_it_gives_back_compared(
    data: DataSet, tmp_path: Path, maker: type[Copy], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sets, "drop_caches", lambda: False)  # the machine is not ours alone
    peer = maker()
    if peer.missing():
        pytest.skip(str(peer.missing()))
    found = sets.measure(data, peer, 0, tmp_path / "work")
    assert "error" not in found
    assert found["restore_equal"] is True
    assert found["cold"] is False
    assert found["ratio"] == pytest.approx(found["bytes"] / found["stored"])
    assert not list((tmp_path / "work").iterdir())


def test_a_peer_that_gives_back_something_else_is_caught(
    data: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sets, "drop_caches", lambda: False)

    class Liar(Copy):
        def restore(self, number: int, target: Path, way: str) -> float:
            seconds = super().restore(number, target, way)
            (target / "same").write_bytes(b"THE same" * 1000)
            return seconds

    found = sets.measure(data, Liar(), 0, tmp_path / "work")
    assert "NOT EQUAL" in found["error"]
    assert "restore_equal" not in found


def test_ratios_are_taken_within_a_repetition() -> None:
    run = Results(sets=[row("a", 0, v=10), row("a", 1, v=30), row("b", 0, v=5), row("b", 2, v=1)])
    assert paired(run.values("dbimg", "a", "v"), run.values("dbimg", "b", "v")) == [2.0]
    assert middle([3, 1, 2]) == 2
    assert middle([]) is None


def test_the_best_opponent_counts() -> None:
    run = Results(sets=[row("b", 0, v=5), row("c", 0, v=8), row("c", 1, v=2)])
    assert run.best("dbimg", ("b", "c", "d"), "v") == {0: 8, 1: 2}


def test_the_slower_way_of_restoring_counts() -> None:
    run = Results(sets=[row("holdfast", 0, x=5, y=3), row("holdfast", 1, x=5)])
    assert run.lowest("dbimg", "holdfast", ("x", "y")) == {0: 3}


def test_targets_judge_both_directions() -> None:
    at_least = Target("a", 2.0, lambda _: [])
    at_most = Target("b", 2.0, lambda _: [], most=True)
    assert at_least.reached(2.0)
    assert not at_least.reached(1.9)
    assert at_most.reached(2.0)
    assert not at_most.reached(2.1)


def test_a_target_without_measurements_is_not_reached() -> None:
    lines = report.targets_table(Results())[1]
    assert len(lines) == len(TARGETS)
    assert {line[3] for line in lines} == {"not measured"}


def test_targets_say_what_was_reached_and_what_not() -> None:
    run = Results(
        sets=[
            row("holdfast", 0, ratio=16.0, first_mb_s=100, later_mb_s=600, peak_mib=700),
            row("restic", 0, ratio=3.0, first_mb_s=100, later_mb_s=100),
            row("tar-zstd", 0, first_mb_s=400),
        ]
    )
    verdicts = {line[0]: line[2:] for line in report.targets_table(run)[1]}
    assert verdicts["dbimg later, by restic"] == ["6.00", "reached"]
    assert verdicts["dbimg first, by tar | zstd -3 -T2"] == ["0.25", "FALLS SHORT"]
    assert verdicts["dbimg stored"] == ["16.00", "reached"]
    assert verdicts["worker memory at most"] == ["700", "FALLS SHORT"]


def test_results_survive_the_file_and_become_tables(tmp_path: Path) -> None:
    run = Results(
        machine=measure.machine(),
        conditions={"scale": 0.1, "repeats": 2},
        sets=[row("holdfast", n, first_mb_s=100 + n, ratio=9.5) for n in range(2)],
        probes={"snapshots": [{"kind": "tree", "files": 1000, "changed_100_s": 0.25}]},
    )
    run.save(tmp_path / "deep" / "r.json")
    again = Results.load(tmp_path / "deep" / "r.json")
    assert again == run
    text = report.as_text(again)
    assert "100 (100–101)" in text
    assert "1,000 files" in text
    report.write_markdown(again, tmp_path / "page.md")
    page = (tmp_path / "page.md").read_text()
    assert "| dbimg first, by tar \\| zstd -3 -T2 |" in page
    for line in page.splitlines():
        assert not line.startswith("|") or line.endswith("|")


def test_unknown_names_are_refused() -> None:
    with pytest.raises(measure.BenchError, match="unknown name 'dbx'"):
        bench.names("dbimg,dbx", sets.NAMES)
    with pytest.raises(measure.BenchError, match="unknown peer"):
        registry.make("nobody")


def test_every_default_peer_exists() -> None:
    assert set(registry.DEFAULTS) == set(sets.NAMES)
    assert {name for peers in registry.DEFAULTS.values() for name in peers} <= set(registry.MAKERS)


@pytest.mark.needs_fuse
@pytest.mark.parametrize("name", ["null", "null-writeback"])
def test_the_do_nothing_mount_keeps_names_and_sizes(
    data: DataSet, tmp_path: Path, name: str
) -> None:
    peer = registry.make(name)
    assert isinstance(peer, mounted.Null)
    peer.prepare(tmp_path / "peer")
    try:
        for number, source in enumerate(data.generations):
            peer.ingest(source, number, Delivery())
        wanted, found = (
            {str(path.relative_to(root)): path.stat().st_size for path in measure.plain_files(root)}
            for root in (data.generations[1], peer.mountpoint)
        )
        assert found == wanted
        peer.ingest(data.generations[0], 2, Delivery(rsync=True))
        assert (peer.mountpoint / "only0").exists()
        assert not (peer.mountpoint / "only1").exists()
    finally:
        peer.close()
    assert peer.peak > 1 << 20


@pytest.mark.needs_fuse
@pytest.mark.parametrize("writeback", [False, True])
def test_the_passthrough_gives_back_what_it_took(
    data: DataSet, tmp_path: Path, writeback: bool
) -> None:
    peer = mounted.Passthrough(writeback)
    peer.prepare(tmp_path / "peer")
    try:
        for number, source in enumerate(data.generations):
            peer.ingest(source, number, Delivery())
        with (peer.mountpoint / "same").open("r+b") as out:
            out.seek(4096)
            out.write(b"changed in place")
        (peer.mountpoint / "sub" / "changed").rename(peer.mountpoint / "moved")
        assert measure.difference(tmp_path / "peer" / "store", peer.mountpoint) is None
        assert (tmp_path / "peer/store/moved").read_bytes() == b"version 1" * 1000
    finally:
        peer.close()


@pytest.mark.needs_fuse
def test_a_mount_that_cannot_start_says_why(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; sys.exit('no luck today')"]
    with pytest.raises(measure.BenchError, match="no luck today"):
        mounted.Served(command, tmp_path / "mnt")
