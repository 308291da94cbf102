"""The one boundary where exceptions become errno: what a handler may let out, and what is written to the log.

An exception other than FUSEError that left a handler would end the whole mount.
"""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, TypeVar

import pyfuse3

from engine.errors import (
    AlreadyExists,
    HoldfastError,
    InvalidRequest,
    NotFound,
    PosixError,
    ReadOnly,
    Unsupported,
)
from engine.incidents import Journal

log = logging.getLogger("holdfast.fsmount.channel")

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")

# Answers to what a program asked, not troubles: any user can ask for them as often as he likes.
ORDINARY = (PosixError, NotFound, AlreadyExists, InvalidRequest, ReadOnly, Unsupported)
REPEAT_AFTER = 10.0  # s: the same trouble is not written to the log more often
PASSED_ON = (errno.ENOSPC, errno.EDQUOT, errno.ENOMEM, errno.EMFILE)
"""Of an OSError that nobody translated only these mean the same to the caller; ENOENT and such would be lies."""


class Troubles:
    """Writes each trouble to the log, and the repetitions of one as a count now and then; bugs are incidents."""

    def __init__(self) -> None:
        self.incidents = Journal()  # the worker puts its store's here
        self._last: dict[str, tuple[float, int]] = {}

    def note(self, key: str, text: str, error: BaseException | None = None) -> None:
        now = time.monotonic()
        last, unsaid = self._last.get(key, (-REPEAT_AFTER, 0))
        if now - last < REPEAT_AFTER:
            self._last[key] = (last, unsaid + 1)
            return
        if len(self._last) > 1000:
            self._last.clear()
        self._last[key] = (now, 0)
        more = f" ({unsaid} more like it before)" if unsaid else ""
        log.error("%s%s", text, more, exc_info=error)


troubles = Troubles()


def errno_of(operation: str, error: Exception) -> int:
    """The errno for an exception out of a handler; everything that is not an ordinary answer is logged."""
    if isinstance(error, HoldfastError):
        if not isinstance(error, ORDINARY):
            troubles.note(f"{operation} {error.kind.slug}", f"{operation}: {error}")
        return error.errno
    number = errno.EIO
    if isinstance(error, MemoryError):
        number = errno.ENOMEM
    elif isinstance(error, OSError) and error.errno in PASSED_ON:
        number = error.errno
    troubles.note(f"{operation} {type(error).__name__}", f"{operation}: {error!r}", error)
    troubles.incidents.note("internal", operation, repr(error))
    return number


def boundary(
    handler: Callable[Concatenate[S, P], Coroutine[Any, Any, R]],
) -> Callable[Concatenate[S, P], Coroutine[Any, Any, R]]:
    """Wrap a handler so that nothing but FUSEError and the end of the loop leaves it."""
    operation = handler.__name__

    async def guarded(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return await handler(self, *args, **kwargs)
        except pyfuse3.FUSEError:
            raise
        except Exception as error:  # noqa: BLE001  the boundary is where everything must stop
            raise pyfuse3.FUSEError(errno_of(operation, error)) from None

    return guarded
