"""Object Lock, versions, and what cut-off uploads left: of S3 what obstore does not do. Only this module imports boto3.

It is loaded at the first use: a program that neither retains nor tidies does without.
"""

from __future__ import annotations

import datetime
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from engine import limits
from engine.errors import LocationUnavailable, NotFound, Unsupported
from engine.locations.answers import translate
from engine.locations.url import Place

_T = TypeVar("_T")
_LONG_AGO = datetime.datetime.min.replace(tzinfo=datetime.UTC)
_UNSUPPORTED = (
    "NoSuchObjectLockConfiguration", "ObjectLockConfigurationNotFoundError", "NotImplemented",
    "MethodNotAllowed", "InvalidRequest", "InvalidBucketState",
)  # fmt: skip


_RETAINED = {"AccessDenied", "NoSuchVersion", "NoSuchKey", "InvalidRequest"}  # or gone already


class Version(NamedTuple):
    """A version of a name; of a delete marker ``size`` is -1."""

    name: str
    version: str
    size: int
    modified_ns: int


class Retention:
    """Retention of the names of one s3:// location. Threads may share it."""

    def __init__(self, place: Place, credentials: Mapping[str, str]) -> None:
        self._place = place
        self._credentials = credentials
        self._lock = threading.Lock()  # guards the making of _client, which threads may share
        self._client: Any = None

    def __repr__(self) -> str:
        return f"Retention({self._place.shown})"

    def enabled(self) -> bool:
        """Was the bucket made with Object Lock?"""
        what = f"Object Lock of {self._place.shown}"
        try:
            answer = self._ask(
                what, lambda s3: s3.get_object_lock_configuration(Bucket=self._place.bucket)
            )
        except (Unsupported, NotFound):
            return False
        return bool(answer.get("ObjectLockConfiguration", {}).get("ObjectLockEnabled") == "Enabled")

    def retain(self, name: str, until_s: int, what: str, version: str = "") -> None:
        """Retain a name (what it is now, or that version of it) until then, if it is not retained for longer; raises
        Unsupported where there is no lock."""
        where = {"Bucket": self._place.bucket, "Key": self._key(name)}
        where |= {"VersionId": version} if version else {}
        until = datetime.datetime.fromtimestamp(until_s, datetime.UTC)
        if self._held(where, what) >= until:
            return
        wanted = {"Mode": "COMPLIANCE", "RetainUntilDate": until}
        self._ask(what, lambda s3: s3.put_object_retention(**where, Retention=wanted))
        if self._held(where, what) < until:
            raise Unsupported(
                f"retention of {what}",
                expected=f"until {until:%Y-%m-%d %H:%M:%S}",
                found="that the server forgot it",
            )

    def versions(self, prefix: str, after: str = "") -> Iterator[Version]:
        """Versions and delete markers of names that begin so and are greater, in order of names, of each name versions
        from the newest on, then markers."""
        what = f"versions of {prefix or 'everything'} at {self._place.shown}"
        asked = {
            "Bucket": self._place.bucket,
            "Prefix": self._key(prefix),
            "MaxKeys": limits.LIST_PAGE,
        }
        marks: dict[
            str, str
        ] = {}  # where to begin is understood in several ways: from the start, then
        known = len(self._key(""))
        while True:
            page = self._ask(what, _call("list_object_versions", {**asked, **marks}))
            here = [
                Version(one["Key"][known:], one["VersionId"], one["Size"], _ns(one["LastModified"]))
                for one in page.get("Versions", ())
            ]
            here += [
                Version(one["Key"][known:], one["VersionId"], -1, 0)
                for one in page.get("DeleteMarkers", ())
            ]
            here.sort(key=lambda one: one.name)  # keeps the order within a name
            yield from (one for one in here if one.name > after)
            if not page.get("IsTruncated"):
                return
            marks = {
                "KeyMarker": page.get("NextKeyMarker", ""),
                "VersionIdMarker": page.get("NextVersionIdMarker", ""),
            }

    def erase(self, gone: Sequence[Version]) -> None:
        """Remove these versions for good; what is retained stays."""
        what = f"removing versions at {self._place.shown}"
        for at in range(0, len(gone), limits.LIST_PAGE):
            some = [
                {"Key": self._key(one.name), "VersionId": one.version}
                for one in gone[at : at + limits.LIST_PAGE]
            ]
            asked = {"Bucket": self._place.bucket, "Delete": {"Objects": some, "Quiet": True}}
            answer = self._ask(what, _call("delete_objects", asked))
            codes = {str(one.get("Code", "")) for one in answer.get("Errors", ())}
            if strange := codes - _RETAINED:
                raise LocationUnavailable(
                    what,
                    expected="them to be gone",
                    found=min(strange),
                    do="it is tried again later",
                )

    def tidy(self, age_s: float) -> int:
        """Abort uploads in parts that were begun so long ago and never ended; how many."""
        what = f"unfinished uploads at {self._place.shown}"
        bucket, prefix = self._place.bucket, self._place.path + "/" if self._place.path else ""
        before = time.time() - age_s
        aborted = 0
        marks: dict[str, str] = {}
        while True:
            asked = {"Bucket": bucket, "Prefix": prefix, **marks}
            page = self._ask(what, _call("list_multipart_uploads", asked))
            for one in page.get("Uploads", ()):
                if one["Initiated"].timestamp() < before:
                    gone = {"Bucket": bucket, "Key": one["Key"], "UploadId": one["UploadId"]}
                    try:
                        self._ask(what, _call("abort_multipart_upload", gone))
                    except NotFound:
                        continue  # it has just ended
                    aborted += 1
            if not page.get("IsTruncated"):
                return aborted
            marks = {
                "KeyMarker": page.get("NextKeyMarker", ""),
                "UploadIdMarker": page.get("NextUploadIdMarker", ""),
            }

    def _key(self, name: str) -> str:
        return f"{self._place.path}/{name}" if self._place.path else name

    def _held(self, where: Mapping[str, str], what: str) -> datetime.datetime:
        """Until when a name is retained in compliance mode; long ago when it is not."""
        answer = self._ask(what, _call("head_object", where))
        if answer.get("ObjectLockMode") != "COMPLIANCE":
            return _LONG_AGO
        until: datetime.datetime = answer.get("ObjectLockRetainUntilDate", _LONG_AGO)
        return until

    def _ask(self, what: str, request: Callable[[Any], _T]) -> _T:
        """What the server answers; errors are raised outside of the handlers, so that none refers to boto3's own."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            return request(self._s3())
        except ClientError as error:
            status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
            code = str(error.response.get("Error", {}).get("Code", ""))
        except BotoCoreError as error:
            status, code = 0, type(error).__name__
        if not status:
            raise LocationUnavailable(
                what, expected="an answer", found=code, do="it is tried again later"
            )
        if code in _UNSUPPORTED:
            raise Unsupported(
                f"retention of {what}",
                expected="a bucket made with Object Lock",
                found=code,
                do="make a bucket with Object Lock; it cannot be switched on later everywhere",
            )
        raise translate(f"status code: {status} <Code>{code}</Code>", "", what)

    def _s3(self) -> Any:
        import boto3
        from botocore.config import Config

        with self._lock:
            if self._client is None:
                # At lower levels they log whole requests, session tokens included.
                for name in ("boto3", "botocore", "urllib3"):
                    logging.getLogger(name).setLevel(logging.WARNING)
                self._client = boto3.session.Session().client(
                    "s3",
                    endpoint_url=self._place.endpoint or None,
                    region_name=self._place.region or "us-east-1",
                    aws_access_key_id=self._credentials.get("AWS_ACCESS_KEY_ID"),
                    aws_secret_access_key=self._credentials.get("AWS_SECRET_ACCESS_KEY"),
                    aws_session_token=self._credentials.get("AWS_SESSION_TOKEN"),
                    config=Config(
                        connect_timeout=limits.CONNECT_LIMIT,
                        read_timeout=self._place.timeout_s,
                        retries={
                            "total_max_attempts": 2,
                            "mode": "standard",
                        },
                        s3={"addressing_style": "path" if self._place.path_style else "virtual"},
                        ignore_configured_endpoint_urls=True,
                        max_pool_connections=limits.RANGES_AT_ONCE,
                    ),
                )
            return self._client


def _ns(when: datetime.datetime) -> int:
    return round(when.timestamp() * 1e6) * 1000


def _call(operation: str, arguments: Mapping[str, Any]) -> Callable[[Any], Any]:
    return lambda s3: getattr(s3, operation)(**arguments)
