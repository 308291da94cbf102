"""What is mounted where, by the kernel's own table."""

from __future__ import annotations

from pathlib import Path


def mounts_below(path: Path, table: str | None = None) -> list[Path]:
    """Mount points at or below `path`, deepest first, from the kernel's table (or from `table`,
    text in the format of /proc/self/mountinfo).
    """
    if table is None:
        table = Path("/proc/self/mountinfo").read_text(errors="surrogateescape")
    found = []
    for line in table.splitlines():
        fields = line.split(" ")
        if len(fields) > 4:
            point = Path(_unescaped(fields[4]))
            if point == path or path in point.parents:
                found.append(point)
    return sorted(found, key=lambda point: len(point.parts), reverse=True)


def _unescaped(field: str) -> str:
    """A mountinfo field with its octal escapes (space, tab, newline, backslash) put back."""
    for plain in " \t\n":
        field = field.replace(f"\\{ord(plain):03o}", plain)
    return field.replace("\\134", "\\")
