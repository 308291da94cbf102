"""Jobs: work in the background, and how far it is."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import nullcontext, suppress
from functools import partial
from typing import Annotated, Literal

import trio
from pydantic import Field
from starlette.responses import Response

from daemon.contract import JobInfo, Page
from daemon.http import wire
from daemon.http.guard import EXTENSION
from daemon.http.native.base import Ask, Asked, Body, Cursor, Endless, Limit, Number, Text, route
from engine.errors import HoldfastError, NotFound

POLL_S = 0.5  # between two looks at a job, where nobody tells of changes
LOOK_S = 10.0  # where somebody does: a command that has no daemon may be what changes it
HEARTBEAT_S = 15.0  # without news: so that a client sees that somebody is there
ENDED = ("done", "failed", "cancelled")


class NewJob(Body):
    """A job to be started: collection, scrub or check of the store; an upload to, or the freeing of what no point needs
    at, a storage location (``location``; of ``reclaim`` also ``dry_run``, ``budget_s``, ``bytes``, ``grace_s``, and
    prices). Restores and deletions have their own routes."""

    kind: Literal["collect", "scrub", "check", "upload", "reclaim"]
    options: Annotated[
        dict[
            Annotated[str, Field(max_length=100)],
            bool | int | float | Annotated[str, Field(max_length=1000)],
        ],
        Field(max_length=50),
    ] = {}  # noqa: RUF012 - a field of a model, not an attribute of a class


def _may_see(ask: Asked, job: JobInfo) -> bool:
    return ask.caller.sees(job.mount) and (ask.caller.role != "restorer" or job.kind == "restore")


def _job(ask: Asked, number: int) -> JobInfo:
    ask.about = f"job {number}"
    found = ask.backend.job(number)
    if not _may_see(ask, found):
        raise NotFound(f"job {number}", found="none of this caller's")
    ask.about = f"job {number} ({found.kind} {found.mount})".replace(" )", ")")
    return found


@route("GET", "/v1/jobs", Page[JobInfo])
def list_jobs(
    ask: Ask, kind: Text = "", state: Text = "", cursor: Cursor = "", limit: Limit = 100
) -> Page[JobInfo]:
    """Jobs, the newest first."""
    page = ask.backend.jobs(kind=kind, state=state, cursor=cursor, limit=limit)
    return Page([one for one in page.items if _may_see(ask, one)], page.cursor)


@route("POST", "/v1/jobs", JobInfo, status=202)
def start_job(ask: Ask, new: NewJob) -> JobInfo:
    """Start a job."""
    ask.about = new.kind
    return ask.backend.start_job(new.kind, dict(new.options))


@route("GET", "/v1/jobs/{id}", JobInfo)
def get_job(ask: Ask, id: Number) -> JobInfo:
    """One job, and how far it is."""
    return _job(ask, id)


@route("DELETE", "/v1/jobs/{id}", JobInfo)
def cancel_job(ask: Ask, id: Number) -> JobInfo:
    """Cancel a job; what it has done stays done."""
    return ask.backend.cancel_job(_job(ask, id).id)


@route("GET", "/v1/jobs/{id}/events", media="text/event-stream")
async def follow_job(ask: Ask, id: Number) -> Endless | Response:
    """A job as server-sent events, one for each change, until it has ended."""
    known = ask.request.headers.get("last-event-id", "")
    first = await _look(ask, id)
    if first.state in ENDED and known == _mark(first):
        return Response(status_code=204)  # a client that comes back is told to stay away
    headers = {"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"}
    return Endless(_events(ask, first, known), headers)


async def _look(ask: Asked, number: int) -> JobInfo:
    return await trio.to_thread.run_sync(
        partial(_job, ask, number), limiter=ask.shared.requests, abandon_on_cancel=True
    )


def _mark(job: JobInfo) -> str:
    return hashlib.blake2b(wire.encoded(job), digest_size=8).hexdigest()


async def _events(ask: Asked, job: JobInfo, known: str) -> AsyncIterator[bytes]:
    stopping: trio.Event = ask.request.scope["extensions"][EXTENSION]["stopping"]
    changes = ask.shared.changes
    with changes.watch(job.id) if changes is not None else nullcontext() as watch:
        job = await _look(ask, job.id)  # what changed before it was watched
        quiet_since = trio.current_time()
        while True:
            mark = _mark(job)
            if mark != known:
                yield (
                    b"event: job\nid: " + mark.encode() + b"\ndata: " + wire.encoded(job) + b"\n\n"
                )
                known, quiet_since = mark, trio.current_time()
            elif trio.current_time() >= quiet_since + HEARTBEAT_S:
                yield b": still there\n\n"
                quiet_since = trio.current_time()
            if job.state in ENDED or stopping.is_set():
                return
            told = await _told(watch, stopping)
            try:
                job = told or await _look(ask, job.id)
            except HoldfastError as error:
                yield (
                    b"event: problem\ndata: "
                    + wire.encoded({"kind": error.kind.slug, "detail": str(error)})
                    + b"\n\n"
                )
                return


async def _told(watch: AsyncIterator[JobInfo] | None, stopping: trio.Event) -> JobInfo | None:
    """The next change; None when it is time to look, or to stop."""
    found: JobInfo | None = None
    with trio.move_on_after(POLL_S if watch is None else min(LOOK_S, HEARTBEAT_S)):
        async with trio.open_nursery() as nursery:

            async def stop() -> None:
                await stopping.wait()
                nursery.cancel_scope.cancel()

            nursery.start_soon(stop)
            if watch is None:
                await stopping.wait()
            else:
                with suppress(StopAsyncIteration):  # the daemon stops
                    found = await anext(watch)
                if found is None:
                    await trio.sleep(POLL_S)
            nursery.cancel_scope.cancel()
    return found
