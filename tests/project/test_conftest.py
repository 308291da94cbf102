"""The rules of tests/conftest.py can each fail a test."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def inner(pytester: pytest.Pytester) -> pytest.Pytester:
    """A project of its own under the same rules and settings."""
    pytester.makeconftest((ROOT / "tests" / "conftest.py").read_text())
    settings = (ROOT / "pyproject.toml").read_text()
    start = settings.index("[tool.pytest]")
    end = settings.index("\n[", start)
    pytester.makepyprojecttoml(
        settings[start:end].replace('testpaths = ["tests"]\n', "").replace('"-p", "pytester"', "")
    )
    return pytester


def run(inner: pytest.Pytester, *options: str) -> pytest.RunResult:
    """Run it in a process of its own: hypothesis profiles and loggers are global."""
    return inner.run(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options)


def test_unannounced_warning_fails_the_test(inner: pytest.Pytester) -> None:
    inner.makepyfile(
        """
        import logging

        def test_warns():
            logging.getLogger("holdfast.engine").warning("pack 7 is %s", "damaged")

        def test_informs():
            logging.getLogger("holdfast.engine").info("pack 7 sealed")

        def test_other_logger():
            logging.getLogger("elsewhere").error("not ours")
        """
    )
    result = run(inner)
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(
        ["*unexpected log record: WARNING holdfast.engine: pack 7 is dama*"]
    )


def test_announced_record_passes_and_must_come(inner: pytest.Pytester) -> None:
    inner.makepyfile(
        """
        import logging

        def test_comes(expect_log):
            expect_log("pack .* damaged")
            logging.getLogger("holdfast").error("pack 7 is damaged")
            logging.getLogger("holdfast").error("pack 8 is damaged")

        def test_never_comes(expect_log):
            expect_log("pack .* damaged")

        def test_another_comes(expect_log):
            expect_log("pack 7 damaged")
            logging.getLogger("holdfast").error("pack 7 damaged")
            logging.getLogger("holdfast").error("index torn")
        """
    )
    result = run(inner)
    result.assert_outcomes(passed=1, failed=2)
    result.stdout.fnmatch_lines(["*expected log record never came: pack .* damaged*"])
    result.stdout.fnmatch_lines(["*unexpected log record: ERROR holdfast: index torn*"])


def test_record_of_a_fixture_fails_the_test(inner: pytest.Pytester) -> None:
    inner.makepyfile(
        """
        import logging
        import pytest

        @pytest.fixture
        def closing():
            yield
            logging.getLogger("holdfast").warning("closed late")

        def test_uses(closing):
            pass
        """
    )
    result = run(inner)
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*unexpected log record: WARNING holdfast: closed late*"])


def test_failing_test_shows_its_records_once(inner: pytest.Pytester) -> None:
    inner.makepyfile(
        """
        import logging

        def test_fails():
            logging.getLogger("holdfast").warning("the cause")
            raise ValueError("the effect")
        """
    )
    result = run(inner)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*the effect*", "*holdfast log*", "*WARNING holdfast: the cause*"])


def test_warnings_and_unknown_markers_are_errors(inner: pytest.Pytester) -> None:
    inner.makepyfile(
        test_warning="""
        import warnings

        def test_warns():
            warnings.warn("old", DeprecationWarning)
        """,
        test_unraisable="""
        def test_leaves_a_file_open():
            open(__file__)
        """,
    )
    run(inner).assert_outcomes(failed=2)
    inner.makepyfile(
        test_marker="""
        import pytest

        @pytest.mark.needs_fues
        def test_marked():
            pass
        """
    )
    assert run(inner).ret == pytest.ExitCode.INTERRUPTED


@pytest.mark.parametrize("processes", [(), ("-n", "2")], ids=["one", "several"])
def test_skips_for_want_of_fuse_or_of_namespaces_are_named(
    inner: pytest.Pytester, processes: tuple[str, ...]
) -> None:
    rules = (ROOT / "tests" / "conftest.py").read_text().replace("/dev/fuse", "/dev/no-fuse")
    inner.makeconftest(rules.replace("os.geteuid()", "1000"))
    inner.makepyfile(
        test_some="""
        import pytest

        @pytest.mark.needs_fuse
        def test_mounts():
            raise AssertionError

        @pytest.mark.needs_boot
        def test_boots():
            raise AssertionError

        def test_pure():
            pass
        """
    )
    result = run(inner, *processes)
    result.assert_outcomes(passed=1, skipped=2)
    result.stdout.fnmatch_lines(
        [
            "*1 tests not run: there is no /dev/no-fuse*", "*::test_mounts",
            "*1 tests not run: only root can boot a machine in namespaces*", "*::test_boots",
        ]
    )  # fmt: skip


# A do-nothing file system in a process of its own. It ends when it is unmounted.
SERVE = """
import sys
import pyfuse3, trio

class Nothing(pyfuse3.Operations):
    pass

pyfuse3.init(Nothing(), sys.argv[1], {"fsname=nothing"})
print("mounted", flush=True)
trio.run(pyfuse3.main)
pyfuse3.close(unmount=False)
"""

MOUNT = """
        import subprocess, sys
        import pytest

        def mount(place):
            place.mkdir()
            server = subprocess.Popen(
                [sys.executable, "-W", "ignore", "serve.py", place], stdout=subprocess.PIPE
            )
            assert server.stdout.readline() == b"mounted\\n"
            server.stdout.close()
            return server
"""


@pytest.mark.needs_fuse
def test_mount_left_by_a_test_fails_it_and_is_undone(inner: pytest.Pytester) -> None:
    inner.path.joinpath("serve.py").write_text(SERVE)
    inner.makepyfile(
        MOUNT
        + """
        servers = []

        def test_leaves(tmp_path):
            servers.append(mount(tmp_path / "with space"))

        def test_is_gone():
            assert servers[0].wait(30) == 0
        """
    )
    result = run(inner)
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["*left a FUSE mount behind: */with space"])


@pytest.mark.needs_fuse
@pytest.mark.parametrize("processes", [(), ("-n", "2")], ids=["one", "several"])
def test_mount_left_by_a_wider_fixture_fails_the_run(
    inner: pytest.Pytester, processes: tuple[str, ...]
) -> None:
    inner.path.joinpath("serve.py").write_text(SERVE)
    inner.makepyfile(
        test_wide=MOUNT
        + """
        @pytest.fixture(scope="session")
        def wide(tmp_path_factory):
            return mount(tmp_path_factory.mktemp("wide") / "m")

        def test_first():
            pass

        def test_second(wide):
            wide.returncode = 0  # the run ends before the server does
        """
    )
    result = run(inner, *processes)
    result.assert_outcomes(passed=2)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*/m (first seen after test_wide.py::test_second)"])
    left = subprocess.run(["grep", "-F", str(inner.path), "/proc/self/mountinfo"], text=True)
    assert left.returncode == 1
