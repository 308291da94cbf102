"""The contract's values as JSON, and back; the errors too. What both ends of the native API have in common.

Text that is not UTF-8 (surrogate escapes, in paths) goes as ``\\udcXX``: the JSON is ASCII and loses nothing.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import types
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from engine.errors import TABLE, HoldfastError, InvalidRequest, LocationUnavailable

ABOUT = "X-Holdfast-About"
"""The header of a download with the value it is the content of, as JSON."""

T = TypeVar("T")


def plain(value: Any) -> Any:
    """A value of the contract as lists, dicts, text and numbers."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {each.name: plain(getattr(value, each.name)) for each in dataclasses.fields(value)}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return {name: plain(each) for name, each in zip(value._fields, value, strict=True)}
    if isinstance(value, Mapping):
        return {str(name): plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return value


def encoded(value: Any) -> bytes:
    """A value as JSON."""
    return json.dumps(plain(value), allow_nan=False).encode("ascii")


def decoded(kind: type[T], raw: bytes) -> T:
    """JSON as a value of type ``kind``. Raises LocationUnavailable: it is no answer of a Holdfast."""
    try:
        return cast(T, revive(kind, json.loads(raw)))
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise LocationUnavailable(
            "answer of the daemon", expected=f"JSON of {kind}", found=f"{type(error).__name__}: {error}",
            do="see that the address is a Holdfast's, of this version or newer",
        ) from None  # fmt: skip


@functools.cache
def fields_of(kind: Any) -> dict[str, Any]:
    """Names and types of a dataclass or a named tuple."""
    return {name: each for name, each in get_type_hints(kind).items() if not name.startswith("_")}


def is_record(kind: Any) -> bool:
    """Is it a dataclass or a named tuple?"""
    return isinstance(kind, type) and (dataclasses.is_dataclass(kind) or hasattr(kind, "_fields"))


def revive(kind: Any, value: Any) -> Any:
    """Plain data as a value of type ``kind``. Fields it does not know are left out. Raises TypeError, KeyError."""
    origin = get_origin(kind)
    if kind is Any:
        return value
    if is_record(kind):
        known = fields_of(kind)
        return kind(
            **{
                name: revive(known[name], each)
                for name, each in _dict(value).items()
                if name in known
            }
        )
    if origin is list:
        return [revive(get_args(kind)[0], each) for each in _exactly(value, list)]
    if origin is dict:
        return {name: revive(get_args(kind)[1], each) for name, each in _dict(value).items()}
    if origin is tuple:
        return tuple(
            revive(each, one)
            for each, one in zip(get_args(kind), _exactly(value, list), strict=True)
        )
    if origin in (Union, types.UnionType):
        return next(value for each in get_args(kind) if isinstance(value, each))
    if origin is not None and is_record(origin):  # Page[T]
        return origin(
            items=[revive(get_args(kind)[0], each) for each in _exactly(value["items"], list)],
            cursor=str(value["cursor"]),
        )
    if origin is Literal:
        return _exactly(value, str)
    if kind is float:
        return float(_exactly(value, float | int))
    if kind is None or kind is type(None):
        return None
    return _exactly(value, kind)


def _dict(value: Any) -> dict[str, Any]:
    found: dict[str, Any] = _exactly(value, dict)
    return found


def _exactly(value: Any, kind: Any) -> Any:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise TypeError(f"expected {kind}, found {type(value).__name__}")
    return value


def revived_error(found: Any, status: int) -> HoldfastError:
    """The error a problem tells of, as the class of its kind."""
    known = found if isinstance(found, dict) else {}
    detail = str(known.get("detail", "")) or f"the daemon answered with HTTP status {status}"
    reference = known.get("reference")
    if reference:
        detail += f" (reference {reference})"
    for each in TABLE:
        if each.kind.slug == known.get("kind") or (not known and each.kind.http == status):
            return each(detail)
    return InvalidRequest(detail) if 400 <= status < 500 else HoldfastError(detail)
