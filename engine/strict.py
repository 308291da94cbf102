"""JSON read strictly: every field there, none beside them, each of its type and within its bounds."""

from __future__ import annotations

import base64
import json
import math
import re
from typing import Any, NoReturn

from engine import limits
from engine.errors import Corrupt, FormatTooNew

U32, I63 = 2**32 - 1, 2**63 - 1
_HEX = re.compile("(?:[0-9a-f]{2})*")


def dump(value: object) -> bytes:
    """Canonical JSON: keys sorted, no white space, ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def refuse(what: str, expected: str, found: object) -> NoReturn:
    raise Corrupt(what, expected=expected, found=ascii(found)[:80])


def parse(raw: bytes, what: str) -> Any:
    """The value of JSON text without NaN, without a name twice in an object, not too deep. Raises Corrupt."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError
        return found

    def no_constant(_: str) -> NoReturn:
        raise ValueError

    def finite(text: str) -> float:  # 1e999 is JSON, and is no number that could be written again
        if not math.isfinite(number := float(text)):
            raise ValueError
        return number

    try:
        value = json.loads(
            raw, object_pairs_hook=once, parse_constant=no_constant, parse_float=finite
        )
    except (ValueError, RecursionError):
        refuse(what, "JSON", "something else")
    check_depth(value, what)
    return value


def check_depth(value: Any, what: str) -> None:
    """Refuse lists and objects deeper within each other than ``JSON_DEPTH_MAX``."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(limits.JSON_DEPTH_MAX):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return
    refuse(what, f"at most {limits.JSON_DEPTH_MAX} levels", "more")


class Fields:
    """The fields of one JSON object, taken by their types."""

    def __init__(self, value: Any, what: str, names: tuple[str, ...]) -> None:
        self._what = what
        if not isinstance(value, dict):
            refuse(what, "an object", type(value).__name__)
        self._value: dict[str, Any] = value
        if missing := set(names) - value.keys():
            refuse(what, f"the field {min(missing)}", "none")
        if more := value.keys() - set(names):
            raise FormatTooNew(
                what, expected=", ".join(names), found=ascii(min(more))[:80],
                do="use the Holdfast that wrote it",
            )  # fmt: skip

    def has(self, name: str) -> bool:
        """Of a field that need not be there."""
        return name in self._value

    def number(self, name: str, least: int, most: int) -> int:
        return number(self._value[name], least, most, f"{name} of {self._what}")

    def text(self, name: str, most: int) -> str:
        found = self._value[name]
        if not isinstance(found, str) or len(found) > most or not _encodes(found):
            refuse(f"{name} of {self._what}", f"text of at most {most} characters", found)
        return found

    def digits(self, name: str, size: int) -> bytes:
        return digits(self._value[name], size, f"{name} of {self._what}")

    def data(self, name: str, size: int) -> bytes:
        return decoded(self._value[name], size, f"{name} of {self._what}")

    def free(self, name: str, most: int) -> dict[str, Any]:
        """An object whose fields are somebody else's, of at most so many bytes."""
        found = self._value[name]
        if not isinstance(found, dict) or len(dump(found)) > most:
            refuse(f"{name} of {self._what}", f"an object of {most} bytes", type(found).__name__)
        return found

    def items(self, name: str, least: int, most: int) -> list[Any]:
        found = self._value[name]
        if not isinstance(found, list) or not least <= len(found) <= most:
            refuse(f"{name} of {self._what}", f"{least} to {most} of them", type(found).__name__)
        return found

    def mapping(self, name: str, most: int) -> dict[str, Any]:
        found = self._value[name]
        if not isinstance(found, dict) or len(found) > most:
            refuse(f"{name} of {self._what}", f"an object of {most}", type(found).__name__)
        return found


def _encodes(text: str) -> bool:
    return not any("\ud800" <= one <= "\udfff" for one in text)


def number(found: Any, least: int, most: int, what: str) -> int:
    if type(found) is not int or not least <= found <= most:
        refuse(what, f"a number from {least} to {most}", type(found).__name__)
    return int(found)


def digits(found: Any, size: int, what: str) -> bytes:
    """Bytes written as hex digits."""
    if not isinstance(found, str) or len(found) != 2 * size or not _HEX.fullmatch(found):
        refuse(what, f"{2 * size} hex digits", found)
    return bytes.fromhex(found)


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def decoded(found: Any, size: int, what: str) -> bytes:
    """Bytes written as base64, in the one way that is right."""
    data = b""
    if isinstance(found, str) and len(found) <= 2 * size + 4:
        try:
            data = base64.b64decode(found, validate=True)
        except ValueError:
            data = b""
    if len(data) != size or encoded(data) != found:
        refuse(what, f"{size} bytes in base64", found)
    return data
