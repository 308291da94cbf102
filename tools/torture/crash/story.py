"""What a process does to one store until it is cut off, and what that says of the store that is found.

A step is an operation of the shared ``Script``, or one of the store's own: a snapshot, the removal of a point, a
collection, a tick of the worker, leaving the store and opening it again.  The worker tells of each step that it is
``begun`` and that it is ``done``; from the seed and these words alone the judge draws the same steps again.

What may be found then: the tree as ``History`` says; every point whose snapshot was done and whose removal was not
begun, with all writes that had returned before it; no point whose removal was done; others whole or not at all.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from tools.torture.history import History, Op, Picture, Seen
from tools.torture.workload import Files, Script

BEGUN, DONE = b"begun", b"done"
POINTS = 4  # at most so many; then one is removed first

# What is done how often, beside 100 operations.
WEIGHTS = {"op": 100, "tick": 8, "snapshot": 7, "remove": 4, "collect": 3, "reopen": 2}


class Step(NamedTuple):
    """``op`` of an operation, ``label`` of a point."""

    kind: str
    op: Op = Op("")
    label: str = ""


class Found(NamedTuple):
    """A store as it was found: the tree, and the points by label."""

    tree: Mapping[bytes, Seen]
    points: Mapping[str, Mapping[bytes, Seen]]


@dataclass(frozen=True)
class Expected:
    """What may be found. ``kept``: labels that must be there; ``points``: all that may, with what is in them."""

    tree: Picture
    kept: frozenset[str]
    points: Mapping[str, Picture]

    def misfit(self, found: Found) -> str:
        """Why this can not be what is left; empty when it can."""
        if self.kept - found.points.keys():
            return f"points {sorted(self.kept - found.points.keys())} are gone"
        for label, seen in found.points.items():
            if label not in self.points:
                return f"there is a point {label!r} that was removed or never made"
            wrong = self.points[label].misfit(seen)
            if wrong:
                return f"point {label!r}: {wrong}"
        wrong = self.tree.misfit(found.tree)
        return f"the tree: {wrong}" if wrong else ""


@dataclass
class Scale:
    """How large the files of a story are, and how many. ``burst``: pages written here and there before a snapshot."""

    files: int = 8
    size: int = 200_000
    weights: dict[str, int] = field(default_factory=lambda: dict(WEIGHTS))
    burst: int = 0


class Story:
    """The steps of one seed, in a store that may hold something already."""

    def __init__(self, rng: random.Random, scale: Scale, found: Found | None = None) -> None:
        self._rng = rng
        self._kinds, self._weights = list(scale.weights), list(scale.weights.values())
        self.history = History.of(found.tree) if found else History()
        self._script = Script(rng, self.history, files=scale.files, size=scale.size)
        points = found.points if found else {}
        self._points = {label: History.of(seen).picture() for label, seen in points.items()}
        self._kept = set(points)
        self._made = 0
        self._scale = scale
        self._next: list[Step] = []
        self.begun = self.done = 0
        self._step = Step("")

    def begin(self) -> Step:
        """The next step begins; it is drawn here."""
        step = self._step = self._draw()
        self.begun += 1
        match step.kind:
            case "op":
                self.history.begin(step.op)
            case "snapshot":
                self._points[step.label] = self.history.picture(floor=self.history.finished)
            case "remove":
                self._kept.discard(step.label)
        return step

    def end(self) -> None:
        """The step that was begun is done."""
        self.done += 1
        match self._step.kind:
            case "op":
                self.history.done(self._step.op)
            case "snapshot":
                self._kept.add(self._step.label)
                self.history.all_settled()
            case "remove":
                del self._points[self._step.label]
            case "reopen":
                self.history.all_settled()

    def word(self, word: bytes) -> None:
        """The worker said this."""
        if word == BEGUN:
            self.begin()
        else:
            assert word == DONE, word
            self.end()

    def expected(self) -> Expected:
        """What may be found if the worker is cut off now."""
        return Expected(self.history.picture(), frozenset(self._kept), dict(self._points))

    def _draw(self) -> Step:
        if self._next:
            return self._next.pop(0)
        kind = self._rng.choices(self._kinds, self._weights)[0]
        if kind == "snapshot" and len(self._kept) >= POINTS:
            kind = "remove"
        if kind == "remove" and not self._kept:
            kind = "op"
        match kind:
            case "op":
                return Step("op", self._script.next())
            case "snapshot":
                self._next = [*self._burst(), Step(kind, label=self._label())]
                return self._next.pop(0)
            case "remove":
                return Step(kind, label=self._rng.choice(sorted(self._kept)))
        return Step(kind)

    def _burst(self) -> list[Step]:
        state = self.history.now
        files = [path for path, key in state.paths.items() if state.metas[key].kind == "f"]
        if not files:
            return []
        rng, pages = self._rng, self._scale.size // 4096
        steps = []
        for _ in range(self._scale.burst):
            first = rng.randrange(pages)
            data = rng.randbytes(4096) * min(rng.choice((1, 1, 128)), pages - first)
            steps.append(Step("op", Op("write", rng.choice(files), number=first * 4096, data=data)))
        return steps

    def _label(self) -> str:
        while True:
            self._made += 1
            label = f"p{self._made}"
            if label not in self._points:
                return label


class Place(Protocol):
    """A store at work, as the steps need it."""

    def files(self) -> Files:
        """Where operations go."""

    def own(self, step: Step) -> None:
        """A step of the store's own."""


def work(story: Story, place: Place, tell: Callable[[bytes], None], steps: int) -> None:
    """So many steps, each told of. ``tell`` returns when the word is where no cut can take it back."""
    for _ in range(steps):
        tell(BEGUN)
        step = story.begin()
        if step.kind == "op":
            place.files().do(step.op)
        else:
            place.own(step)
        tell(DONE)
        story.end()
