"""``rm`` of several points, and what it says it would free."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.support import good, holdfast, noise, refused, snapshot, write


def test_a_dry_run_says_what_rm_and_gc_then_free(empty: Path) -> None:
    points = []
    for day in range(3):
        write(empty, {b"daily": noise(300_000, day), b"same": noise(200_000, 9)})
        points.append(snapshot(empty))
    said = good(holdfast(empty, "rm", "--dry-run", points[0]))
    assert "would be freed: " in said and "that only this point needs" in said
    assert "0 B would go back to the file system" in said  # it lies in a segment that is not full
    told = json.loads(good(holdfast(empty, "rm", "--dry-run", "--json", *points[:2])))
    assert told["points"] == points[:2]
    assert 600_000 < told["freed_bytes"] < 610_000

    assert len(json.loads(good(holdfast(empty, "points", "--json")))) == 3
    assert json.loads(good(holdfast(empty, "rm", "--json", *points[:2]))) == {"points": points[:2]}
    freed = json.loads(good(holdfast(empty, "gc", "--json")))
    assert (freed["dead_chunks"], freed["freed_bytes"]) == (told["chunks"], told["freed_bytes"])
    assert freed["returned_bytes"] == told["returned_bytes"]


def test_several_points_go_together_or_not_at_all(empty: Path) -> None:
    points = [snapshot(empty) for _ in range(3)]
    refused(holdfast(empty, "rm", points[0], "zzz"), 10, "zzz")
    refused(holdfast(empty, "rm", "--dry-run", "zzz"), 10, "zzz")
    assert good(holdfast(empty, "rm", *points)).count("deleted") == 3
    assert json.loads(good(holdfast(empty, "points", "--json"))) == []
