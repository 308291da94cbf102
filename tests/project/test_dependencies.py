"""Dependencies: each has a reason, a lock with hashes, and no lock names a place to fetch from."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
LOCKS = {
    "build": ROOT / "requirements-build.lock",
    "run": ROOT / "requirements.lock",
    "dev": ROOT / "requirements-dev.lock",
    "demo": ROOT / "requirements-demo.lock",
}


def asked(text: str) -> dict[str, tuple[Requirement, str]]:
    """Requirements written one a line with their reasons: quoted (toml) or bare (.in)."""
    found = {}
    for line in text.splitlines():
        match = re.fullmatch(r'\s*(?:"(?P<toml>[^"]+)",|(?P<bare>[a-z][^#"]+))\s*(#.*)?', line)
        if match:
            requirement = Requirement(match["toml"] or match["bare"].strip())
            reason = (match[3] or "").partition("# reason: ")[2]
            found[canonicalize_name(requirement.name)] = (requirement, reason)
    return found


def group(name: str) -> dict[str, tuple[Requirement, str]]:
    """What this project asks for itself, for one of the locks."""
    if name == "build":
        return asked((ROOT / "requirements-build.in").read_text())
    key = {"run": "dependencies", "dev": "dev", "demo": "demo"}[name]
    text = (ROOT / "pyproject.toml").read_text()
    match = re.search(rf"^{key} = \[\n(.*?)^\]", text, re.MULTILINE | re.DOTALL)
    assert match, f"pyproject.toml has no list {key}"
    return asked(match[1])


def locked(text: str) -> dict[str, tuple[str, int]]:
    """Name -> exact version and number of hashes, of a lock file; refuses any other line."""
    found: dict[str, tuple[str, int]] = {}
    name = ""
    for line in text.splitlines():
        if match := re.fullmatch(r"([a-z0-9-]+)==([^ ;]+)( ; [^\\]+)? \\", line):
            name = match[1]
            assert name not in found
            found[name] = (match[2], 0)
        elif re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}( \\)?", line):
            found[name] = (found[name][0], found[name][1] + 1)
        else:
            assert re.fullmatch(r"(    )?#.*|", line), f"not a pin, a hash or a comment: {line}"
            assert "://" not in line
    return found


@pytest.mark.parametrize("name", LOCKS)
def test_each_has_a_reason(name: str) -> None:
    requirements = group(name)
    assert requirements
    for requirement, reason in requirements.values():
        assert len(reason.split()) >= 3, f"{requirement}: no reason on its line"


@pytest.mark.parametrize("name", LOCKS)
def test_each_is_locked_with_hashes(name: str) -> None:
    pins = locked(LOCKS[name].read_text())
    for key, (requirement, _) in group(name).items():
        assert key in pins, f"{requirement} is not in {LOCKS[name].name}; run tools/lock"
        assert requirement.specifier.contains(pins[key][0], prereleases=True)
    assert all(hashes for _, hashes in pins.values())


def test_locks_agree() -> None:
    versions: dict[str, str] = {}
    for path in LOCKS.values():
        for name, (version, _) in locked(path.read_text()).items():
            assert versions.setdefault(name, version) == version, f"{name} in {path.name}"


@pytest.mark.parametrize(
    "line",
    [
        "--index-url https://packages.example/simple",
        "--find-links /srv/wheels",
        "thing>=1.0",
        "thing @ https://packages.example/thing.whl",
        "# --extra-index-url https://packages.example/simple",
    ],
)
def test_bad_lock_line_is_found(line: str) -> None:
    with pytest.raises(AssertionError):
        locked(line)


def test_missing_reason_is_found() -> None:
    text = '    "good>=1",  # reason: it does one thing\n    "bad>=1; python_version < \'3.14\'",\n'
    assert {name: reason for name, (_, reason) in asked(text).items()} == {
        "good": "it does one thing",
        "bad": "",
    }
