"""Tables of the file, written: for whoever is to put them into it."""

from __future__ import annotations

import json
from typing import Any

from daemon.config.models import Mount


def mount_table(name: str, mount: Mount) -> str:
    """The table of a mount, without what is the default anyway."""
    told = mount.model_dump(mode="json", exclude_defaults=True)
    lines = [f"[mounts.{_text(name)}]", *(f"{key} = {_value(value)}" for key, value in told.items())]  # fmt: skip
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    match value:
        case dict():
            inside = ", ".join(f"{_text(key)} = {_value(one)}" for key, one in value.items())
            return f"{{ {inside} }}" if inside else "{}"
        case list():
            return "[" + ", ".join(map(_value, value)) + "]"
        case str():
            return _text(value)
        case _:
            return json.dumps(value)


def _text(text: str) -> str:
    """A basic string: as JSON has it, but for characters beyond U+FFFF, which stand for themselves, and DEL."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
