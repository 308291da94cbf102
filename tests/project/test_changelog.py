"""Changelog fragments have the shape that changelog/README.md asks for."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

CHANGELOG = Path(__file__).resolve().parents[2] / "changelog"
SHAPE = re.compile(
    r"# (Added|Changed|Fixed|Removed|Security): [^\n]+[^\n.]\n\n[^\n#](.|\n)*[.]\n", re.ASCII
)


def complaint(name: str, text: str) -> str:
    """What is wrong with a fragment; empty when nothing is."""
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*[.]md", name):
        return "the name is not lower-case-words.md"
    if not SHAPE.fullmatch(text):
        return "not '# Kind: one sentence', an empty line, and what the user has to know"
    return ""


@pytest.mark.parametrize("path", sorted(CHANGELOG.glob("*/*")), ids=lambda path: path.name)
def test_fragment(path: Path) -> None:
    assert complaint(path.name, path.read_text()) == ""


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("Some.md", "# Fixed: it works\n\nIt does.\n"),
        ("some.txt", "# Fixed: it works\n\nIt does.\n"),
        ("some.md", "# Improved: it works\n\nIt does.\n"),
        ("some.md", "# Fixed: it works.\n\nIt does.\n"),
        ("some.md", "# Fixed: it works\n"),
        ("some.md", "It does.\n"),
    ],
)
def test_bad_fragment_is_found(name: str, text: str) -> None:
    assert complaint(name, text)
