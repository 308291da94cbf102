"""What a server answered, or that it did not, as an error of the engine's family.

The client library tells status and code only inside its text, which repeats the whole answer; of that text nothing but
these two is ever passed on.
"""

from __future__ import annotations

import re

from engine.errors import (
    Away,
    Corrupt,
    HoldfastError,
    InvalidRequest,
    LocationDenied,
    LocationUnavailable,
    NotFound,
    StoreFull,
    Unsupported,
)

_STATUS = re.compile(r"status code: ([0-9]{3})")
_CODE = re.compile(r"<Code>([A-Za-z][A-Za-z0-9]{0,63})</Code>")

_FULL = {"QuotaExceeded", "XMinioStorageFull", "InsufficientStorage", "InsufficientCapacity"}
_NO_BUCKET = {"NoSuchBucket", "ContainerNotFound", "InvalidBucketName"}
_PASSING = {  # said with 4xx, and yet of the moment, or of the way
    "RequestTimeout", "IncompleteBody", "BadDigest", "InvalidDigest", "SlowDown", "ConditionalRequestConflict",
    "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch", "OperationAborted", "TooManyRequests",
    "NoSuchUpload", "InvalidPart",
}  # fmt: skip
_CLOCK = {"RequestTimeTooSkewed", "RequestExpired", "ExpiredToken"}
_ELSEWHERE = {
    "PermanentRedirect",
    "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException",
}


def status_and_code(text: str) -> tuple[int, str]:
    """The status of an answer (0: there was none) and the code in its body, of the client library's text."""
    status = _STATUS.search(text)
    code = _CODE.search(text)
    return (int(status[1]) if status else 0), (code[1] if code else "")


def translate(text: str, kind: str, what: str) -> HoldfastError:
    """The error for a text of the client library, whose own class is called ``kind``; ``what`` names the thing."""
    status, code = status_and_code(text)
    found = f"{status} {code}".strip() if status else ""
    if code in _FULL or status == 507:
        return StoreFull(what, found=found, do="free space at the storage location")
    if code in _NO_BUCKET:
        # Nothing in it is missing, and nothing is damaged by that.
        return Away(f"bucket of {what}", found=code, do="make the bucket, or correct the URL")
    if code in _PASSING or status in (408, 409, 425, 429) or (status >= 500 and status != 501):
        return LocationUnavailable(
            what, expected="an answer", found=found, do="it is tried again later"
        )
    if code in _ELSEWHERE or status in (301, 307):
        return LocationDenied(what, found=found, do="correct region or endpoint in the URL")
    if status in (401, 403) or kind in ("PermissionDeniedError", "UnauthenticatedError"):
        do = (
            "set the clock of this machine"
            if code in _CLOCK
            else "look at credentials and permissions"
        )
        return LocationDenied(what, expected="to be let in", found=found or "a refusal", do=do)
    if status in (404, 410) or kind in ("NotFoundError", "FileNotFoundError"):
        return NotFound(what, found=found or "nothing of that name")
    if status == 416:
        return Corrupt(what, expected="the bytes that were asked for", found="that it is shorter")
    if status in (405, 501) or kind in ("NotSupportedError", "NotImplementedError"):
        return Unsupported(what, found=found or "a refusal", do="use another server")
    if status:
        return InvalidRequest(what, expected="to be done", found=f"answer {found}")
    return _no_answer(text, kind, what)


def _no_answer(text: str, kind: str, what: str) -> HoldfastError:
    lower = text.lower()
    if "certificate" in lower:
        do = "let this machine trust the authority that made it"
        return LocationDenied(
            what, expected="a certificate that is trusted", found="another", do=do
        )
    if "redirect without location" in lower:
        do = "correct region or endpoint in the URL"
        return LocationDenied(what, expected="an answer", found="a PermanentRedirect", do=do)
    if (
        "invalid range" in lower or "wanted range starting at" in lower
    ):  # the second: an answer of no bytes
        return Corrupt(what, expected="the bytes that were asked for", found="that it is shorter")
    if kind in ("InvalidPathError", "UnknownConfigurationKeyError"):
        return InvalidRequest(what, expected="what the client library takes", found=kind)
    if "connection refused" in lower:
        found = "connection refused"
    elif "timed out" in lower or "timedout" in lower:
        found = "none in time"
    elif "dns" in lower:
        found = "no address of that name"
    else:
        found = "a connection that broke off"
    return LocationUnavailable(
        what, expected="an answer", found=found, do="it is tried again later"
    )
