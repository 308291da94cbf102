"""What Holdfast has to reach, as ratios within one run, and whether a run reached it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from tools.bench.results import Results, paired

BORGS: Final = ("borg", "borg-lz4", "borg-64k", "borg-8k")
# The reference of the targets stored 2.75 : 1 with borg's default chunker: that is zstd, not the default lz4.
DEFAULT_BORGS: Final = ("borg",)
NULLS: Final = ("null", "null-writeback")
WAYS: Final = ("restore_mb_s", "mount_mb_s")
MEMORY_MIB: Final = 512

Values = Callable[[Results], list[float]]


@dataclass(frozen=True)
class Target:
    """One line of the comparison: `values` gives one number per repetition.

    At least `need` is wanted, or at most when `most` is set.
    """

    what: str
    need: float
    values: Values
    unit: str = "×"
    most: bool = False

    def reached(self, value: float) -> bool:
        """Return whether `value` is good enough."""
        return value <= self.need if self.most else value >= self.need


def against(place: str, key: str, peers: tuple[str, ...]) -> Values:
    """Compare our `key` with the best of `peers`."""
    return lambda run: paired(run.values(place, "holdfast", key), run.best(place, peers, key))


def plain(place: str, key: str) -> Values:
    """Take our `key` as it is."""
    return lambda run: list(run.values(place, "holdfast", key).values())


def restores(place: str, peers: tuple[str, ...]) -> Values:
    """Compare our slower way of restoring with the best of `peers`."""
    return lambda run: paired(
        run.lowest(place, "holdfast", WAYS), run.best(place, peers, "restore_mb_s")
    )


def _restore_by_ingest(run: Results) -> list[float]:
    ours = run.lowest("dbimg", "holdfast", WAYS)
    return paired(ours, run.values("dbimg", "holdfast", "later_mb_s"))


def _snapshot(files: int) -> Values:
    def values(run: Results) -> list[float]:
        rows = run.rows("snapshots")
        return [row["changed_100_s"] for row in rows
                if row.get("files") == files and "changed_100_s" in row]  # fmt: skip

    return values


def _snapshot_growth(run: Results) -> list[float]:
    small, large = _snapshot(10_000)(run), _snapshot(1_000_000)(run)
    return [large[0] / small[0]] if small and large else []


def _index(what: str) -> Values:
    return lambda run: [row[f"{what}_end_s"] / row[f"{what}_start_s"] for row in run.rows("index")]


def _service(kind: str, key: str) -> Values:
    return lambda run: [
        row[key] for row in run.rows("service") if row["kind"] == kind and key in row
    ]


def _memory(run: Results) -> list[float]:
    rows = [*run.sets, *(row for rows in run.probes.values() for row in rows)]
    mine = [row["peak_mib"] for row in rows if str(row.get("peer", "holdfast")).startswith("holdfast")
            and row.get("peak_mib") and "chunks" not in row]  # fmt: skip
    return [max(mine)] if mine else []


def _ratio(place: str, need: float) -> Target:
    return Target(f"{place} stored", need, plain(place, "ratio"), ": 1")


TARGETS: Final = (
    Target("dbimg later, by restic", 5.0, against("dbimg", "later_mb_s", ("restic",))),
    Target("dbimg later, by the fastest borg", 1.5, against("dbimg", "later_mb_s", BORGS)),
    Target("dbimg later, by the do-nothing ceiling", 0.6, against("dbimg", "later_mb_s", NULLS)),
    Target("dbimg first, by tar | zstd -3 -T2", 0.8, against("dbimg", "first_mb_s", ("tar-zstd",))),
    Target("dbimg first, by borg's default", 1.5, against("dbimg", "first_mb_s", DEFAULT_BORGS)),
    _ratio("dbimg", 15.0),
    _ratio("dbset", 12.0),
    _ratio("vm", 20.0),
    Target("tree stored, by the best of borg and restic", 1.0,
           against("tree", "ratio", ("borg", "restic"))),
    Target("tar files stored, by the best of borg and restic", 1.0,
           against("treetar", "ratio", ("borg", "restic"))),
    Target("dbimg cold restore, by restic", 2.0, restores("dbimg", ("restic",))),
    Target("dbimg cold restore, by borg's default", 1.0, restores("dbimg", DEFAULT_BORGS)),
    Target("dbimg cold restore, by our later ingest", 0.8, _restore_by_ingest),
    Target("untar alone, by the do-nothing tree", 1.0, against("untar", "alone_files_s", NULLS)),
    Target("untar four at once, by the do-nothing tree", 1.0,
           against("untar", "four_files_s", NULLS)),
    Target("4 KiB overwrites, buffered, by passthrough", 0.5,
           against("overwrite", "buffered_iops", ("passthrough",))),
    Target("4 KiB overwrites, direct, by passthrough", 0.5,
           against("overwrite", "direct_iops", ("passthrough",))),
    Target("begin a session", 20.0, _service("answers", "begin_ms"), "ms", most=True),
    Target("commit, 10⁵ quiet files", 500.0, _service("answers", "commit_ms"), "ms", most=True),
    Target("eight mounts at once, by one", 1.0, _service("together", "ratio")),
    Target("daemon with ten idle mounts", 120.0, _service("idle", "daemon_mib"), "MiB", most=True),
    Target("idle worker", 60.0, _service("idle", "worker_mib"), "MiB", most=True),
    Target("copied in over NFS, by a plain directory", 0.5, against("nfs", "in_mb_s", ("plain",))),
    Target("copied out over NFS, by a plain directory", 0.5,
           against("nfs", "out_mb_s", ("plain",))),
    Target("sent to a bucket, by the library's own put", 0.8, plain("uploads", "by_put")),
    Target("second point after 3 %, by what it stored", 1.3, plain("uploads", "later_by_stored"), most=True),
    Target("writing while points are sent, by alone", 0.85, plain("uploads", "beside_by_alone")),
    Target("restored from a bucket, by a download of its packs", 0.7, plain("restores", "restore_by_download")),
    Target("the same through 1 Gbit/s and 10 ms", 0.7, plain("restores", "link_restore_by_download")),
    Target("snapshot, 10⁶ files, 100 changed", 1.0, _snapshot(1_000_000), "s", most=True),
    Target("the same, by that at 10⁴ files", 2.0, _snapshot_growth, most=True),
    Target("index insert rate, end by start", 0.5, _index("insert")),
    Target("index look-up rate, end by start", 0.5, _index("lookup")),
    Target("worker memory at most", MEMORY_MIB, _memory, "MiB", most=True),
)  # fmt: skip
