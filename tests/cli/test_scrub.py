"""``scrub``: what it says, and how it ends when something is damaged."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.support import good, holdfast, noise, packs, refused, snapshot, write


def test_it_says_how_far_it_is_and_finds_damage(empty: Path) -> None:
    write(empty, {b"file": noise(300_000, 1)})
    snapshot(empty)
    assert ": all of it" in good(holdfast(empty, "scrub", "--rate", "1G"))
    said = good(holdfast(empty, "scrub", "--every", "30d"))
    assert "ahead of schedule" in said
    told = json.loads(good(holdfast(empty, "scrub", "--json")))
    assert told["finished"] and told["problems"] == [] and told["cycle_bytes"] > 300_000
    assert "last scrub         20" in good(holdfast(empty, "stats"))

    with packs(empty)[0].open("r+b") as file:
        file.seek(100_000)
        file.write(b"damage")
    done = holdfast(empty, "scrub")
    refused(done, 20, "1 problem, 1 damaged chunk", "check --read-data")
    assert "chunk: chunk " in done.stdout
    refused(holdfast(empty, "scrub", "--rate", "0"), 2, "rate")
