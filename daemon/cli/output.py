"""How results are shown: escaped text, sizes, tables, JSON, progress."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import click

from engine import Progress, Report

if TYPE_CHECKING:
    from daemon.contract import Page

T = TypeVar("T")

_LINE_EVERY = 5.0  # s between progress lines where there is no terminal
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40, "P": 1 << 50}
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def shown(text: bytes | str) -> str:
    """Text safe for a terminal: control characters and bytes that are not UTF-8 become escapes."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "surrogateescape")
    return "".join(
        c if c.isprintable() and not "\ud800" <= c <= "\udfff" else _escape(c) for c in text
    )


def _escape(char: str) -> str:
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    return char.encode("unicode_escape").decode("ascii")


def size(count: float) -> str:
    """Bytes for people: 1.5 GiB."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(count) < 1024 or unit == "TiB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError("unreachable")


def counted(count: int, what: str, many: str = "") -> str:
    """``1 file``, ``2 files``; ``many`` where that is not what with an s."""
    return f"{count:,} {what if count == 1 else many or what + 's'}"


def when(time_ns: int, never: str = "never") -> str:
    """A time that may not be: 0 is ``never``."""
    return moment(time_ns) if time_ns else never


def moment(time_ns: int) -> str:
    """A time in UTC, to the second."""
    return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(time_ns // 1_000_000_000))


def lasting(seconds: float) -> str:
    """``0:05``, ``1:02:03``: minutes and seconds, with hours where there are."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"  # fmt: skip


class Size(click.ParamType[int]):
    """``10G``, ``512M``, ``4096``: bytes, powers of 1024."""

    name = "size"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        if isinstance(value, int):
            return value
        found = re.fullmatch(
            r"(\d+(?:\.\d+)?)\s*([KMGTP]?)(?:i?B)?", str(value).strip(), re.IGNORECASE
        )
        if not found:
            self.fail(
                f"{value!r} is no size; write bytes or a number with K, M, G, T, P", param, ctx
            )
        return int(float(found[1]) * _UNITS[found[2].upper()])


class Duration(click.ParamType[float]):
    """``90s``, ``10m``, ``2h``: seconds."""

    name = "duration"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        if isinstance(value, float):
            return value
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd]?)", str(value).strip())
        if not found:
            self.fail(f"{value!r} is no duration; write a number with s, m, h or d", param, ctx)
        return float(found[1]) * _SECONDS[found[2] or "s"]


class Until(click.ParamType[tuple[int, float]]):
    """``2027-01-31``, ``2027-01-31T12:00``, ``30d``: a time in UTC (ns since the epoch), or seconds from now on."""

    name = "time"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, float]:
        text = str(value).strip()
        span = re.fullmatch(r"(\d{1,9}(?:\.\d{1,6})?)([smhd])", text)
        if span:
            return 0, float(span[1]) * _SECONDS[span[2]]
        if re.fullmatch(r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d)?)?Z?", text):
            import datetime

            try:
                found = datetime.datetime.fromisoformat(text.removesuffix("Z"))
                return round(found.replace(tzinfo=datetime.UTC).timestamp()) * 10**9, 0.0
            except ValueError:  # no such day, or hour
                pass
        return self.fail(
            f"{value!r} is no time; write a day (2027-01-31), a time in UTC (2027-01-31T12:00) or a duration (30d)",
            param, ctx,
        )  # fmt: skip


class Ids(click.ParamType[tuple[int, int]]):
    """``1000:100``: a user and a group, by number."""

    name = "uid:gid"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        found = re.fullmatch(r"(\d{1,10}):(\d{1,10})", str(value))
        if not found:
            self.fail(f"{value!r} is no user and group; write two numbers, as 1000:100", param, ctx)
        return int(found[1]), int(found[2])


def say(text: str = "") -> None:
    """One line of result."""
    click.echo(text)


def plain(value: object) -> object:
    """Values of the contract as JSON has them: named tuples and dataclasses become objects."""
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {key: plain(one) for key, one in value._asdict().items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {one.name: plain(getattr(value, one.name)) for one in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return value


def as_json(value: object) -> None:
    """The result as one JSON document; names that are not UTF-8 keep their bytes as surrogate escapes, escaped."""
    click.echo(json.dumps(plain(value), ensure_ascii=True))


def table(rows: Sequence[Sequence[str]], heads: Sequence[str]) -> None:
    """Columns as wide as they must be; the last runs on."""
    widths = [max(len(row[i]) for row in [heads, *rows]) for i in range(len(heads))]
    for row in [heads, *rows]:
        say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def every(ask: Callable[[str], Page[T]]) -> Iterator[T]:
    """All of a list that comes in parts. ``ask``: the part that begins at a cursor."""
    cursor = ""
    while True:
        page = ask(cursor)
        yield from page.items
        cursor = page.cursor
        if not cursor:
            return


def how_far(state: Progress, done: int, seconds: float) -> str:
    """How far something is: how fast it went and how long it takes yet, from what was done in so many seconds."""
    if state.unit == "bytes":
        of = f" of {size(state.total)}" if state.total is not None else ""
        text = f"{state.stage}: {size(state.done)}{of}"
    else:
        of = f" of {state.total}" if state.total is not None else ""
        text = f"{state.stage}: {state.done}{of} {state.unit}"
    rate = done / seconds if seconds > 0 else 0
    if rate > 0:
        text += f", {size(rate)}/s" if state.unit == "bytes" else f", {rate:,.0f} a second"
        if state.total is not None:
            text += f", {lasting(max(0, state.total - state.done) / rate)} left"
    return text


@contextmanager
def progress() -> Iterator[Report]:
    """A report that draws a bar on a terminal and now and then a line elsewhere, on standard error."""
    if sys.stderr.isatty():
        with _bar() as report:
            yield report
        return
    last = time.monotonic()
    begun: dict[str, tuple[float, int]] = {}

    def write(state: Progress) -> None:
        nonlocal last
        now = time.monotonic()
        start, first = begun.setdefault(state.stage, (now, state.done))
        if now - last >= _LINE_EVERY:
            last = now
            click.echo(how_far(state, state.done - first, now - start), err=True)

    yield write


@contextmanager
def _bar() -> Iterator[Report]:
    # Only for a terminal: rich takes as long to import as a snapshot takes.
    from rich import console, progress

    columns = (
        progress.BarColumn(),
        progress.TextColumn("{task.description}"),
        progress.TimeElapsedColumn(),
    )
    with progress.Progress(*columns, console=console.Console(stderr=True), transient=True) as bar:
        tasks: dict[str, tuple[progress.TaskID, float, int]] = {}

        def draw(state: Progress) -> None:
            now = time.monotonic()
            if state.stage not in tasks:
                made = bar.add_task(state.stage, total=state.total)
                tasks[state.stage] = (made, now, state.done)
            task, begun, first = tasks[state.stage]
            told = how_far(state, state.done - first, now - begun)
            bar.update(task, completed=state.done, total=state.total, description=told)

        yield draw
