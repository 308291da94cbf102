"""What a job found, no more of it than can be told: all of a result is one line of its process."""

from __future__ import annotations

import json
from typing import Any

from daemon.service.walking import text_path

TOLD_MAX = 1_000  # problems or damaged files that are named; the others are counted
TOLD_BYTES = 1 << 18  # of them as JSON, of each list


def notices(found: list[Any]) -> list[dict[str, str]]:
    """Notices of a restore."""
    return bounded([{"path": text_path(one.path), "text": one.text} for one in found[:TOLD_MAX]])


def bounded(found: list[dict[str, str]]) -> list[dict[str, str]]:
    """The first of them, no more than can be told."""
    room = TOLD_BYTES
    for place, one in enumerate(found[:TOLD_MAX]):
        room -= len(json.dumps(one)) + 2
        if room < 0:
            return found[:place]
    return found[:TOLD_MAX]
