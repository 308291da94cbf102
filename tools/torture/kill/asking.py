"""Requests to a daemon that may die at any moment: one request, one answer, nothing sent again by itself."""

from __future__ import annotations

from typing import Any

import httpx

_LIMIT = 90.0  # s for an answer


class LostError(Exception):
    """No answer came: it was done, or not."""


class RefusedError(Exception):
    """An answer that is an error. ``code``: the interface's number, or HTTP's."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code


class Native:
    """The native API, at the socket."""

    def __init__(self, socket: str) -> None:
        self._client = httpx.Client(
            transport=httpx.HTTPTransport(uds=socket, verify=False),
            base_url="http://localhost",
            timeout=_LIMIT,
        )

    def close(self) -> None:
        self._client.close()

    def post(self, path: str, body: Any = None, *, key: str = "") -> Any:
        """Raises LostError, RefusedError."""
        headers = {"Idempotency-Key": key} if key else {}
        return _json(self._send("POST", path, json=body or {}, headers=headers))

    def log(self, session: str, name: str, content: bytes) -> Any:
        """Attach a log."""
        files = {"file": (name, content)}
        return _json(self._send("POST", f"/v1/sessions/{session}/logs", files=files))

    def open_session(self, mount: str) -> str:
        """Id of a mount's open session, "" for none."""
        return str(_json(self._send("GET", f"/v1/mounts/{mount}"))["session"])

    def _send(self, method: str, path: str, **what: Any) -> httpx.Response:
        answer = sent(self._client, method, path, **what)
        if not answer.is_success:
            raise RefusedError(answer.status_code, answer.text[:500])
        return answer


class Phoenix:
    """The calls of the Phoenix-compatible API on one mount."""

    def __init__(self, address: str, mount: str) -> None:
        self._client = httpx.Client(
            base_url=f"http://{address}/druva-phoenix/v1/mounts/{mount}",
            verify=False,
            timeout=_LIMIT,
        )

    def close(self) -> None:
        self._client.close()

    def begin(self) -> None:
        """Begin a session, or renew the one there is."""
        self._call("POST", "/backup")

    def log(self, name: str, content: bytes) -> None:
        """Attach a log to the session."""
        self._call("POST", "/uploadlog", files={"file": (name, content)})

    def commit(self) -> str:
        """The id of the point."""
        return str(self._call("PUT", "/backup")["snap_name"]).partition("_")[0]

    def _call(self, method: str, path: str, **what: Any) -> dict[str, Any]:
        found = _json(sent(self._client, method, path, **what))
        if found["error_code"]:
            raise RefusedError(int(found["error_code"]), str(found["error_msg"]))
        result: dict[str, Any] = found["result"]
        return result


def sent(client: httpx.Client, method: str, path: str, **what: Any) -> httpx.Response:
    """One request. Raises LostError."""
    try:
        return client.request(method, path, **what)
    except httpx.HTTPError as error:
        raise LostError(f"{method} {path}: {error!r}") from None


def _json(answer: httpx.Response) -> Any:
    try:
        return answer.json()
    except ValueError:
        raise RefusedError(answer.status_code, answer.text[:500]) from None
