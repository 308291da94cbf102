"""Every rig at a part of its full size, and the teeth: each planted bug must be found."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.torture import bugs, needs, registry
from tools.torture.apart import Work, one_of
from tools.torture.run import Outcome

SEED = 20261121  # fixed: the suite says the same every time; `make torture` chooses new ones
RIGS = registry.rigs()


def alone(rig: registry.Rig) -> list[pytest.MarkDecorator]:
    return [pytest.mark.alone] if rig.alone else []


def outcome_of(work: Work, folder: Path) -> Outcome:
    reason = needs.missing(work.rig.needs)
    if reason:
        pytest.skip(reason)
    said: list[str] = []
    outcome = one_of(work, str(folder / "outcome"), None, said.append)
    assert outcome is not None, "\n".join(said)
    return outcome


@pytest.mark.parametrize(
    "rig", [pytest.param(rig, id=rig.name, marks=alone(rig)) for rig in RIGS.values()]
)
def test_promises_are_kept(rig: registry.Rig, tmp_path: Path) -> None:
    outcome = outcome_of(Work(rig, SEED, rig.test), tmp_path)
    assert not outcome.found, outcome.line()
    assert outcome.figures, "a rig that counts nothing did nothing"


@pytest.mark.parametrize(
    ("rig", "bug"), [pytest.param(r, b, id=f"{r.name}-{b}") for r in RIGS.values() for b in r.bugs]
)
def test_a_planted_bug_is_found(rig: registry.Rig, bug: str, tmp_path: Path) -> None:
    outcome = outcome_of(Work(rig, SEED, rig.teeth, bug), tmp_path)
    assert outcome.found, f"{bug} went uncaught: {bugs.load()[bug].what}"


def test_there_are_twenty_bugs_and_each_is_planted_somewhere() -> None:
    used = {bug for rig in RIGS.values() for bug in rig.bugs}
    assert used == bugs.load().keys()
    assert len(used) >= 20
