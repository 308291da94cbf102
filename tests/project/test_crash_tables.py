"""The crash tables of engine/FORMAT.md: each row names what proves it, and that exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tools.torture import registry

ROOT = Path(__file__).resolve().parents[2]


def rows() -> list[tuple[str, str]]:
    """(what died when, what proves it) of every row."""
    text = (ROOT / "engine" / "FORMAT.md").read_text().partition("## Crash tables")[2]
    found = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and cells[0] not in ("died after", "---"):
            found.append((cells[0], cells[-1]))
    return found


@pytest.mark.parametrize(("died", "proof"), rows())
def test_what_proves_a_row_exists(died: str, proof: str) -> None:
    assert proof, died
    for one in re.split(r", ", proof):
        if one.startswith("rig "):
            assert one.removeprefix("rig ") in registry.rigs()
            continue
        path, _, name = one.partition("::")
        tree = ast.parse((ROOT / path).read_text())
        assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_there_are_tables() -> None:
    assert len(rows()) >= 25
