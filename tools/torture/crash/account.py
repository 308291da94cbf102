"""What a session's marks say must be there, may be there, and must be gone."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from engine import Store
from engine.errors import NotFound
from tools.torture.crash.engine_files import TreeFiles, observe_point, observe_tree
from tools.torture.crash.session import AFTER, MOUNT
from tools.torture.history import History, Meta, Op, Picture, Seen
from tools.torture.workload import Script

FURTHER = b"further "  # names and label of what a judgement itself adds
ANOTHER = "another"


@dataclass(frozen=True)
class Expected:
    """What a cut at one moment may leave. Points are told by their labels."""

    made: bool  # the store and its mount were acknowledged
    tree: Picture
    points: dict[str, Picture]
    perhaps: dict[str, Picture] = field(default_factory=dict)  # asked for, or being removed
    recovered: bool = False  # what a recovery added must be there

    def misfit(self, store: Store) -> str:
        """Why an open store can not be what is left; empty when it can."""
        wrong = self.misfit_of_points(store)
        return wrong or ("" if not self.made and not store.mounts() else self._tree(store))

    def misfit_of_points(self, store: Store) -> str:
        """The same of everything but the live tree."""
        problems = store.check(read_data=True).problems
        if problems:
            return f"check: {problems[0]} and {len(problems) - 1} more"
        return self._points(store)

    def _tree(self, store: Store) -> str:
        tree = store.open_live(MOUNT)
        try:
            wrong = self._compare(self.tree, observe_tree(tree), self.recovered)
        finally:
            tree.close()
        return f"tree: {wrong}" if wrong else ""

    def _points(self, store: Store) -> str:
        found = {point.label: point.id for point in store.points()}
        missing = self.points.keys() - found.keys()
        if missing or (self.recovered and "after" not in found):
            return f"points {sorted(missing)} or that of the recovery are not there"
        for label, point in found.items():
            picture = self.points.get(label) or self.perhaps.get(label)
            after = label in ("after", ANOTHER)
            if picture is None and not after:
                return f"point {label} is there"
            seen = observe_point(store.view(point))
            wrong = self._compare(picture or self.tree, seen, label == "after")
            if wrong:
                return f"point {label}: {wrong}"
        return ""

    @staticmethod
    def _compare(picture: Picture, seen: dict[bytes, Seen], added: bool) -> str:
        extra = seen.pop(AFTER, None)
        for path in [path for path in seen if path.startswith(FURTHER)]:
            if seen.pop(path).data != path.removeprefix(FURTHER) * 5_000:
                return f"{path!r} is not what was written"
        if added and (extra is None or extra.data != AFTER or extra.meta != Meta("f", 0o600)):
            return f"what the recovery added is {extra}"
        return picture.misfit(seen)


class Account:
    """Fed with marks in order."""

    def __init__(self, script: random.Random) -> None:
        self._history = History()
        self._script = Script(script, self._history)
        self._op: Op | None = None
        self._made = self._recovered = False
        self._points: dict[str, Picture] = {}
        self._perhaps: dict[str, Picture] = {}

    def feed(self, mark: str) -> None:
        """One mark."""
        word, what, *label = mark.split()
        getattr(self, f"_{word}")(what, *label)

    def expected(self) -> Expected:
        """What a cut now may leave."""
        return Expected(
            self._made, self._history.picture(), dict(self._points), dict(self._perhaps)
        )

    def _begin(self, what: str, label: str = "") -> None:
        if what == "op":
            self._op = self._script.next()
            self._history.begin(self._op)
        elif what == "snapshot":
            self._perhaps[label] = self._history.picture(floor=self._history.finished)
        elif what == "remove":
            self._perhaps[label] = self._points.pop(label)

    def _done(self, what: str, label: str = "") -> None:
        if what == "op":
            assert self._op is not None
            self._history.done(self._op)
        elif what == "snapshot":
            self._points[label] = self._perhaps.pop(label)
            self._history.all_settled()
        elif what == "remove":
            del self._perhaps[label]
        elif what == "close":
            self._history.all_settled()
        elif what == "init":
            self._made = True


def judged(path: str, expected: Expected, *, further: bool) -> str:
    """Open what a crash left, as a user would, and compare; empty when every promise was kept.

    ``further``: go on with the store as well, twice, collect, and make its index anew from the packs.
    """
    try:
        store = Store.open(path)
    except NotFound as error:
        return "" if not expected.made else f"opening: {error}"
    with store:
        wrong = expected.misfit(store)
    return wrong or (_gone_on(path, expected) if further and expected.made else "")


def _gone_on(path: str, expected: Expected) -> str:
    for turn in (b"one", b"two"):
        with Store.open(path) as store:
            tree = store.open_live(MOUNT)
            TreeFiles(tree).do(Op("create", FURTHER + turn, number=0o600))
            TreeFiles(tree).do(Op("write", FURTHER + turn, data=turn * 5_000))
            tree.barrier()
            store.snapshot(MOUNT, ANOTHER)
            tree.close()
    with Store.open(path) as store:
        store.collect()
        wrong = expected.misfit(store)
    if wrong:
        return f"after going on: {wrong}"
    Store.rebuild_index(path)
    with Store.open(path) as store:
        wrong = expected.misfit_of_points(store)
    return f"with its index made anew: {wrong}" if wrong else ""
