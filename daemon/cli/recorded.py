"""A store's service in this process: by the configuration that speaks of the store, with every act in the audit log."""

from __future__ import annotations

import logging
import os
import pwd
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from daemon.observe.audit import Audit
from daemon.service import alone
from engine.errors import HoldfastError
from engine.progress import Report

if TYPE_CHECKING:
    from daemon.config import Config
    from daemon.contract import Backend

log = logging.getLogger("holdfast.cli")

AUDIT = os.path.join("daemon", "audit.log")  # in the store
_ABOUT_MAX = 10  # names in one line

ACTS = {
    "create_mount": "create mount", "delete_mount": "delete mount", "start_mount": "start mount",
    "stop_mount": "stop mount", "snapshot": "take snapshot", "begin": "begin session", "renew": "renew session",
    "commit": "commit session", "abandon": "abandon session", "attach_log": "attach log",
    "keep": "keep point", "lock": "lock point", "remove_points": "delete points", "restore": "restore",
    "delete_restore": "delete restore", "release_retention": "release retention", "drill": "start drill",
    "start_job": "start job", "cancel_job": "cancel job", "export": "export mount", "unexport": "end export",
    "add_location": "add location", "remove_location": "remove location", "retry_uploads": "retry uploads",
    "change_keys": "change keys", "rotate_keys": "rotate keys",
    "reset_incidents": "reset incidents", "create_token": "create token", "revoke_token": "revoke token",
}  # fmt: skip
"""What changes something, and what the audit log calls it, as it does for the API."""


@contextmanager
def service(store_path: str, config_path: str, report: Report) -> Iterator[Backend]:
    """The service. ``config_path``: the file that speaks of this store, "" for the defaults.

    Raises what opening a store raises, and InvalidRequest of a configuration that is wrong.
    """
    made = alone.service(store_path, _config(store_path, config_path), report=report)
    try:
        yield cast("Backend", written_down(store_path, made))
    finally:
        made.close()
        made.state.close()


def written_down(store_path: str, inner: object) -> Any:
    """As ``inner``, with what it is told to do in the store's audit log."""
    return _Recorded(inner, Audit(os.path.join(store_path, AUDIT)))


class _Recorded:
    """A ``Backend`` that writes down what it is told to do, and what came of it."""

    def __init__(self, inner: object, audit: Audit) -> None:
        self._inner = inner
        self._audit = audit

    def __getattr__(self, name: str) -> Any:
        if name == "audit":
            return self._lines
        found = getattr(self._inner, name)
        return self._told(found, ACTS[name]) if name in ACTS else found

    def _lines(self, *, after: int = 0, limit: int = 1000) -> Any:
        return self._audit.lines(after, limit)

    def _told(self, call: Callable[..., Any], act: str) -> Callable[..., Any]:
        def run(*arguments: Any, **options: Any) -> Any:
            result = "internal"
            try:
                answer = call(*arguments, **options)
                result = "ok"
                return answer
            except HoldfastError as error:
                result = error.kind.slug
                raise
            finally:
                self._write(act, _about(arguments), result)

        return run

    def _write(self, act: str, about: str, result: str) -> None:
        try:
            self._audit.write(_who(), "command line", act, about, result)
        except HoldfastError as error:  # the act has happened: an error would say that it had not
            log.warning(
                "the audit log could not be written: %s; lost: %s %s %s", error, act, about, result
            )


def _about(arguments: tuple[Any, ...]) -> str:
    """What an act was about: names and ids of what it was told, no content."""
    flat = [name for one in arguments for name in (one if isinstance(one, list) else [one])]
    words = [str(getattr(one, "name", "") or getattr(one, "point", "") or one) for one in flat]
    more = f" and {len(words) - _ABOUT_MAX} others" if len(words) > _ABOUT_MAX else ""
    return " ".join(one for one in words[:_ABOUT_MAX] if not one.startswith("<")) + more


def _who() -> str:
    uid = os.getuid()
    try:
        return f"uid:{uid} ({pwd.getpwuid(uid).pw_name})"
    except KeyError:
        return f"uid:{uid}"


def _config(store_path: str, path: str) -> Config:
    if not path:
        return cast("Config", alone.Unwritten(store_path))
    from daemon.config import load

    return load(path)
