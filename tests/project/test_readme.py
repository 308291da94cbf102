"""The README is true: its commands run, its output is what they print, its links lead somewhere."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

from tests.project import walk

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()


def environment() -> dict[str, str]:
    """This one, with the programs of the running Python first, and no store named."""
    own = {key: value for key, value in os.environ.items() if not key.startswith("HOLDFAST_")}
    own["PATH"] = f"{Path(sys.executable).parent}:{own['PATH']}"
    return own


@pytest.mark.needs_fuse
def test_commands_print_what_the_readme_says(tmp_path: Path) -> None:
    assert len(walk.steps(README)) > 15
    complaints = walk.walk(README, tmp_path, environment(), timeout=60)
    assert not complaints, complaints[0]


def test_links_and_scripts_exist() -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
    scripts = set(re.findall(r"\./(tools/\w+)", README))
    assert scripts >= {"tools/demo", "tools/test"}
    assert [name for name in sorted(scripts) if not os.access(ROOT / name, os.X_OK)] == []


PAGE = """
```console
$ word=held
$ echo $word fast; echo 12 ms >&2
held fast
… ms
$ seq 5
1
…
5
```
```sh
exit 1
```
```console
$ echo $word
{last}
```
"""


def test_a_true_page_has_no_complaint(tmp_path: Path) -> None:
    assert walk.walk(PAGE.format(last="held"), tmp_path, environment(), timeout=10) == []


@pytest.mark.parametrize("last", ["", "hel", "held\nheld", "h…x"])
def test_other_output_is_found(tmp_path: Path, last: str) -> None:
    (complaint,) = walk.walk(PAGE.format(last=last), tmp_path, environment(), timeout=10)
    assert complaint.startswith("line 16: $ echo $word\nexpected:")


def test_failing_command_is_found(tmp_path: Path) -> None:
    page = "```console\n$ echo one; false\none\n```\n"
    (complaint,) = walk.walk(page, tmp_path, environment(), timeout=10)
    assert "exit status 1" in complaint


def test_hanging_command_is_found(tmp_path: Path) -> None:
    with pytest.raises(TimeoutError):
        walk.walk("```console\n$ tail -f /dev/null\n```\n", tmp_path, environment(), timeout=0.2)
