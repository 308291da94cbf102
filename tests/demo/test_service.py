"""The daemon's part of the demonstration, at its full size: a real ``holdfast serve`` from its start to its stop."""

from __future__ import annotations

import io
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.demolib.commands import Runner, ordinary_account
from tools.demolib.console import Console
from tools.demolib.mountinfo import mounts_below
from tools.demolib.postgres import Postgres, give
from tools.demolib.scratch import Scratch
from tools.demolib.service import ServiceStory

ROOT = Path(__file__).resolve().parents[2]
COMMAND = f"""#!{sys.executable}
import sys
sys.path.insert(0, {str(ROOT)!r})
from daemon.cli.main import main
main()
"""


@pytest.fixture
def story() -> Iterator[ServiceStory]:
    scratch = Scratch.make(None, 1)
    socket = Path(tempfile.mkdtemp(prefix="hfd-"))
    account = ordinary_account()
    give(socket, account)
    command = scratch.path / "holdfast"
    command.write_text(COMMAND)
    command.chmod(0o755)
    runner = Runner(Console(io.StringIO()), scratch.path)
    postgres = Postgres.unpack(runner, account, scratch.path / "postgres", socket)
    made = ServiceStory(runner, command, postgres, scratch.path / "service")
    try:
        yield made
    finally:
        made.close()
        left = mounts_below(scratch.path)
        assert left == []
        scratch.remove()
        shutil.rmtree(socket)


@pytest.mark.needs_fuse
@pytest.mark.slow
def test_two_writers_are_begun_committed_and_restored_through_the_daemon(
    story: ServiceStory,
) -> None:
    result = story.run()
    assert result.differences == [] and result.equal
    assert (result.points, result.proven) == (2, 2)
    assert 0 < result.stored < result.logical
