"""What is installed works where it is: the wheel with its data files, ``make install``, the manual pages."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
import venv
from pathlib import Path

import click
import pytest

from daemon.cli import manual
from daemon.cli.main import cli
from daemon.config import example
from tools import install

LIMIT = 240  # s: other tests may be at work beside


def run(*command: object, **environment: str) -> str:
    """What a command that must succeed prints, in an environment with none of ours."""
    done = subprocess.run(
        [str(one) for one in command], capture_output=True, text=True, check=False, timeout=LIMIT, cwd="/",
        env={"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "LC_ALL": "C.UTF-8", **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_wheel_has_its_data_files_and_its_command_finds_them(tmp_path: Path) -> None:
    wheel = install.build_wheel(tmp_path)
    home = tmp_path / "venv"
    venv.EnvBuilder(with_pip=False).create(home)
    python = home / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index",
        "--no-input", "--disable-pip-version-check", wheel)  # fmt: skip
    (site,) = home.glob("lib/python*/site-packages")
    assert (site / "daemon" / "cli" / "units" / "holdfast.service").is_file()
    # The dependencies of the running Python; its own editable installation stays out of it.
    (site / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    holdfast = home / "bin" / "holdfast"
    version = tomllib.loads((install.ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert run(holdfast, "--version") == f"holdfast, version {version}\n"
    assert run(holdfast, "config", "example") == example()
    where = run(python, "-c", "import daemon.cli; print(daemon.cli.__file__)").strip()
    assert Path(where).is_relative_to(site)
    run(holdfast, "install-files", "--prefix", tmp_path / "prefix")
    unit = (tmp_path / "prefix/lib/systemd/system/holdfast.service").read_text()
    assert f"ExecStart={holdfast} serve" in unit
    assert (
        f"ExecStart={python} -I"
        in (tmp_path / "prefix/lib/systemd/system/holdfast-mounter.service").read_text()
    )


@pytest.mark.slow
def test_an_installation_stands_on_its_own(tmp_path: Path) -> None:
    destdir = tmp_path / "package"
    python = install.interpreter(sys.executable, checked=False)
    install.install("/opt/hf", str(destdir), python)
    install.install("/opt/hf", str(destdir), python)  # again: an upgrade
    below = destdir / "opt" / "hf"
    files = {
        str(path.relative_to(below))
        for path in below.rglob("*")
        if "/site-packages/" not in str(path)
    }
    assert files >= {
        "bin/holdfast", "lib/holdfast/bin/python", "lib/systemd/system/holdfast.service",
        "lib/systemd/system/holdfast-mounter.socket", "lib/sysusers.d/holdfast.conf", "lib/tmpfiles.d/holdfast.conf",
        "share/man/man1/holdfast.1", "share/man/man1/holdfast-token-create.1", "share/man/man5/holdfast.toml.5",
        "share/bash-completion/completions/holdfast", "share/holdfast/holdfast.toml",
    }  # fmt: skip
    assert [path.name for path in (below / "lib").iterdir() if "holdfast" in path.name] == [
        "holdfast"
    ]
    for path in below.rglob("*"):  # nothing in it knows where it was put together
        if path.is_file() and not path.is_symlink() and path.stat().st_size < 1 << 20:
            assert os.fsencode(tmp_path) not in path.read_bytes(), path
    installed = below / "lib" / "holdfast" / "bin" / "python"
    holdfast = below / "lib" / "holdfast" / "bin" / "holdfast"
    store = tmp_path / "store"
    run(installed, "-I", holdfast, "--store", store, "init")
    run(installed, "-I", holdfast, "--store", store, "create", "m")
    assert "m" in run(installed, "-I", holdfast, "--store", store, "mounts")
    assert run(installed, "-I", "-c", "import daemon; print(daemon.__file__)").startswith(
        str(below)
    )
    absent = "import importlib.util as u; print([n for n in ('pip', 'pytest', 'setuptools') if u.find_spec(n)])"
    assert run(installed, "-I", "-c", absent) == "[]\n"
    assert (
        run(holdfast.with_name("python"), "-I", "-c", "import trio, pyfuse3, fastapi, httpx, lmdb")
        == ""
    )
    config = tomllib.loads((below / "share/holdfast/holdfast.toml").read_text())
    assert config["user"] == "holdfast"  # the mounter asks for it


# --- an interpreter that the service's user can run ---------------------------------------------------------


@pytest.mark.parametrize("home", ["/root/x", "/home/me/.pyenv", "/tmp/x"])
def test_what_the_unit_hides_is_in_the_way(home: str) -> None:
    assert install.in_the_way(f"{home}/bin/python").startswith("the unit hides /")


def test_a_closed_directory_is_in_the_way_also_behind_a_link(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(install, "HIDDEN", ())
    with tempfile.TemporaryDirectory() as name:  # pytest's own directories are closed to others
        top = Path(name).resolve()
        top.chmod(0o755)
        (top / "closed").mkdir()
        python = top / "closed" / "python"
        python.write_text("")
        (top / "link").symlink_to(python)
        assert install.in_the_way(str(top / "link")) == ""
        python.chmod(0o750)
        assert install.in_the_way(str(python)) == f"other users may not read {python}"
        python.chmod(0o755)
        (top / "closed").chmod(0o700)
        for way in (python, top / "link"):
            assert install.in_the_way(str(way)) == f"{top / 'closed'} is closed to other users"


def test_an_interpreter_the_service_cannot_run_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    base = Path(install.interpreter(sys.executable, checked=False))
    top = str(base.parents[-2])
    monkeypatch.setattr(install, "HIDDEN", (top,))
    assert install.main(["--destdir", str(tmp_path / "d")]) == 1
    said = capsys.readouterr().err
    assert f"could not run {base}: the unit hides {top} from it" in said
    assert "make install PYTHON=/usr/bin/python3" in said and "ANY_PYTHON=1" in said
    assert not (tmp_path / "d").exists()
    asked: list[str] = []
    monkeypatch.setattr(install, "install", lambda _prefix, _destdir, python: asked.append(python))
    assert install.main(["--destdir", str(tmp_path / "d"), "--any-python"]) == 0
    monkeypatch.setattr(install, "HIDDEN", ())
    monkeypatch.setattr(install, "in_the_way", lambda _path: "")
    assert install.main(["--destdir", str(tmp_path / "d"), "--python", str(base)]) == 0
    assert asked == [str(base), str(base)]


def test_an_interpreter_that_is_none_or_another_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "python"
    other.write_text("""#!/bin/sh\necho '["/usr/bin/python", "/usr/lib/os.py", "cpython-27"]'\n""")
    other.chmod(0o755)
    with pytest.raises(
        install.Refused, match=f"{other} is cpython-27, and .* HOLDFAST_PYTHON={other}"
    ):
        install.interpreter(str(other))
    with pytest.raises(install.Refused, match="not a Python that runs"):
        install.interpreter(str(tmp_path / "none"))


# --- manual pages -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("man")
    for name, text in manual.pages(cli, cli.every(), "0.1.0").items():
        (folder / name).write_text(text)
    (folder / "holdfast.toml.5").write_text(manual.configuration(example(), "0.1.0"))
    return folder


def test_there_is_a_page_for_each_command(pages: Path) -> None:
    every = cli.every()
    wanted = {"holdfast.1", "holdfast.toml.5", *(f"holdfast-{name}.1" for name in every)}
    for name, command in every.items():
        if isinstance(command, click.Group):
            wanted |= {
                f"holdfast-{name}-{inner}.1"
                for inner in command.list_commands(click.Context(command))
            }
    assert {path.name for path in pages.iterdir()} == wanted


@pytest.mark.skipif(not shutil.which("groff"), reason="needs groff")
def test_roff_has_no_complaint(pages: Path) -> None:
    done = subprocess.run(
        ["groff", "-ww", "-man", "-Tutf8", "-z", *sorted(pages.iterdir())],
        capture_output=True, text=True, check=False, timeout=LIMIT,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.skipif(not shutil.which("man"), reason="needs man (Debian package man-db)")
def test_man_shows_what_help_says(pages: Path) -> None:
    text = run(
        "man", "--warnings", "-l", pages / "holdfast-rm.1", MANWIDTH="200", MAN_KEEP_FORMATTING=""
    )
    assert "holdfast rm [OPTIONS] POINT..." in text
    assert "--dry-run" in text and "Only say what would be freed." in text
    assert "holdfast rm --dry-run 01jdq3 01jdq7" in text
    whole = run("man", "--warnings", "-l", pages / "holdfast.1", MANWIDTH="200")
    assert (
        "Stored bytes are not what they were when stored" in whole
    )  # exit codes, of the table of errors
    assert whole.index("holdfast restore db@latest") < whole.index("export HOLDFAST_API=")
    config = run("man", "--warnings", "-l", pages / "holdfast.toml.5", MANWIDTH="200")
    assert 'listen = ["127.0.0.1:9091"]' in config and "[mounts.oracle.keep]" in config


def test_text_is_not_taken_for_commands_of_roff() -> None:
    assert manual.escaped(".so /etc/passwd\n'so x\n\\fB-x") == (
        "\\&.so /etc/passwd\n\\(aqso x\n\\efB\\-x"
    )
