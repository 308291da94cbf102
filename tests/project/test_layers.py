"""Each import contract of pyproject.toml refuses the import it is there to refuse."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# A tree that keeps every contract: each library where it belongs.
GOOD = {
    "engine/__init__.py": "from engine.live import tree",
    "engine/live/__init__.py": "",
    "engine/live/tree.py": "from engine.index import env\nfrom engine.codec import frames",
    "engine/index/__init__.py": "import lmdb",
    "engine/index/env.py": "import lmdb",
    "engine/codec/__init__.py": "from blake3 import blake3",
    "engine/codec/frames.py": "from backports import zstd\nimport backports.zstd as z\n"
    "import pyfastcdc",
    "engine/locations/__init__.py": "",
    "engine/locations/objectstore.py": "import obstore\nfrom obstore.store import S3Store",
    "engine/locations/retention.py": "def late():\n    import boto3\n    from botocore import config",
    "fsmount/__init__.py": "from fsmount import channel",
    "fsmount/channel/__init__.py": "import pyfuse3\nimport trio\nimport engine",
    "daemon/__init__.py": "import engine, fsmount, click, rich",
    "daemon/config/__init__.py": "from daemon import contract",
    "daemon/contract.py": "",
    "daemon/service/__init__.py": "from daemon import config",
    **{
        f"daemon/mounter/{name}.py": ""
        for name in ("__init__", "__main__", "server", "places", "kernel", "wire")
    },
}

BREACHES = [
    ("engine/live/bad.py", "import fsmount", "Layers: daemon -> fsmount -> engine"),
    ("fsmount/bad.py", "import daemon", "Layers: daemon -> fsmount -> engine"),
    ("engine/codec/bad.py", "from engine import index", "Rooms of the engine"),
    ("daemon/config/bad.py", "from daemon import service", "Rooms of the daemon"),
    *(
        ("engine/live/bad.py", f"import {name}", "The engine is synchronous and knows no front end")
        for name in ("trio", "pyfuse3", "click", "rich", "asyncio")
    ),
    ("engine/live/bad.py", "import lmdb", "Only engine.index imports lmdb"),
    ("daemon/bad.py", "import lmdb", "Only engine.index imports lmdb"),
    *(
        ("engine/live/bad.py", line, "Only engine.codec hashes, compresses and cuts")
        for line in (
            "import blake3",
            "from backports import zstd",
            "import backports.zstd",
            "import compression.zstd",
            "import pyfastcdc",
            "import pyzstd",
        )
    ),
    *(
        (
            "engine/locations/bad.py",
            f"def late():\n    import {name}",
            "Only engine.locations.objectstore imports obstore, only engine.locations.retention boto3",
        )
        for name in ("obstore", "boto3", "botocore")
    ),
    (
        "fsmount/bad.py",
        "from blake3 import blake3",
        "Only engine.codec hashes, compresses and cuts",
    ),
    ("fsmount/bad.py", "import pyfuse3", "Only fsmount.channel imports pyfuse3"),
    (
        "daemon/mounter/server.py",
        "import engine",
        "What runs as root is the mounter and the standard library",
    ),
    ("daemon/bad.py", "def late():\n    import pyfuse3", "Only fsmount.channel imports pyfuse3"),
]


def lint(root: Path, files: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run the linter with this project's contracts over a tree of these files."""
    for path, text in files.items():
        place = root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    shutil.copy(ROOT / "pyproject.toml", root)
    program = Path(sys.executable).with_name("lint-imports")
    return subprocess.run(
        [program, "--no-logo", "--no-cache"],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root), "COLUMNS": "100"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def broken(output: str) -> list[str]:
    """Names of the contracts the linter calls broken."""
    return [line.split(" BROKEN")[0] for line in output.splitlines() if " BROKEN" in line]


def test_good_tree_keeps_all(tmp_path: Path) -> None:
    result = lint(tmp_path, GOOD)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(("path", "text", "contract"), BREACHES)
def test_breach_is_refused(tmp_path: Path, path: str, text: str, contract: str) -> None:
    result = lint(tmp_path, GOOD | {path: text})
    assert result.returncode == 1, result.stdout + result.stderr
    assert contract in broken(result.stdout)
