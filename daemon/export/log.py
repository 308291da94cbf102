"""What NFS-Ganesha's log says went wrong, and with which export."""

from __future__ import annotations

import re
from collections.abc import Sequence

from daemon.export.plan import Planned

KEEP = 1 << 20  # bytes of a log worth keeping when the server starts again
_LINE = re.compile(r"\[[^\]]*\] (\w+) :([^:]+?) ?:(FATAL|MAJ|CRIT) ?:(.*)")
_AT = re.compile(r"Config File \([^()]*:(\d+)\): (.*)")
_NOISE = re.compile(r"dbus|krb5|keytab|RADOS", re.IGNORECASE)
_VAGUE = re.compile(
    r"Errors processing block|validation errors in block|errors? found block|errors while processing"
)


def troubles(text: str) -> list[str]:
    """Messages of errors, without those of what is not used here."""
    found = []
    for line in text.splitlines():
        match = _LINE.search(line)
        if match and not _NOISE.search(line):
            found.append(match[4].strip())
    return found


def blamed(messages: Sequence[str], config: str, exports: Sequence[Planned]) -> dict[str, str]:
    """The first message about each export that did not come to be, by path."""
    found: dict[str, str] = {}
    for message in messages:
        at = _AT.match(message)
        path = _block(config, int(at[1])) if at else _named(message, exports)
        if path and not _VAGUE.search(message):
            found.setdefault(path, at[2] if at else message)
        elif path and at:
            found.setdefault(path, "its block of the configuration is refused")
    return found


def _named(message: str, exports: Sequence[Planned]) -> str:
    for one in sorted(exports, key=lambda one: -len(one.path)):
        if re.search(rf"(?<![\w/.-]){re.escape(one.path)}(?![\w/.-])", message):
            return one.path
    return ""


def _block(config: str, line: int) -> str:
    """The path of the export whose block that line is in."""
    lines = config.splitlines()
    start = next(
        (at for at in range(min(line, len(lines)) - 1, -1, -1) if lines[at] == "EXPORT {"), -1
    )
    for text in lines[start + 1 :] if start >= 0 else ():
        if match := re.match(r'\s*Path = "(.*)";', text):
            return match[1]
    return ""
