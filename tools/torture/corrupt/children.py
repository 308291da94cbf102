"""Forked children that do one task each on a store of their own, a few at once: a damaged index may kill them."""

from __future__ import annotations

import logging
import os
import pickle
import select
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from engine import HoldfastError
from tools.torture import bugs

T = TypeVar("T")
R = TypeVar("R")
LIMIT = 60  # s a task may take: one that hangs is a find


@dataclass
class Done(Generic[T, R]):
    """What became of a task. ``died``: the signal that killed it, 0 for none; ``failed``: the rig's own traceback.
    ``code``: with what it ended without an answer; ``refused``: the traceback of an error of the store.
    """

    task: T
    result: R | None
    died: int = 0
    failed: str = ""
    code: int = 0
    refused: str = ""


@dataclass
class _Running(Generic[T]):
    task: T
    slot: int
    pid: int
    fd: int
    data: bytes = b""


def run(
    tasks: Iterable[T], work: Callable[[int, T], R], clean: Callable[[int, T], None], slots: int = 2
) -> Iterator[Done[T, R]]:
    """Each task by ``work(slot, task)`` in a child, at most one a slot; after it ``clean`` in this process."""
    todo = iter(tasks)
    free = list(range(slots))
    running: dict[int, _Running[T]] = {}
    try:
        while True:
            while free and (task := next(todo, None)) is not None:
                one = _start(free.pop(), task, work)
                running[one.fd] = one
            if not running:
                return
            for fd in select.select(list(running), [], [])[0]:
                one = running[fd]
                more = os.read(fd, 1 << 20)
                if more:
                    one.data += more
                    continue
                del running[fd]
                done: Done[T, R] = _end(one)
                clean(one.slot, one.task)
                free.append(one.slot)
                yield done
    finally:
        for one in running.values():
            os.kill(one.pid, signal.SIGKILL)
            _end(one)


def _start(slot: int, task: T, work: Callable[[int, T], R]) -> _Running[T]:
    ours, theirs = os.pipe()
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        os.close(theirs)
        return _Running(task, slot, pid, ours)
    code = 1
    try:
        os.close(ours)
        signal.alarm(LIMIT)
        logging.disable(logging.CRITICAL)
        bugs.plant_chosen()
        answer = ("ok", work(slot, task))
        code = 0
    except HoldfastError:
        answer = ("refused", traceback.format_exc())  # type: ignore[assignment]
    except BaseException:  # noqa: BLE001  it goes to the parent, whatever it is
        answer = ("failed", traceback.format_exc())  # type: ignore[assignment]
    try:
        with open(theirs, "wb") as out:
            out.write(pickle.dumps(answer))
    finally:
        os._exit(code)


def _end(one: _Running[T]) -> Done[T, R]:
    os.close(one.fd)
    _, status = os.waitpid(one.pid, 0)
    if os.WIFSIGNALED(status):
        return Done(one.task, None, died=os.WTERMSIG(status))
    if not one.data:
        return Done(one.task, None, code=os.WEXITSTATUS(status))
    kind, value = pickle.loads(one.data)
    if kind == "refused":
        return Done(one.task, None, refused=value)
    return Done(one.task, value) if kind == "ok" else Done(one.task, None, failed=value)
