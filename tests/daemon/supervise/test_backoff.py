"""How long to wait before a worker is started again."""

from __future__ import annotations

from daemon.supervise.backoff import Backoff


def test_at_once_then_twice_as_long_up_to_a_minute() -> None:
    backoff = Backoff()
    waits = []
    now = 0.0
    for _ in range(10):
        backoff.serving(now)
        now += 5
        waits.append(backoff.ended(now))
        now += waits[-1]
    assert waits == [0, 1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_what_cannot_be_started_waits_as_well() -> None:
    backoff = Backoff()
    assert [backoff.ended(float(n)) for n in range(4)] == [0, 1, 2, 4]


def test_health_is_forgiven() -> None:
    backoff = Backoff()
    for _ in range(5):
        backoff.ended(0.0)
    backoff.serving(10.0)
    assert backoff.ended(609.0) > 0
    backoff.serving(700.0)
    assert backoff.ended(1300.0) == 0
    assert backoff.ended(1300.0) == 1


def test_five_ends_in_ten_minutes_are_told() -> None:
    backoff = Backoff()
    for now in (0, 150, 300, 450):
        backoff.ended(float(now))
        assert not backoff.often()
    backoff.ended(601.0)
    assert not backoff.often()
    backoff.ended(700.0)
    assert backoff.often()
