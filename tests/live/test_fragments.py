"""Fragments of a span against a plain byte array."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engine.live.fragments import GATHER_MAX, Fragments

SIZE = 600


class Plain:
    """The same thing the slow way: one byte or None per offset."""

    def __init__(self) -> None:
        self.cells: list[int | None] = [None] * SIZE

    def put(self, start: int, data: bytes) -> None:
        self.cells[start : start + len(data)] = data

    def cut(self, end: int) -> None:
        self.cells[end:] = [None] * (SIZE - end)

    @property
    def size(self) -> int:
        return sum(cell is not None for cell in self.cells)


def cells_of(fragments: Fragments) -> list[int | None]:
    cells: list[int | None] = [None] * SIZE
    previous = 0
    for start, data in fragments.items():
        assert start >= previous, "sorted, not overlapping"
        assert len(data) > 0
        previous = start + len(data)
        cells[start:previous] = bytes(data)
    return cells


writes = st.tuples(
    st.integers(0, SIZE - 1), st.binary(min_size=1, max_size=90), st.sampled_from("bmvp")
).filter(lambda item: item[0] + len(item[1]) <= SIZE)
steps = st.lists(st.one_of(writes, st.integers(0, SIZE)), max_size=40)


def apply(fragments: Fragments, plain: Plain, step: tuple[int, bytes, str] | int) -> None:
    if isinstance(step, int):
        before = fragments.size
        assert fragments.cut(step) == before - fragments.size
        plain.cut(step)
        return
    start, data, form = step
    padded = b"<<" + data + b">>"
    given_data = {
        "b": data,
        "m": memoryview(data),
        "v": memoryview(padded)[2:-2],
        "p": memoryview(bytes(2000) + data)[2000:],
    }[form]
    before = fragments.size
    assert fragments.put(start, given_data) == fragments.size - before
    plain.put(start, data)


@given(steps)
def test_any_writes_and_cuts_give_the_newest_bytes(todo) -> None:
    fragments, plain = Fragments(), Plain()
    for step in todo:
        apply(fragments, plain, step)
        assert cells_of(fragments) == plain.cells
        assert fragments.size == plain.size
        assert bool(fragments) == (plain.size > 0)


@given(steps, st.integers(0, SIZE), st.integers(0, SIZE))
def test_parts_inside_a_range(todo, low: int, high: int) -> None:
    fragments, plain = Fragments(), Plain()
    for step in todo:
        apply(fragments, plain, step)
    cells: list[int | None] = [None] * SIZE
    for start, end, data in fragments.within(low, high):
        assert low <= start < end <= high
        assert len(data) == end - start
        cells[start:end] = bytes(data)
    wanted = [c if low <= i < high else None for i, c in enumerate(plain.cells)]
    assert cells == wanted
    held = [i for i, c in enumerate(plain.cells) if c is not None and i >= low]
    assert fragments.first_at(low) == (held[0] if held else None)
    assert fragments.end == max(
        (i + 1 for i, c in enumerate(plain.cells) if c is not None), default=0
    )


@given(steps, steps)
def test_a_failed_seal_puts_older_runs_beneath_newer_ones(old, new) -> None:
    older, newer, plain, newest = Fragments(), Fragments(), Plain(), Plain()
    for step in old:
        apply(older, plain, step)
    for step in new:
        apply(newer, newest, step)
    for i, cell in enumerate(newest.cells):
        if cell is not None:
            plain.cells[i] = cell
    merged = newer.over(older)
    assert cells_of(merged) == plain.cells
    assert merged.size == plain.size


def test_small_appends_are_gathered_in_one_run() -> None:
    fragments = Fragments()
    for i in range(3 * GATHER_MAX):
        fragments.put(i, b"%c" % (i % 251))
    assert len(fragments.items()) <= 5
    assert b"".join(data for _, data in fragments.items()) == bytes(
        i % 251 for i in range(3 * GATHER_MAX)
    )


def test_what_was_read_does_not_change_with_later_appends() -> None:
    fragments = Fragments()
    fragments.put(0, b"ab")
    fragments.put(2, b"cd")
    seen = list(fragments.within(0, 4))
    fragments.put(4, b"ef")  # the gathered run grows in place
    assert [bytes(data) for _, _, data in seen] == [b"abcd"]


def test_large_writes_are_not_copied() -> None:
    fragments = Fragments()
    data = bytes(100_000)
    fragments.put(0, data)
    fragments.put(100_000, memoryview(data))
    assert fragments.items()[0][1] is data
    assert fragments.items()[1][1].obj is data


def test_a_small_rest_does_not_keep_a_large_write_alive() -> None:
    fragments = Fragments()
    fragments.put(0, bytes(100_000))
    fragments.put(10, bytes(99_990))
    start, rest = fragments.items()[0]
    assert (start, rest) == (0, bytes(10))
    assert isinstance(rest, bytes)
