"""The connection of a ``Remote``: requests, when they are sent again, errors as those of the family."""

from __future__ import annotations

import ipaddress
import json
import logging
import ssl
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

import httpx

from daemon.http import wire
from engine.errors import Busy, InvalidRequest, LocationUnavailable

log = logging.getLogger("holdfast.client")

Query = dict[str, str | int]

_CONNECT_S = 10.0
_USUAL_S = 90.0  # for an answer to begin: more than the daemon gives itself
_LONG_S = 3700.0  # for commits and the like: the same
_PAUSES = (0.2, 1.0, 3.0)  # before a request is sent again
_STILL_RUNS_S = 300.0  # for a request whose answer was lost and which still runs
_ERROR_MAX = 1 << 20  # bytes of a problem that are read
_KEY_MAX = 200  # characters of an idempotency key, as the daemon takes them

T = TypeVar("T")


class Link:
    """Requests to one daemon. ``address``: an http(s) URL, or ``unix:PATH``; ``ca``: the authority of its certificate,
    "" for those of the system; ``cert``: a file with a certificate of ours and its key. Thread-safe."""

    def __init__(self, address: str, *, token: str = "", ca: str = "", cert: str = "") -> None:
        self.address = address
        headers = {"Accept": "application/json", "User-Agent": "holdfast"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        if address.startswith("unix:"):
            base, transport = "http://localhost", _plain(uds=address[5:])
        else:
            base, transport = address.rstrip("/"), _transport(address, ca, cert, token)
        self._client = httpx.Client(
            base_url=base, transport=transport, headers=headers, follow_redirects=False, trust_env=False,
            timeout=httpx.Timeout(_USUAL_S, connect=_CONNECT_S),
        )  # fmt: skip

    def close(self) -> None:
        self._client.close()

    # --- requests -------------------------------------------------------------------------------------------

    def get(self, kind: type[T], path: str, query: Query | None = None, *, long: bool = False) -> T:
        """Ask for a value of type ``kind``."""
        send = self._sender("GET", path, query, long=long)
        return wire.decoded(kind, self._again(send, lambda error: True))

    def post(
        self, kind: type[T], path: str, body: Any = None, *, long: bool = False, keyed: bool = True, key: str = ""
    ) -> T:  # fmt: skip
        """Ask for something to be done. With a key it is done once, however often it is sent; ``key``: one that the
        caller will ask with again."""
        if len(key) > _KEY_MAX or not (key.isascii() and key.isprintable()):
            raise InvalidRequest("idempotency key", expected=f"at most {_KEY_MAX} printable characters")  # fmt: skip
        told = {"Idempotency-Key": key or uuid.uuid4().hex} if keyed else {}
        send = self._sender(
            "POST", path, None, body={} if body is None else body, headers=told, long=long
        )
        return wire.decoded(kind, self._again(send, lambda error: keyed))

    def patch(self, kind: type[T], path: str, body: Any, *, long: bool = False) -> T:
        """Ask for something to be as the body says: twice is as good as once."""
        send = self._sender("PATCH", path, None, body=body, long=long)
        return wire.decoded(kind, self._again(send, lambda error: True))

    def delete(
        self, kind: type[T], path: str, query: Query | None = None, *, long: bool = False
    ) -> T:
        """As ``remove``, where the answer is a value."""
        return wire.decoded(kind, self._removed(path, query, long=long))

    def remove(self, path: str, query: Query | None = None, *, long: bool = False) -> None:
        """Ask for something to be removed; sent again only where the first never left."""
        self._removed(path, query, long=long)

    def _removed(self, path: str, query: Query | None, *, long: bool) -> bytes:
        return self._again(self._sender("DELETE", path, query, long=long), lambda error: False)

    def upload(self, kind: type[T], path: str, name: str, content: Iterable[bytes]) -> T:
        """Send a file as a form. It is taken from ``content`` as it goes, so never sent twice."""
        boundary = uuid.uuid4().hex
        shown = quote(
            name.encode("utf-8", "surrogateescape"), safe=" !#$&'()*+,-./:;<=>?@[]^_`{|}~"
        )
        head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{shown}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        )

        def body() -> Iterator[bytes]:
            yield head.encode("ascii")
            yield from (piece for piece in content if piece)
            yield f"\r\n--{boundary}--\r\n".encode("ascii")

        headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        request = self._client.build_request(
            "POST", path, content=body(), headers=headers, timeout=_LONG_S
        )
        with self._translated():
            answer = self._client.send(request)
        return wire.decoded(kind, self._checked(answer).content)

    def stream(
        self, path: str, query: Query | None = None
    ) -> tuple[httpx.Headers, Iterator[bytes]]:
        """Ask for bytes; their headers, and the bytes as they come, which end early only with an error."""
        request = self._client.build_request("GET", _with(path, query), timeout=_LONG_S)
        with self._translated():
            answer = self._client.send(request, stream=True)
        try:
            if answer.status_code != 200:
                with self._translated():
                    answer.read()
                self._checked(answer)
        except BaseException:
            answer.close()
            raise
        return answer.headers, self._pieces(answer)

    def _pieces(self, answer: httpx.Response) -> Iterator[bytes]:
        try:
            with self._translated():
                yield from answer.iter_bytes(1 << 20)
        finally:
            answer.close()

    # --- how --------------------------------------------------------------------------------------------------

    def _sender(
        self, method: str, path: str, query: Query | None, *, body: Any = None,
        headers: dict[str, str] | None = None, long: bool,
    ) -> Callable[[], httpx.Response]:  # fmt: skip
        told = dict(headers or {})
        content = None
        if body is not None:
            content = wire.encoded(body)
            told["Content-Type"] = "application/json"
        timeout = httpx.Timeout(_LONG_S if long else _USUAL_S, connect=_CONNECT_S)

        def send() -> httpx.Response:
            return self._client.request(
                method, _with(path, query), content=content, headers=told, timeout=timeout
            )

        return send

    def _again(self, send: Callable[[], httpx.Response], may: Callable[[Exception], bool]) -> bytes:
        """Send, and send again where that does no harm. Raises what the daemon says, LocationUnavailable."""
        tries = 0
        until = time.monotonic() + _STILL_RUNS_S
        while True:
            try:
                with self._translated():
                    answer = send()
            except LocationUnavailable as error:
                never_left = isinstance(error.__cause__, httpx.ConnectError)
                if tries >= len(_PAUSES) or not (never_left or may(error)):
                    raise
            else:
                try:
                    return self._checked(answer).content
                except Busy:
                    # Sent before, and still at work: its answer is worth waiting for.
                    if not tries or time.monotonic() > until:
                        raise
            time.sleep(_PAUSES[min(tries, len(_PAUSES) - 1)])
            tries += 1

    def _checked(self, answer: httpx.Response) -> httpx.Response:
        """The answer, if it is a good one. Raises the error it tells of."""
        if 200 <= answer.status_code < 300:
            return answer
        if 300 <= answer.status_code < 400:
            raise LocationUnavailable(
                f"daemon at {self.address}", expected="its answer",
                found=f"a redirection (HTTP {answer.status_code})", do="name the daemon's own address",
            )  # fmt: skip
        found: Any = None
        if "json" in answer.headers.get("content-type", "") and len(answer.content) <= _ERROR_MAX:
            try:
                found = json.loads(answer.content)
            except (ValueError, RecursionError):
                found = None
        raise wire.revived_error(found, answer.status_code)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except httpx.InvalidURL as error:
            raise InvalidRequest(f"address {self.address!r}", found=str(error)) from None
        except httpx.HTTPError as error:
            raise LocationUnavailable(
                f"daemon at {self.address}", expected="an answer",
                found=str(error) or type(error).__name__, do="see that it runs, and that the address is its",
            ) from error  # fmt: skip


def _with(path: str, query: Query | None) -> str:
    """A path with a query. Text of any bytes goes as %XX."""
    if not query:
        return path
    pairs = [
        (name, value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value)
        for name, value in query.items()
    ]
    return f"{path}?{urlencode(pairs, quote_via=quote)}"


def part(text: str) -> str:
    """Text as one part of a path, whatever is in it."""
    return quote(text.encode("utf-8", "surrogateescape"), safe="").replace(".", "%2E")


def _transport(address: str, ca: str, cert: str, token: str) -> httpx.HTTPTransport:
    try:
        url = httpx.URL(address)
    except httpx.InvalidURL as error:
        raise InvalidRequest(f"address {address!r}", found=str(error)) from None
    if url.scheme not in ("http", "https") or not url.host or url.userinfo:
        raise InvalidRequest(
            f"address {address!r}", expected="http://HOST:PORT, https://HOST:PORT or unix:PATH"
        )
    if url.scheme == "http":
        if token and not _near(url.host):
            log.warning("the token goes to %s in the clear: use https", url.host)
        return _plain()
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if ca:
        try:
            context = ssl.create_default_context(cafile=ca)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
        except (OSError, ssl.SSLError) as error:
            raise InvalidRequest(
                f"authority {ca}", expected="a PEM file", found=str(error)
            ) from None
    if cert:
        try:
            context.load_cert_chain(cert, password="")  # never asked for at the terminal
        except (OSError, ssl.SSLError) as error:
            raise InvalidRequest(
                f"certificate {cert}", expected="a PEM file with a certificate and its key, which has no password",
                found=str(error),
            ) from None  # fmt: skip
    return httpx.HTTPTransport(verify=context)


def _plain(uds: str | None = None) -> httpx.HTTPTransport:
    """Without TLS, as nothing is redirected: the authorities of this machine, 50 ms to read, are not needed."""
    return httpx.HTTPTransport(uds=uds, verify=False)


def _near(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
