"""The one table at the end, and the differences when there are any."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TextIO

from rich import box
from rich.console import Console
from rich.table import Table

from tools.demolib.console import MB, size_text

# Of each set at most so many differences are printed; one fault often shows in every file.
SHOWN = 12
# The widest row takes about 75 columns; without a width, rich cuts cells where there is no terminal.
WIDTH = 80
LEGEND = """
logical: content of the recovery points, holes not counted
stored:  growth of the store's directory meanwhile, the index included; content that an earlier
         set already brought costs the later one nothing
ingest:  what the producers wrote, until the snapshot was taken
restore: with the store dropped from the page cache before each point
MB is 10^6 bytes"""


@dataclass(slots=True)
class Result:
    """What was measured of one set. Bytes and seconds, summed over its points."""

    name: str
    title: str = ""
    proof: str = ""
    logical: int = 0
    stored: int = 0
    handed: int = 0
    ingest_s: float = 0.0
    restored: int = 0
    restore_s: float = 0.0
    points: int = 0
    proven: int = 0
    differences: list[str] = field(default_factory=list)

    @property
    def equal(self) -> bool:
        """Was every point restored and found equal?"""
        return not self.differences and self.points == self.proven > 0


def total(results: Sequence[Result]) -> Result:
    """The sum of the sets."""
    whole = Result("all")
    for result in results:
        for name in ("logical", "stored", "handed", "restored", "points", "proven"):
            setattr(whole, name, getattr(whole, name) + getattr(result, name))
        whole.ingest_s += result.ingest_s
        whole.restore_s += result.restore_s
        whole.differences += result.differences
    return whole


def print_table(results: Sequence[Result], stream: TextIO) -> None:
    """Print the table, one row for each set and one for all."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("set")
    for title in ("logical", "stored", "ratio", "ingest\nMB/s", "restore\nMB/s"):
        table.add_column(title, justify="right")
    table.add_column("restored and compared")
    for result in results:
        table.add_row(*_cells(result))
    table.add_section()
    table.add_row(*_cells(total(results)))
    Console(file=stream, highlight=False, width=WIDTH).print(table)
    for result in results:
        print(f"{result.name + ':':<6}{result.title}\n{'':6}proven by {result.proof}", file=stream)
    print(LEGEND, file=stream)


def print_differences(results: Iterable[Result], stream: TextIO) -> None:
    """Print what differs, set by set; the rest of a long list is counted."""
    for result in results:
        for line in result.differences[:SHOWN]:
            print(f"DIFFERS  {line}", file=stream)
        if len(result.differences) > SHOWN:
            more = len(result.differences) - SHOWN
            print(f"DIFFERS  … and {more} more in {result.name}", file=stream)


def _cells(result: Result) -> list[str]:
    ratio = f"{result.logical / result.stored:.1f} : 1" if result.stored > 0 else "-"
    verdict = f"{result.proven} of {result.points} equal"
    if not result.equal:
        verdict += "; DIFFERS"
    return [
        result.name,
        size_text(result.logical),
        size_text(result.stored),
        ratio,
        _rate(result.handed, result.ingest_s),
        _rate(result.restored, result.restore_s),
        verdict,
    ]


def _rate(size: int, seconds: float) -> str:
    return f"{size / MB / seconds:.0f}" if seconds > 0 else "-"
