"""A point's id and time can be decided before it is made."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from engine import PlannedPoint, Store
from engine.errors import AlreadyExists, InvalidRequest


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    Store.init(str(tmp_path / "store"))
    with Store.open(str(tmp_path / "store")) as one:
        one.create_mount("m")
        yield one


def test_the_point_has_the_planned_id_and_time(store: Store) -> None:
    planned = store.plan_point()
    other = store.snapshot("m")
    made = store.snapshot("m", "late", planned=planned)
    assert (made.id, made.time_ns) == planned
    assert made.time_ns < other.time_ns and made.seq > other.seq
    assert store.point("m@latest") == made


def test_a_plan_makes_nothing_and_serves_once(store: Store) -> None:
    planned = store.plan_point()
    assert store.points() == []
    made = store.snapshot("m", planned=planned)
    with pytest.raises(AlreadyExists, match="point of that id"):
        store.snapshot("m", planned=planned)
    assert store.points() == [made] and store.mount("m").points == 1


def test_an_id_that_is_none_is_refused(store: Store) -> None:
    with pytest.raises(InvalidRequest, match="planned"):
        store.snapshot("m", planned=PlannedPoint("../../etc", 1))
    assert store.points() == []
