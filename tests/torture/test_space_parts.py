"""The pure parts of the rigs of space: whether a series is flat, content that is the same for the same seed."""

from __future__ import annotations

import random

import pytest

from tools.torture.rig import Found, Job
from tools.torture.space import child, plot
from tools.torture.space.content import Contents


def test_flat_is_flat() -> None:
    steady = [100 + i % 7 for i in range(200)]
    assert plot.flat(steady, 0)
    assert not plot.flat([100 + i for i in range(200)], 0)
    assert plot.flat([100 + i for i in range(200)], 100)
    assert plot.flat([*range(100), *[100] * 300], 0, factor=1.5)
    assert plot.growth([1, 1, 2, 2, 3, 3, 4, 4]) == (2, 4)


def test_bars_show_growth() -> None:
    assert plot.bars([0, 4, 8]) == "▁▅█"
    assert plot.bars(list(range(240)))[0] == "▁"
    assert len(plot.bars(list(range(240)))) == plot.WIDTH


def test_content_is_the_seeds() -> None:
    made = [
        [one.next() for _ in range(50)]
        for one in (Contents(random.Random(5), 40_000) for _ in range(2))
    ]
    assert made[0] == made[1]
    assert len(set(made[0])) > 25  # some come again
    assert max(map(len, made[0])) <= 160_000


def test_what_a_child_finds_and_counts_comes_back(tmp_path: object) -> None:
    job = Job("rig", 1, 1.0, tmp_path)  # type: ignore[arg-type]

    def work(one: Job) -> None:
        one.count("things", 3)
        one.note("a fact")
        if one.figures["things"] > 2 and job.seed == 2:
            one.fail("case", "broken")

    child.apart(job, work, "case")
    assert (job.figures, job.notes) == ({"things": 3}, ["a fact"])
    job.seed = 2
    with pytest.raises(Found, match="broken"):
        child.apart(job, work, "case")
