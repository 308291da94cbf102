"""Text of others on its way into logs: one line, printable, without our secrets."""

from __future__ import annotations

import re

_SECRETS = (
    # A token is hf_ID_SECRET: the id says which it was, and is no secret.
    (re.compile(r"\bhf_([0-9A-Za-z]{1,64})_[0-9A-Za-z]{8,}"), r"hf_\1_***"),
    (re.compile(r"(?i)\b(bearer|basic)(\s+)[0-9A-Za-z._~+/=-]{8,}"), r"\1\2***"),
)


def printable(text: str, most: int) -> str:
    """The text with escapes for control characters and what else cannot be shown; at most so many characters."""
    if not text.isprintable():
        text = "".join(char if char.isprintable() else _escape(char) for char in text[:most])
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _escape(char: str) -> str:
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return char.encode("unicode_escape").decode("ascii")


def masked(text: str) -> str:
    """The text with the secrets of tokens taken out."""
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    return text
