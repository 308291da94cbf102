"""What is answered when something is refused or fails: problem details (RFC 9457), the same for everything.

``kind`` is the slug of the engine's error table, and what programs should look at; ``detail`` is the error's
message.  A bug is told with a reference number that stands beside its traceback in the log, and nowhere else.
"""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.responses import Response

from engine.errors import Busy, HoldfastError, InvalidRequest, NotFound, Unsupported

log = logging.getLogger("holdfast.http")

MEDIA_TYPE = "application/problem+json"
_DETAIL_MAX = 2000  # characters: a message may quote a name of any length
_TITLES = {
    401: "Not authenticated",
    405: "Method not allowed",
    408: "Too slow",
    413: "Too large",
    416: "No such range",
    421: "Not this server",
    422: "Not the same request",
    429: "Too many failures",
}


class Refused(HoldfastError):
    """An error of the table with an HTTP status of its own, where HTTP knows more than the table."""

    def __init__(
        self, status: int, error: HoldfastError, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(str(error))
        self.kind = error.kind
        self.status = status
        self.headers = dict(headers or {})


def status_of(error: HoldfastError) -> int:
    """The HTTP status that tells of an error."""
    return error.status if isinstance(error, Refused) else error.kind.http


def details(error: HoldfastError, errors: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
    """The problem as a value. ``errors``: which parts of the request, where there are several."""
    status = status_of(error)
    slug = error.kind.slug
    text = str(error)
    found: dict[str, Any] = {
        "type": f"about:holdfast/{slug}",
        "title": _TITLES.get(status, slug.replace("_", " ").capitalize()),
        "status": status,
        "detail": text if len(text) <= _DETAIL_MAX else text[:_DETAIL_MAX] + "…",
        "kind": slug,
        "retryable": error.kind.retryable,
    }
    if errors:
        found["errors"] = [dict(each) for each in errors]
    return found


def answer(error: HoldfastError, errors: Sequence[Mapping[str, Any]] = ()) -> Response:
    """The response that tells of an error."""
    headers = dict(error.headers) if isinstance(error, Refused) else {}
    if status_of(error) == 503:
        headers.setdefault("Retry-After", "5")
    body = json.dumps(details(error, errors)).encode()
    return Response(body, status_of(error), headers, MEDIA_TYPE)


def bug(error: BaseException, about: str) -> Response:
    """The response to what nobody foresaw: a number, by which the log tells what it was."""
    reference = secrets.token_hex(6)
    log.error("bug %s in %s", reference, about, exc_info=error)
    known = HoldfastError("internal error", do=f"look for {reference} in the daemon's log")
    found = {**details(known), "title": "Internal error", "reference": reference}
    return Response(json.dumps(found).encode(), 500, media_type=MEDIA_TYPE)


def of_status(status: int, about: str) -> HoldfastError:
    """The error that stands for a status the framework came to by itself."""
    match status:
        case 404:
            return NotFound(f"address {about!r}", do="see /v1/openapi.json for what there is")
        case 405:
            return Refused(405, Unsupported(f"this method at address {about!r}"))
        case 400:
            return InvalidRequest(
                f"body of the request to {about!r}", expected="JSON in UTF-8", found="other bytes"
            )
        case _:
            return Refused(status, InvalidRequest(f"request to {about!r}"))


def too_large(limit: int) -> Refused:
    """A request body over its limit."""
    return Refused(
        413, InvalidRequest("request body", expected=f"at most {limit} bytes", found="more")
    )


def too_slow(seconds: float, what: str) -> Refused:
    """A request that was not there, or not answered, in time."""
    text = f"{what} took longer than {seconds:g} seconds"
    return Refused(408, Busy(text), {"Connection": "close"})
