"""What a worker's words say of the store that is found."""

from __future__ import annotations

import random

from tools.torture.crash.story import BEGUN, DONE, Found, Scale, Story, work
from tools.torture.history import Op, Seen

SCALE = Scale(4, 5000, {"op": 20, "snapshot": 5, "remove": 3}, burst=2)


class Nowhere:
    """A place that does nothing."""

    def files(self) -> Nowhere:
        return self

    def do(self, op: Op) -> None:
        pass

    def own(self, step: object) -> None:
        pass


def as_found(story: Story) -> Found:
    """The store as it is when nothing was cut off."""
    history = story.history
    tree = {
        path: Seen(history.now.metas[key], key, bytes(history.contents[key].now) if key in history.contents else b"")
        for path, key in history.now.paths.items()
    }  # fmt: skip
    return Found(tree, {})


def test_the_words_alone_tell_the_story_again() -> None:
    told: list[bytes] = []
    story = Story(random.Random(3), SCALE)
    work(story, Nowhere(), told.append, 120)
    assert told == [BEGUN, DONE] * 120
    again = Story(random.Random(3), SCALE)
    for word in told:
        again.word(word)
    assert again.expected().kept == story.expected().kept != frozenset()
    assert again.history.now == story.history.now


def test_points_are_there_from_their_snapshot_to_their_removal() -> None:
    story = Story(random.Random(3), SCALE)
    kept = removed = False
    for _ in range(200):
        step = story.begin()
        middle = story.expected()
        story.end()
        after = story.expected()
        if step.kind == "snapshot":
            assert step.label in middle.points and step.label not in middle.kept
            assert step.label in after.kept
            assert "are gone" in after.misfit(as_found(story))
            kept = True
        if step.kind == "remove":
            assert step.label in middle.points and step.label not in middle.kept
            assert step.label not in after.points
            found = as_found(story)._replace(points={step.label: {}})
            assert not after.kept or "are gone" in after.misfit(found)
            assert after.kept or "removed or never made" in after.misfit(found)
            removed = True
    assert kept and removed


def test_a_story_goes_on_in_what_was_found() -> None:
    story = Story(random.Random(5), Scale(4, 5000, {"op": 1}))
    work(story, Nowhere(), lambda word: None, 60)
    found = as_found(story)
    assert story.expected().misfit(found) == ""
    found = Found(found.tree, {"p1": found.tree})
    more = Story(random.Random(6), SCALE, found)
    assert more.expected().misfit(found) == ""
    assert more.expected().misfit(found._replace(points={})) == "points ['p1'] are gone"
    labels = [s.label for s in (_next(more) for _ in range(80)) if s.kind == "snapshot"]
    assert labels and "p1" not in labels[:1]


def _next(story: Story):
    step = story.begin()
    story.end()
    return step
