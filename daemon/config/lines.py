"""In which line of a TOML file a key was given its value; tomllib tells only where a syntax error is.

A file is statements, each of whole lines, and each parses alone: a header gives an empty table, a key its value.  So
tomllib itself says where a statement ends (the first line with which it parses) and what it names.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from typing import Any

Key = tuple[str | int, ...]
"""The way to a value: keys of tables and positions in lists."""


def lines(text: str) -> dict[Key, int]:
    """Every key, table and list item of a text that tomllib has read, with its line, from 1."""
    found: dict[Key, int] = {}
    lengths: dict[Key, int] = {}  # of lists of tables, as far as they are read
    table: Key = ()
    rows = text.replace("\r\n", "\n").split("\n")
    start = 0
    while start < len(rows):
        end, value = _statement(rows, start)
        way, leaf = _way(value)
        if rows[start].lstrip().startswith("["):
            table = _resolve(way, lengths)
            if isinstance(leaf, list):
                lengths[table] = lengths.get(table, 0) + 1
                found.setdefault(table, start + 1)
                table = (*table, lengths[table] - 1)
            _note(found, table, start + 1)
        elif way:
            _note(found, (*table, *way), start + 1)
            for key, line in _inner(rows, start, end, way):
                found.setdefault((*table, *key), line)
        start = end
    return found


def nearest(found: dict[Key, int], key: Key) -> int:
    """The line of a key, or of the innermost table around it that has one; 1 for the file."""
    while key and key not in found:
        key = key[:-1]
    return found.get(key, 1)


def _statement(rows: list[str], start: int) -> tuple[int, dict[str, Any]]:
    for end in range(start + 1, len(rows) + 1):
        try:
            return end, tomllib.loads("\n".join(rows[start:end]))
        except tomllib.TOMLDecodeError:
            continue
    return len(rows), {}


def _way(value: dict[str, Any]) -> tuple[Key, Any]:
    """``a.b = 1`` alone is one key in one key, ``[[a.b]]`` a list of one empty table."""
    way: list[str | int] = []
    leaf: Any = value
    while isinstance(leaf, dict) and len(leaf) == 1:
        (key,) = leaf
        way.append(key)
        leaf = leaf[key]
    return tuple(way), leaf


def _resolve(way: Key, lengths: dict[Key, int]) -> Key:
    """In a header a list of tables stands for its last one."""
    done: Key = ()
    for number, part in enumerate(way):
        done = (*done, part)
        if done in lengths and number < len(way) - 1:
            done = (*done, lengths[done] - 1)
    return done


def _note(found: dict[Key, int], key: Key, line: int) -> None:
    for length in range(1, len(key) + 1):
        found.setdefault(key[:length], line)


def _inner(rows: list[str], start: int, end: int, way: Key) -> Iterator[tuple[Key, int]]:
    """What is inside a value: a list over several lines is closed after each of them, to see what came with it."""
    for last in range(start + 1, end + 1):
        closing = "\n]" if last < end else ""
        try:
            value: Any = tomllib.loads("\n".join(rows[start:last]) + closing)
        except tomllib.TOMLDecodeError:
            continue
        for part in way:
            value = value.get(part) if isinstance(value, dict) else None
        for key in _leaves(value):
            yield (*way, *key), last


def _leaves(value: Any) -> Iterator[Key]:
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for key, one in items:
        yield (key,)
        for inner in _leaves(one):
            yield (key, *inner)
