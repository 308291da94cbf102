"""Reading the file: every error in it at once, each with its line, its key, what was found and what is allowed."""

from __future__ import annotations

import difflib
import json
import re
import tomllib
import typing
from importlib import resources
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError

from daemon.config import checks
from daemon.config.lines import Key, lines, nearest
from daemon.config.models import Config
from engine.errors import InvalidRequest, NotFound, from_os

SIZE_MAX = 1 << 20  # bytes: ten thousand mounts fit
_FOUND_MAX = 80  # characters of a value that an error shows
_KINDS = {
    "string_type": "text in quotes",
    "int_type": "a whole number",
    "bool_type": "true or false",
    "list_type": "a list in brackets",
    "dict_type": "a table",
    "model_type": "a table",
}


class Problem(NamedTuple):
    """One error of a file. ``text`` names the key."""

    file: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.text}"


class InvalidConfig(InvalidRequest):
    """A file that cannot be taken: all its ``problems`` in the order of their lines."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = sorted(problems, key=lambda one: one.line)
        super().__init__("; ".join(map(str, self.problems)))


def load(path: str) -> Config:
    """The configuration in a file. Raises InvalidConfig, and NotFound and its like where there is no such file."""
    try:
        with open(path, "rb") as file:
            raw = file.read(SIZE_MAX + 1)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(
            f"configuration {path}", expected="a TOML file", found="none",
            do="write one ('holdfast config example' prints one) or name another",
        ) from None  # fmt: skip
    except (IsADirectoryError, ValueError):
        raise InvalidRequest(
            f"configuration {path!r}", expected="a TOML file", do="name another"
        ) from None
    except PermissionError:
        raise InvalidRequest(
            f"configuration {path}", expected="a file this user may read", do="change its mode"
        ) from None
    except OSError as error:
        raise from_os(error, f"configuration {path}") from None
    return read(raw, path)


def read(raw: bytes, path: str) -> Config:
    """The configuration in the bytes of a file of that name. Raises InvalidConfig."""
    text = _text(raw, path)
    try:
        document = tomllib.loads(text)
    except RecursionError:
        raise InvalidConfig([Problem(path, 1, "lists and tables nested too deep")]) from None
    except ValueError as error:
        raise InvalidConfig([_syntax(error, text, path)]) from None
    try:
        config = Config.model_validate(document)
        found = checks.problems(config)
        if not found:
            return config
    except ValidationError as error:
        found = [_said(one) for one in error.errors(include_url=False)]
    places = lines(text)
    raise InvalidConfig([Problem(path, nearest(places, key), said) for key, said in found])


def example() -> str:
    """A file with every key, its default and its reason."""
    return resources.files("daemon.config").joinpath("example.toml").read_text(encoding="utf-8")


def _text(raw: bytes, path: str) -> str:
    if len(raw) > SIZE_MAX:
        raise InvalidConfig([Problem(path, 1, f"expected at most {SIZE_MAX} bytes, found more")])
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        said = f"expected UTF-8, found the byte 0x{raw[error.start]:02x}"
        raise InvalidConfig([Problem(path, line, said)]) from None


def _syntax(error: ValueError, text: str, path: str) -> Problem:
    said = str(error)
    place = re.fullmatch(
        r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)", said, re.DOTALL
    )
    if not place:  # a number of more digits than Python reads
        return Problem(path, 1, f"no TOML: {_cut(said)}")
    line = int(place[2]) if place[2] else text.count("\n") + (not text.endswith("\n"))
    where = f"column {place[3]}" if place[3] else "the end of the file"
    return Problem(path, max(line, 1), f"no TOML at {where}: {_cut(place[1])}")


def _said(error: Any) -> tuple[Key, str]:
    """Which key pydantic complains about, and the complaint in our words."""
    key: Key = tuple(part for part in error["loc"] if part != "[key]")
    what = dotted(key)
    found = _cut(_plain(error["input"]))
    match error["type"]:
        case "extra_forbidden":
            known = _known(key[:-1])
            near = difflib.get_close_matches(str(key[-1]), known, 1, 0.5)
            expected = f"one of {', '.join(known)}"
            hint = f"; did you mean {near[0]}?" if near else ""
            return key, f"{what}: unknown key{hint or f', expected {expected}'}"
        case "missing":
            return key, f"{what}: expected a value, found none; write it"
        case "value_error":
            expected = str(error["ctx"]["error"])
        case "literal_error":
            expected = str(error["ctx"]["expected"])
            near = difflib.get_close_matches(
                str(error["input"]), re.findall(r"'(.*?)'", expected), 1
            )
            found += f"; did you mean {near[0]}?" if near else ""
        case kind:
            expected = _KINDS.get(kind) or _cut(error["msg"])
    return key, f"{what}: expected {expected}, found {found}"


def _known(key: Key) -> list[str]:
    """The keys the table at that place may have."""
    kind: Any = Config
    for part in key:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            kind = kind.model_fields[str(part)].annotation
        else:
            kind = typing.get_args(kind)[-1]
    return list(kind.model_fields)


def dotted(key: Key) -> str:
    """A key as it would be written: ``mounts.oracle.path``."""
    parts = [
        f"[{part}]" if isinstance(part, int)
        else "." + (part if re.fullmatch(r"[A-Za-z0-9_-]{1,64}", part) else _cut(json.dumps(part)))
        for part in key
    ]  # fmt: skip
    return "".join(parts).lstrip(".")


def _plain(value: object) -> str:
    if isinstance(value, bool | str):
        return json.dumps(value)
    if isinstance(value, int) and value.bit_length() > 256:
        return "a number of very many digits"
    return "a table" if isinstance(value, dict) else repr(value)


def _cut(text: str) -> str:
    text = "".join(char if char.isprintable() else f"\\u{ord(char):04x}" for char in text)
    return text if len(text) <= _FOUND_MAX else f"{text[:_FOUND_MAX]}…"
