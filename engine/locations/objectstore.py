"""``s3://``, ``gs://``, ``az://``: a storage location in a bucket, by obstore.

Only this module imports obstore. What is secret goes to it by a function it calls, never by its configuration, which it
prints. Its own retries mend one request (a part of an upload, the rest of an answer) for ``REQUEST_RETRY_TIME``; of
what is gone for longer ``Retry`` takes care. Creating is never repeated inside it: a second try that meets the first
one's success would look like another writer's.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import AzureStore, GCSStore, S3Store

from engine import limits
from engine.errors import (
    HoldfastError,
    InvalidRequest,
    LocationDenied,
    LocationUnavailable,
    NotFound,
    Unsupported,
)
from engine.locations import contract
from engine.locations.answers import status_and_code, translate
from engine.locations.contract import Features, Pieces, Stat
from engine.locations.retention import Retention
from engine.locations.url import Place, has_no_name

if TYPE_CHECKING:
    from obstore import GetOptions
    from obstore.store import ClientConfig, ObjectStore, RetryConfig
    from typing_extensions import Buffer

_T = TypeVar("_T")
_FOREIGN = (BaseError, OSError, ValueError, NotImplementedError)  # what obstore raises


class Bucket:
    """A location behind obstore. ``patient`` tries one request again, ``once`` never does."""

    def __init__(
        self,
        shown: str,
        patient: ObjectStore,
        once: ObjectStore,
        retention: Retention | None = None,
    ) -> None:
        self.shown = shown
        self._patient, self._once = patient, once
        self._retention = retention
        self._pool = ThreadPoolExecutor(limits.RANGES_AT_ONCE, "location")

    def features(self) -> Features:
        probe = "probe-" + secrets.token_hex(8)
        try:
            create = self.create(probe, b"1") and not self.create(probe, b"2")
        except Unsupported:
            create = False
        except HoldfastError:
            with suppress(HoldfastError):  # the first error is the one that says why
                self.remove([probe])
            raise
        self.remove([probe])
        return Features(
            create=create, lock=self._retention is not None and self._retention.enabled()
        )

    def put(self, name: str, data: Buffer) -> None:
        view = memoryview(data).cast("B")
        parts = len(view) > limits.PUT_PART
        self._ask(
            contract.checked(name),
            lambda: obstore.put(
                self._patient, name, view,
                use_multipart=parts, chunk_size=limits.PUT_PART, max_concurrency=limits.PUT_PARTS_AT_ONCE,
            ),
        )  # fmt: skip

    def create(self, name: str, data: Buffer) -> bool:
        view = memoryview(data).cast("B")

        def attempt() -> tuple[bool, int]:
            try:
                obstore.put(self._once, name, view, mode="create", use_multipart=False)
            except AlreadyExistsError as error:
                return False, status_and_code(str(error))[0]
            return True, 200

        made, status = self._ask(contract.checked(name), attempt)
        if not made and status == 409:
            # A conflict with another request, which may fail in its turn: then there is nothing.
            try:
                self.stat(name)
            except NotFound as error:
                raise LocationUnavailable(
                    error.what, expected="one of two to be first", found="neither", do="try again"
                ) from None
        return made

    def read(self, name: str, offset: int = 0, length: int = -1) -> bytes:
        contract.checked(name)
        contract.positive(offset)
        if length == 0:
            self.stat(name)
            return b""
        if length > 0:
            return self._range(name, offset, length).to_bytes()

        def rest() -> tuple[bytes, int]:
            # Of an empty one no range can be asked for.
            answer = obstore.get(
                self._patient, name, options={"range": {"offset": offset}} if offset else None
            )
            return answer.bytes().to_bytes(), answer.meta["size"]

        if offset and offset == self.stat(name).size:
            return b""
        data, size = self._ask(name, rest)
        return contract.whole(data, size - offset, self._what(name), offset)

    def ranges(self, name: str, parts: Sequence[tuple[int, int]]) -> Pieces:
        contract.checked(name)
        joined = contract.join(parts)
        if not joined:
            self.stat(name)
        if len(joined) == 1:
            answers = [self._range(name, joined[0].offset, joined[0].length)]
        else:
            answers = list(
                self._pool.map(lambda one: self._range(name, one.offset, one.length), joined)
            )
        return contract.split(parts, joined, answers)

    def stat(self, name: str) -> Stat:
        try:
            meta = self._ask(contract.checked(name), lambda: obstore.head(self._patient, name))
        except LocationDenied:
            self.read(
                name, 0, 1
            )  # says why: a wrong clock, a region; an answer to HEAD has no body
            raise
        return Stat(name, meta["size"], _ns(meta["last_modified"]))

    def list(self, prefix: str, after: str = "") -> Iterator[Stat]:
        folder = prefix.rpartition("/")[0]
        stream = iter(
            obstore.list(
                self._patient, folder or None, offset=after or None, chunk_size=limits.LIST_PAGE
            )
        )
        what = f"list of {prefix or 'everything'}"
        last = after
        while (page := self._ask(what, lambda: next(stream, None))) is not None:
            for meta in page:
                name = meta["path"]
                if not name.startswith(prefix) or not contract.is_name(name):
                    continue
                if name <= last:
                    if name == last or name <= after:
                        continue
                    raise Unsupported(
                        self._what(what),
                        expected="names in order",
                        found=f"{name} after {last}",
                        do="use another server",
                    )
                last = name
                yield Stat(name, meta["size"], _ns(meta["last_modified"]))

    def remove(self, names: Sequence[str]) -> None:
        for name in names:
            contract.checked(name)
        for at in range(0, len(names), limits.LIST_PAGE):
            some = list(names[at : at + limits.LIST_PAGE])
            self._ask(f"removing {some[0]} and {len(some) - 1} more", partial(self._delete, some))

    def retain(self, name: str, until_s: int) -> None:
        what = self._what(contract.checked(name))
        if self._retention is None:
            raise Unsupported(
                f"retention of {what}", expected="s3:// with Object Lock", found="another kind"
            )
        self._retention.retain(name, until_s, what)

    def tidy(self, age_s: float) -> int:
        return self._retention.tidy(age_s) if self._retention is not None else 0

    def counts(self) -> dict[str, int]:
        return {}

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    # ---------------------------------------------------------------------------------------------

    def _what(self, name: str) -> str:
        return f"{name} at {self.shown}"

    def _range(self, name: str, offset: int, length: int) -> obstore.Bytes:
        data = self._ask(
            name, lambda: obstore.get_range(self._patient, name, start=offset, length=length)
        )
        return contract.whole(data, length, self._what(name), offset)

    def _range_of(self, version: str, name: str, offset: int, length: int) -> obstore.Bytes:
        """Of a version of a name some bytes that it has."""
        end = offset + length

        def get() -> obstore.Bytes:
            options: GetOptions = {"version": version, "range": (offset, end)}
            return obstore.get(self._patient, name, options=options).bytes()

        return contract.whole(self._ask(name, get), length, self._what(name), offset)

    def _put_version(self, name: str, view: memoryview) -> str:
        """Put it, by one request that is never repeated; its version, "" where none are kept."""
        answer = self._ask(name, lambda: obstore.put(self._once, name, view, use_multipart=False))
        return answer["version"] or ""

    def _delete(self, names: Sequence[str]) -> None:
        try:
            obstore.delete(self._patient, names)
        except FileNotFoundError as error:
            if status_and_code(str(error))[1] == "NoSuchBucket":
                raise
            for name in names:  # of some servers the first that is not there ends a request
                try:
                    obstore.delete(self._patient, name)
                except FileNotFoundError:
                    continue

    def _ask(self, name: str, request: Callable[[], _T]) -> _T:
        """What the request answers. Errors are raised outside of the handler: nothing refers to obstore's own."""
        try:
            return request()
        except _FOREIGN as error:
            text, kind = str(error), type(error).__name__
        raise translate(text, kind, self._what(name))


def _ns(when: datetime) -> int:
    return round(when.timestamp() * 1e6) * 1000


def open_bucket(
    place: Place, credentials: Mapping[str, str], sort: type[Bucket] = Bucket
) -> Bucket:
    """The location of a URL with a bucket; raises InvalidRequest when credentials are missing or cannot be used."""
    make = {"s3": _s3, "gs": _gs, "az": _az}[place.scheme]
    client: ClientConfig = {
        "allow_http": place.endpoint.startswith("http:"),
        "timeout": timedelta(seconds=place.timeout_s),
        "connect_timeout": timedelta(seconds=limits.CONNECT_LIMIT),
    }
    try:
        patient, once = (
            make(place, credentials, client, _retries(n)) for n in (limits.REQUEST_RETRIES, 0)
        )
    except _FOREIGN as error:
        kind = type(error).__name__
    else:
        retention = Retention(place, credentials) if place.scheme == "s3" else None
        return sort(place.shown, patient, once, retention)
    raise InvalidRequest(
        f"storage location {place.shown}", expected="credentials that can be used", found=kind
    )


def _retries(count: int) -> RetryConfig:
    return {
        "max_retries": count,
        "retry_timeout": timedelta(seconds=limits.REQUEST_RETRY_TIME),
        "backoff": {
            "init_backoff": timedelta(milliseconds=100),
            "max_backoff": timedelta(seconds=2),
            "base": 2,
        },
    }


def _needed(place: Place, credentials: Mapping[str, str], *keys: str) -> str:
    """The first of these that there is."""
    for key in keys:
        if found := credentials.get(key):
            return found
    raise InvalidRequest(
        f"credentials for {place.shown}",
        expected=" or ".join(keys),
        found="none",
        do="set them in the environment, in a file, or as a credential of systemd",
    )


def _s3(
    place: Place, credentials: Mapping[str, str], client: ClientConfig, retry: RetryConfig
) -> ObjectStore:
    key = _needed(place, credentials, "AWS_ACCESS_KEY_ID")
    secret = _needed(place, credentials, "AWS_SECRET_ACCESS_KEY")
    token = credentials.get("AWS_SESSION_TOKEN") or None

    def provide() -> Any:
        return {
            "access_key_id": key,
            "secret_access_key": secret,
            "token": token,
            "expires_at": None,
        }

    region = place.region or "us-east-1"
    endpoint = place.endpoint or f"https://s3.{region}.amazonaws.com"
    if not place.path_style:
        scheme, _, host = endpoint.partition("://")
        endpoint = f"{scheme}://{place.bucket}.{host}"
    # All that the client library would else take from the environment is named: a variable there must not lead away.
    return S3Store(
        place.bucket,
        prefix=place.path or None,
        endpoint=endpoint,
        aws_endpoint_url_s3=endpoint,
        region=region,
        virtual_hosted_style_request=not place.path_style,
        checksum_algorithm="SHA256",
        conditional_put="etag",
        skip_signature=False,
        unsigned_payload=False,
        disable_bulk_delete=False,
        s3_express=False,
        credential_provider=provide,
        client_options=client,
        retry_config=retry,
    )


def _gs(
    place: Place, credentials: Mapping[str, str], client: ClientConfig, retry: RetryConfig
) -> ObjectStore:
    key = _needed(place, credentials, "GOOGLE_SERVICE_ACCOUNT_KEY")
    return GCSStore(
        place.bucket,
        prefix=place.path or None,
        service_account_key=key,
        skip_signature=False,
        client_options=client,
        retry_config=retry,
    )


def _az(
    place: Place, credentials: Mapping[str, str], client: ClientConfig, retry: RetryConfig
) -> ObjectStore:
    secret = _needed(place, credentials, "AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_SAS_KEY")
    sas = not credentials.get("AZURE_STORAGE_ACCOUNT_KEY")
    more: Any = {"sas_key": secret} if sas else {"account_key": secret}
    if place.endpoint:
        # A server without a name cannot have the account in it: those have it in the path.
        account = f"/{place.account}" if has_no_name(place.endpoint) else ""
        more["endpoint"] = place.endpoint + account
    return AzureStore(
        place.bucket,
        prefix=place.path or None,
        account_name=place.account,
        skip_signature=False,
        client_options=client,
        retry_config=retry,
        **more,
    )
