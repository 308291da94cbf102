"""What the three sets of the demonstration have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from tools.demolib.witness import Tree


@dataclass(frozen=True, slots=True)
class Written:
    """One day's writing: what the producers did, bytes they handed to the mount, wall seconds."""

    how: str
    handed: int
    seconds: float


class DataSet(ABC):
    """One producer's data: made on the local disk, written into a mount, proven after a restore.

    The order of calls is: prepare once; then for each day from 1 change, write, verify_live; then
    for each day prove. `close` may come at any time and leaves no process behind.
    """

    name: str
    title: str

    @abstractmethod
    def prepare(self) -> str:
        """Make the data of day 1; one line that says what it is."""

    @abstractmethod
    def change(self, day: int) -> str:
        """The work between two days (day is 2 or more); one line that says what was done."""

    @abstractmethod
    def write(self, day: int, into: Path) -> Written:
        """Run the producers; `into` is the mounted directory."""

    @abstractmethod
    def verify_live(self, day: int, live: Tree) -> list[str]:
        """Note today's truth, from the source and not from the mount; in which ways what is in
        the mount (`live`) differs from it, one line each.
        """

    @abstractmethod
    def prove(self, day: int, restored: Path, found: Tree) -> list[str]:
        """Hold a restored point (`found`: what it is) against the day's truth, and use it, which
        may change it; every failure, one line each.
        """

    @abstractmethod
    def logical(self, day: int) -> int:
        """Bytes of content of that day's point, holes not counted."""

    @property
    @abstractmethod
    def proof(self) -> str:
        """What `prove` shows, for the table."""

    @abstractmethod
    def close(self) -> None:
        """Stop every process and give up every resource."""
