"""Each check of tools/tidy.py finds what it is for, and nothing else."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tools import tidy

ROOT = Path(__file__).resolve().parents[2]
Found = Callable[..., list[str]]


@pytest.fixture
def found(tmp_path: Path) -> Found:
    """Write files (path=text), run one check on the tree of them, give its findings as lines."""

    def run(check: tidy.Check, files: dict[str, str]) -> list[str]:
        for path, text in files.items():
            place = tmp_path / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text)
        return [str(finding) for finding in check(tidy.read_tree(tmp_path))]

    return run


def test_module_budget(found: Found, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "engine/fits.py": "x = 1\n" * 400,
        "engine/long.py": "x = 1\n" * 401,
        "tools/reasoned.py": "x = 1\n" * 600,
        "tests/too_long.py": "x = 1\n" * 601,
    }
    table = {"tools/reasoned.py": "one table", "tests/too_long.py": "no reason is good enough"}
    monkeypatch.setattr(tidy, "LONG_MODULES", table)
    assert found(tidy.long_modules, files) == [
        "engine/long.py:1: 401 lines; over 400 needs a reason in tools/tidy.py",
        "tests/too_long.py:1: 601 lines; at most 600",
    ]


def test_stale_and_empty_reasons_are_found(found: Found, monkeypatch: pytest.MonkeyPatch) -> None:
    table = {"engine/long.py": "", "engine/short.py": "was long", "engine/gone.py": "was long"}
    monkeypatch.setattr(tidy, "LONG_MODULES", table)
    files = {"engine/long.py": "x = 1\n" * 401, "engine/short.py": "x = 1\n"}
    assert found(tidy.long_modules, files) == [
        "engine/long.py:1: 401 lines; over 400 needs a reason in tools/tidy.py",
        "tools/tidy.py:1: LONG_MODULES names engine/short.py, which is not long",
        "tools/tidy.py:1: LONG_MODULES names engine/gone.py, which is not long",
    ]


def test_function_budget(found: Found) -> None:
    def source(name: str, lines: int) -> str:
        return f"{name}():\n" + "    x = 1\n" * (lines - 1)

    text = source("def fits", 70) + source("def long", 71)
    text += "class C:\n    @property\n    " + source("async def waits", 80).replace(
        "    x", "        x"
    )
    assert found(tidy.long_functions, {"engine/a.py": text}) == [
        "engine/a.py:71: long() has 71 lines; at most 70",
        "engine/a.py:144: waits() has 80 lines; at most 70",
    ]


def test_star_import(found: Found) -> None:
    text = "from os import path\nfrom os.path import *\n"
    assert found(tidy.star_imports, {"daemon/a.py": text}) == [
        "daemon/a.py:2: star import of os.path"
    ]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("def read_blob(): ...", "read_blob"),
        ("class BlobStore: ...", "BlobStore"),
        ("def f(archives): ...", "archives"),
        ("self.archive = 1", "archive"),
        ("import chunk as blob", "blob"),
        ("for Backup in (): ...", "Backup"),
        ("blobs: list = []", "blobs"),
    ],
)
def test_banned_word_in_a_name(found: Found, text: str, name: str) -> None:
    (line,) = found(tidy.banned_words, {"engine/a.py": text})
    assert line.startswith(f"engine/a.py:1: the name {name} ")


def test_banned_word_in_a_file_name(found: Found) -> None:
    (line,) = found(tidy.banned_words, {"engine/blob.py": ""})
    assert line.startswith("engine/blob.py:1: the name blob ")


def test_words_that_only_look_banned(found: Found) -> None:
    text = "archival = backup_label = shutil.make_archive\n'blob'\nf(print_blob=True)\n"
    assert found(tidy.banned_words, {"engine/a.py": text}) == []


def test_cycle(found: Found) -> None:
    files = {
        "engine/__init__.py": "from engine.a import x",
        "engine/a.py": "from engine import b, errors",
        "engine/b.py": "def late():\n    import engine.c",
        "engine/c.py": "from . import a",
        "engine/errors.py": "",
    }
    assert found(tidy.cycles, files) == [
        "engine/c.py:1: cycle: engine.a -> engine.b -> engine.c -> engine.a"
    ]


def test_facade_cycle(found: Found) -> None:
    files = {"engine/__init__.py": "from engine.a import A", "engine/a.py": "from engine import A"}
    assert found(tidy.cycles, files) == ["engine/a.py:1: cycle: engine -> engine.a -> engine"]


def test_dead_file(found: Found) -> None:
    files = {
        "pyproject.toml": '[project.scripts]\nx = "daemon.main:main"\n[tool.x]\ny = "engine.dead"',
        "tools/run": "exec python -m tools.run_module\n",
        "Makefile": "bench:\n\tpython tools/script.py\n",
        "notes.md": "engine.dead is described here",
        "engine/__init__.py": "",
        "engine/used.py": '"""Not engine.dead either."""',
        "engine/dead.py": "",
        "engine/only_tested.py": "",
        "daemon/main.py": "import engine.used\nSTART = ['-m', 'fsmount.worker']",
        "fsmount/worker.py": "",
        "tools/__init__.py": "",
        "tools/run_module.py": "",
        "tools/script.py": "",
        "tools/tested_tool.py": "",
        "tools/dead_tool.py": "",
        "tests/conftest.py": "",
        "tests/test_a.py": "from tools import tested_tool\nfrom engine import only_tested",
        "tests/helper.py": "",
    }
    assert found(tidy.dead_files, files) == [
        "engine/dead.py:1: used by nothing but its tests",
        "engine/only_tested.py:1: used by nothing but its tests",
        "tests/helper.py:1: used by nothing at all",
        "tools/dead_tool.py:1: used by nothing at all",
    ]


def test_command_prints_findings_and_fails(tmp_path: Path) -> None:
    (tmp_path / "engine").mkdir()
    (tmp_path / "engine" / "blob.py").write_text("from os import *\n")
    command = [sys.executable, "-m", "tools.tidy", str(tmp_path)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stdout.count("engine/blob.py:1: ") == 3
    (tmp_path / "engine" / "blob.py").unlink()
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == 0
