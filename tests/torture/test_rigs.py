"""Every rig at a part of its full size, and the teeth: each planted bug must be found."""

from __future__ import annotations

import pytest

from tools.torture import bugs, needs, registry
from tools.torture.run import run

SEED = 20261121  # fixed: the suite says the same every time; `make torture` chooses new ones
RIGS = registry.rigs()


def alone(rig: registry.Rig) -> list[pytest.MarkDecorator]:
    return [pytest.mark.alone] if rig.alone else []


def skip_unless(rig_needs: tuple[str, ...]) -> None:
    reason = needs.missing(rig_needs)
    if reason:
        pytest.skip(reason)


@pytest.mark.parametrize(
    "rig", [pytest.param(rig, id=rig.name, marks=alone(rig)) for rig in RIGS.values()]
)
def test_promises_are_kept(rig: registry.Rig) -> None:
    skip_unless(rig.needs)
    outcome = run(rig, SEED, rig.test)
    assert not outcome.found, outcome.line()
    assert outcome.figures, "a rig that counts nothing did nothing"


@pytest.mark.parametrize(
    ("rig", "bug"), [pytest.param(r, b, id=f"{r.name}-{b}") for r in RIGS.values() for b in r.bugs]
)
def test_a_planted_bug_is_found(rig: registry.Rig, bug: str) -> None:
    skip_unless(rig.needs)
    outcome = run(rig, SEED, rig.teeth, bug=bug)
    assert outcome.found, f"{bug} went uncaught: {bugs.load()[bug].what}"


def test_there_are_twenty_bugs_and_each_is_planted_somewhere() -> None:
    used = {bug for rig in RIGS.values() for bug in rig.bugs}
    assert used == bugs.load().keys()
    assert len(used) >= 20
