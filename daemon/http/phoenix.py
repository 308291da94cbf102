"""The Phoenix-compatible API: scripts written for a Phoenix Backup Store run against it unchanged.

Base ``/druva-phoenix/v1``; the calls are those of ``ROUTES``.  Every answer is one JSON object with the keys
``error_code``, ``error_msg``, ``result`` in that order; the nine published errors come with HTTP status 200 (scripts
read the body), everything else with a true one (``phoenix_rules`` has the numbers).

- A POST while a session is open succeeds and renews its lease: a script that crashed comes back. While a commit is
  under way it is "busy": what were written now might not be in the point.
- A PUT answers when the point is durable. A client that got no answer may ask again: the point was made if it is told
  that nothing was begun.
- Mount names are taken from the bytes of the request, decoded once, and looked up; nothing of a request is a path.
- There is no authentication in the published interface. So: listeners on loopback, addresses that may ask, no web
  pages, and tokens where they are wanted (``phoenix_access``).
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar
from urllib.parse import unquote_to_bytes

import trio
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Router
from starlette.types import ASGIApp, Receive, Scope, Send

from daemon.contract import Backend, MountInfo
from daemon.http import phoenix_rules as rules
from daemon.http import problem
from daemon.http.gate import Caller, Gate
from daemon.http.guard import EXTENSION
from daemon.http.phoenix_access import Access, Settings, within
from daemon.http.phoenix_rules import Call, Facts, StoreState
from daemon.http.upload import ENVELOPE, Upload
from engine.errors import Busy, HoldfastError, InvalidRequest, NotFound, PermissionDenied
from engine.registry import valid_name

T = TypeVar("T")

BASE = b"/druva-phoenix/v1"
ROUTES: dict[tuple[str, str], Call] = {
    ("GET", "backup"): "status",
    ("POST", "backup"): "begin",
    ("PUT", "backup"): "commit",
    ("POST", "uploadlog"): "log",
    ("DELETE", "restores"): "delete",
}
"""Method and the word behind the mount's name; behind ``restores`` comes the job."""

MOUNT_PARAMS = {"timeo": 1200, "retrans": 5}
"""NFS mount options: tenths of a second, and a count."""
JOB_DIGITS = 18  # of a job's number: it is a 64-bit integer

COMMIT_S = 7200.0  # s until a commit's answer begins: much that is dirty may have to be written
REQUESTS = 16  # threads: what they do takes milliseconds, but for uploads
COMMITS = 32  # threads, of their own: commits of many mounts wait for disks, and nobody for them


def app(
    backend: Backend,
    settings: Callable[[], Settings] = Settings,
    *,
    gate: Gate | None = None,
    store_state: Callable[[], StoreState] = lambda: "active",
) -> ASGIApp:
    """The API as an ASGI application. ``settings`` is asked at each request."""
    endpoint = _Phoenix(backend, settings, gate, store_state)
    return Router(default=endpoint)


@dataclass(frozen=True)
class _Asked:
    """A request that found its route. ``mount`` and ``job`` are the client's words, not yet looked at."""

    call: Call
    mount: str
    job: str
    caller: Caller
    request: Request


class _Failed(Exception):
    """Ends a request with an answer that is an error."""

    def __init__(self, code: int, message: str, status: int = 200, allow: str = "") -> None:
        self.code, self.message, self.status, self.allow = code, message, status, allow


def _own(error: HoldfastError) -> _Failed:
    return _Failed(rules.own_code(error), str(error), problem.status_of(error))


def _answer(code: int, message: str, result: dict[str, Any], status: int = 200) -> Response:
    body = json.dumps({"error_code": code, "error_msg": message, "result": result})
    return Response(body, status, media_type="application/json")


def refused(error: HoldfastError) -> Response:
    """What was refused before it came here, in this interface's form."""
    response = _answer(rules.own_code(error), str(error), {}, problem.status_of(error))
    if isinstance(error, problem.Refused):
        response.headers.update(error.headers)
    return response


class _Phoenix:
    """The one endpoint; see ``app``."""

    def __init__(
        self,
        backend: Backend,
        settings: Callable[[], Settings],
        gate: Gate | None,
        store_state: Callable[[], StoreState],
    ) -> None:
        self._backend, self._settings = backend, settings
        self._access, self._store_state = Access(settings, gate), store_state
        self._requests = trio.CapacityLimiter(REQUESTS)
        self._commits = trio.CapacityLimiter(COMMITS)
        self._handlers = {
            "status": self._status, "begin": self._begin, "log": self._log, "commit": self._commit,
            "delete": self._delete,
        }  # fmt: skip

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        headers = {}
        try:
            response = _answer(0, "", await self._asked(request))
        except _Failed as failed:
            response = _answer(failed.code, failed.message, {}, failed.status)
            headers = {"Allow": failed.allow} if failed.allow else {}
        except ClientDisconnect:
            return  # in the middle of an upload: nobody is there to be told
        except Exception as error:  # noqa: BLE001 - whatever it is: an answer in this form, and the log has the rest
            problem.bug(error, f"{request.method} {request.url.path!r}")
            bug = HoldfastError("internal error", do="look at the daemon's log")
            response = _answer(rules.own_code(bug), str(bug), {}, bug.kind.http)
        response.headers.update(headers)
        await response(scope, receive, send)

    async def _asked(self, request: Request) -> dict[str, Any]:
        try:
            address = self._access.reach(request)
            call, mount, job = _route(request)
            caller = await self._run(partial(self._access.admit, request, address, call, mount))
            asked = _Asked(call, mount, job, caller, request)
            try:
                result = await self._done(asked)
            except HoldfastError as error:
                await self._run(partial(self._access.record, call, caller, mount, error))
                raise
            await self._run(partial(self._access.record, call, caller, mount, None))
            return result
        except HoldfastError as error:
            raise _own(error) from None

    async def _done(self, asked: _Asked) -> dict[str, Any]:
        facts = await self._facts(asked)
        _refuse(asked.call, facts)
        if facts.session and asked.call in ("begin", "log", "commit"):
            await self._run(partial(self._own_session, asked, facts.session))
        return await self._handlers[asked.call](asked, facts)

    def _own_session(self, asked: _Asked, session: str) -> None:
        """In a thread: a writer's token is for sessions begun with it."""
        if not asked.caller.owns(self._backend.session(session)):
            raise PermissionDenied(
                f"session {session}", found="another's", do="use the token it was begun with"
            )

    async def _facts(self, asked: _Asked, *, restore: bool = True) -> Facts:
        limit = self._settings().max_pending
        return await self._run(partial(self._gathered, asked, limit, restore))

    def _gathered(self, asked: _Asked, limit: int, restore: bool) -> Facts:
        """In a thread: what there is to know before a call is tried."""
        store = self._store_state()
        try:
            mount = self._backend.mount(valid_name(asked.mount))
            exports = self._backend.exports(mount.name) if asked.call == "begin" else []
        except (InvalidRequest, NotFound):
            return Facts(None, store)
        mine = [one for one in exports if within(asked.caller.origin, (one.client,))]
        return Facts(mount, store, mine or exports, limit, restore)

    async def _run(self, work: Callable[[], T], *, commit: bool = False, abandon: bool = True) -> T:
        """In a thread. One that is abandoned, when the daemon stops, goes on: whoever asks again is told."""
        limiter = self._commits if commit else self._requests
        return await trio.to_thread.run_sync(work, limiter=limiter, abandon_on_cancel=abandon)

    async def _try(
        self, asked: _Asked, work: Callable[[], T], *, commit: bool = False, abandon: bool = True
    ) -> T:
        """Do it; if it fails because things have changed since they were looked at, say what the table says now."""
        try:
            return await self._run(work, commit=commit, abandon=abandon)
        except HoldfastError as error:
            restore = not (asked.call == "delete" and isinstance(error, NotFound))
            _refuse(asked.call, await self._facts(asked, restore=restore))
            raise

    # --- the calls ----------------------------------------------------------------------------------------

    async def _status(self, asked: _Asked, facts: Facts) -> dict[str, Any]:
        return {"mount_name": asked.mount, "is_reached_max_snapshots": facts.full}

    async def _begin(self, asked: _Asked, facts: Facts) -> dict[str, Any]:
        mount = await self._try(asked, partial(self._open, asked, facts))
        return {
            "mount_path": mount.path,
            "mount_name": mount.name,
            "mount_params": dict(MOUNT_PARAMS),
        }

    def _open(self, asked: _Asked, facts: Facts) -> MountInfo:
        """In a thread: a session is open when this returns, the one there was or a new one."""
        known = facts.session
        if not known:
            try:
                self._backend.begin(asked.mount, holder=asked.caller.id)
            except HoldfastError:
                # Two asked at once, and the other was first?
                known = self._backend.mount(asked.mount).session
                if not known:
                    raise
        if known:
            if self._backend.session(known).state == "committing":
                raise Busy(
                    f"mount {asked.mount}", found="a commit under way", do="start again after it"
                )
            self._backend.renew(known)
        return self._backend.mount(asked.mount)

    async def _log(self, asked: _Asked, facts: Facts) -> dict[str, Any]:
        limit = self._settings().max_upload
        if int(_number(asked.request.headers.get("content-length", ""))) > limit + ENVELOPE:
            # Before anything of it is read: curl waits to be asked for a large body, and reads this instead.
            raise problem.too_large(limit)
        with Upload(asked.request.headers.get("content-type", ""), "file", limit) as upload:
            async with aclosing(asked.request.stream()) as body:
                await upload.read(partial(_piece, body))
            # Not abandoned: the file must stay open as long as it is read.
            await self._try(asked, partial(self._attach, facts.session, upload), abandon=False)
        return {"mount_name": asked.mount}

    def _attach(self, session: str, upload: Upload) -> None:
        """In a thread: keep the log, and beside it the words that came with it (the client's own name for the mount's
        directory: paths in the log begin with it)."""
        said = {
            key: upload.fields[key] for key in ("mountpoint", "platform") if key in upload.fields
        }
        if said:
            self._backend.attach_log(session, f"{upload.name}.sent", [json.dumps(said).encode()])
        self._backend.attach_log(session, upload.name, upload.pieces())

    async def _commit(self, asked: _Asked, facts: Facts) -> dict[str, Any]:
        patience = asked.request.scope.get("extensions", {}).get(EXTENSION, {}).get("patience")
        if patience is not None:
            patience(COMMIT_S)
        made = await self._try(asked, partial(self._backend.commit, facts.session), commit=True)
        point = made.detail.point
        return {"snap_name": f"{point.id}_{point.seq}", "mount_name": asked.mount}

    async def _delete(self, asked: _Asked, facts: Facts) -> dict[str, Any]:
        job = _number(asked.job)
        if str(job) != asked.job:
            _refuse(asked.call, await self._facts(asked, restore=False))
        await self._try(asked, partial(self._backend.delete_restore, asked.mount, job))
        return {"mount_name": asked.mount, "jobid": job}


def _refuse(call: Call, facts: Facts) -> None:
    refused = rules.refusal(call, facts)
    if refused is not None:
        raise _Failed(refused.code, refused.message)


def _number(text: str) -> int:
    """A number as clients write it, -1 when it is none."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= JOB_DIGITS else -1


async def _piece(body: AsyncIterator[bytes]) -> bytes | None:
    return await anext(body, None)


def _route(request: Request) -> tuple[Call, str, str]:
    """The call, and the words for mount and job, from the path's bytes: each part is decoded once."""
    raw: bytes = request.scope.get("raw_path") or request.scope["path"].encode()
    path = raw.partition(b"?")[0]
    parts = [
        unquote_to_bytes(part).decode("utf-8", "surrogateescape")
        for part in path.removeprefix(BASE + b"/").split(b"/")
    ]
    match parts:
        case ["mounts", mount, ("backup" | "uploadlog") as word] if path.startswith(BASE):
            job = ""
        case ["mounts", mount, "restores" as word, job] if path.startswith(BASE):
            pass
        case _:
            raise _own(
                NotFound("this path", expected="one of the interface's, below " + BASE.decode())
            )
    if (request.method, word) in ROUTES:
        return ROUTES[request.method, word], mount, job
    known = ", ".join(method for method, known in ROUTES if known == word)
    wrong = InvalidRequest("method", expected=known, found=request.method)
    raise _Failed(rules.own_code(wrong), str(wrong), 405, allow=known)
