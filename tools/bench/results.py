"""What a run has measured, as one JSON object, and how single values are taken from it.

``{"machine": {...}, "conditions": {...}, "sets": [row, ...], "probes": {name: [row, ...]}}``.
A row of a set has the keys ``set``, ``peer``, ``repeat`` and its numbers, or ``error``.
"""

import json
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Row = dict[str, Any]


@dataclass
class Results:
    """One run."""

    machine: Row = field(default_factory=dict)
    conditions: Row = field(default_factory=dict)
    sets: list[Row] = field(default_factory=list)
    probes: dict[str, list[Row]] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write the run to a JSON file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(vars(self), indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> "Results":
        """Read what `save` wrote."""
        return cls(**json.loads(path.read_text()))

    def rows(self, place: str) -> list[Row]:
        """Return the rows of a set or of a probe, by its name."""
        if place in self.probes:
            return self.probes[place]
        return [row for row in self.sets if row["set"] == place]

    def values(self, place: str, peer: str, key: str) -> dict[int, float]:
        """Return the value of `key` by repetition, for the rows of one peer that have it."""
        rows = [row for row in self.rows(place) if row.get("peer") == peer and key in row]
        return {row["repeat"]: float(row[key]) for row in rows}

    def best(self, place: str, peers: Iterable[str], key: str) -> dict[int, float]:
        """Return by repetition the highest value that any of `peers` reached."""
        best: dict[int, float] = {}
        for peer in peers:
            for repeat, value in self.values(place, peer, key).items():
                best[repeat] = max(value, best.get(repeat, value))
        return best

    def lowest(self, place: str, peer: str, keys: Iterable[str]) -> dict[int, float]:
        """Return by repetition the lowest of several values of one peer."""
        found = [self.values(place, peer, key) for key in keys]
        shared = set.intersection(*(set(one) for one in found)) if found else set()
        return {repeat: min(one[repeat] for one in found) for repeat in shared}


def paired(ours: dict[int, float], theirs: dict[int, float]) -> list[float]:
    """Return our value by theirs for every repetition that has both."""
    shared = sorted(ours.keys() & theirs.keys())
    return [ours[repeat] / theirs[repeat] for repeat in shared if theirs[repeat]]


def middle(values: Iterable[float]) -> float | None:
    """Return the median, or None of nothing."""
    listed = list(values)
    return statistics.median(listed) if listed else None
