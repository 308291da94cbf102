"""Asking a daemon from elsewhere: by its address and a token, with no store named."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from click.testing import CliRunner

from daemon.cli.main import cli
from engine.errors import HoldfastError
from tests import warm
from tests.cli.support import LIMIT, Done


class Served(NamedTuple):
    """A daemon: its directory, its store, its address, a file with a token of an administrator."""

    base: Path
    store: Path
    api: str
    token: Path


def command(*arguments: str | Path, **environment: str) -> Done:
    """Run one command with nothing of ours in its environment."""
    own = {key: value for key, value in os.environ.items() if not key.startswith("HOLDFAST_")}
    return warm.run(arguments, timeout=LIMIT, env={**own, **environment})


def asked(served: Served, *arguments: str | Path) -> Done:
    """Run one command as from another machine."""
    return command("--api", served.api, "--token-file", served.token, *arguments)


def said(*words: str | Path) -> tuple[int, str]:
    """Exit code and output of a command run in this process, which is quicker than one of its own."""
    done = CliRunner().invoke(cli, [str(word) for word in words], standalone_mode=False)
    if isinstance(done.exception, HoldfastError):
        return done.exception.kind.exit, done.stdout
    assert done.exception is None, done.exception
    return 0, done.stdout
