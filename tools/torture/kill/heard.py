"""What the engine complains of in the rig's own process, where it judges: nothing, unless something is wrong."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


class _Ear(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


@contextmanager
def heard() -> Iterator[list[str]]:
    """Warnings and errors of the block go to this list, and nowhere else."""
    logger, ear = logging.getLogger("holdfast"), _Ear()
    before = logger.handlers, logger.propagate
    logger.handlers, logger.propagate = [ear], False
    try:
        yield ear.said
    finally:
        logger.handlers, logger.propagate = before
