"""Install the tree for the whole system: ``python -m tools.install``, by .venv's Python; ``make install`` runs it.

What is installed is what ``tools/setup`` made of the lock files: the locked packages that are needed to run, copied
from .venv, and the wheel of this tree, in a virtual environment PREFIX/lib/holdfast with the same interpreter.
Nothing is fetched and nothing is compiled.

The service runs as a user of its own, in a sandbox: an interpreter that it would not find there is refused.
"""

from __future__ import annotations

import argparse
import compileall
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = """#!{python} -I
import sys
from daemon.cli.main import main
sys.exit(main())
"""

HIDDEN = ("/root", "/home", "/run/user", "/tmp", "/var/tmp")
"""What holdfast.service does not see, or has one of its own of: ProtectHome= and PrivateTmp= of the unit."""
ASK = """
import json, os, sys, sysconfig
print(json.dumps([sys._base_executable, os.__file__, sysconfig.get_config_var("SOABI")]))
"""


class Refused(Exception):
    """Nothing was installed, and why."""


# --- the interpreter ----------------------------------------------------------------------------


def in_the_way(path: str) -> str:
    """What keeps the service's user from reading a file, by its name or where links lead; empty if nothing does."""
    for name in dict.fromkeys((os.path.abspath(path), os.path.realpath(path))):
        for folder in map(str, reversed(Path(name).parents)):
            if folder in HIDDEN:
                return f"the unit hides {folder} from it"
            if not os.stat(folder).st_mode & stat.S_IXOTH:
                return f"{folder} is closed to other users"
    return "" if os.stat(path).st_mode & stat.S_IROTH else f"other users may not read {path}"


def interpreter(python: str, checked: bool = True) -> str:
    """The interpreter behind this one, which may be that of a virtual environment.

    Raises Refused if it cannot use the packages of .venv or, when ``checked``, if the service could not run it.
    """
    try:
        done = subprocess.run([python, "-I", "-c", ASK], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise Refused(f"{python} is not a Python that runs: {error}") from error
    base, library, abi = json.loads(done.stdout)
    mine = sysconfig.get_config_var("SOABI")
    if abi != mine:
        raise Refused(
            f"{python} is {abi}, and the packages in .venv are for {mine}; give another as PYTHON, or make .venv with "
            f"this one: rm -r .venv; HOLDFAST_PYTHON={python} make setup"
        )
    for file in (base, library) if checked else ():
        if reason := in_the_way(file):
            version = ".".join(map(str, sys.version_info[:2]))
            raise Refused(
                f"user holdfast, whom the service runs as, could not run {base}: {reason}. It needs a Python {version} "
                f"that every user may read and run, outside of {', '.join(HIDDEN)}. Give one: make install "
                "PYTHON=/usr/bin/python3; or install without the service, for commands alone: make install ANY_PYTHON=1"
            )
    return str(base)


# --- what is installed --------------------------------------------------------------------------


def locked() -> list[str]:
    """Names of the packages that running needs."""
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    return re.findall(r"^([A-Za-z0-9_.-]+)==", text, re.MULTILINE)


def copy_package(name: str, site: Path) -> None:
    """The files of one installed package; those outside site-packages, its commands, are left out."""
    package = metadata.distribution(name)
    base = Path(str(package.locate_file(""))).resolve()
    for file in package.files or []:
        source = Path(str(package.locate_file(file))).resolve()
        if source.is_relative_to(base) and source.suffix != ".pyc":
            target = site / source.relative_to(base)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)


def copy_locked(site: Path) -> None:
    """Every package that running needs."""
    for name in locked():
        copy_package(name, site)


def build_wheel(folder: Path) -> Path:
    """The wheel of this tree, built without the network."""
    # A copy: setuptools leaves its build beside what it builds, and puts what an old one left into the wheel.
    tree = folder / "tree"
    names = ("engine", "fsmount", "daemon", "systemd", "pyproject.toml", "README.md", "LICENSE")
    tree.mkdir()
    for name in names:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tree / name, symlinks=True,
                            ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))  # fmt: skip
        else:
            shutil.copy(ROOT / name, tree)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-input",
               "--no-index", "--no-build-isolation", "--no-deps", "--wheel-dir", str(folder), str(tree)]  # fmt: skip
    subprocess.run(command, check=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def environment(folder: Path, python: str) -> Path:
    """An empty virtual environment; its directory of packages."""
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([python, "-I", "-m", "venv", "--without-pip", "--symlinks", folder], check=True)
    for left in [*folder.glob("bin/activate*"), *folder.glob("bin/Activate*")]:
        left.unlink()
    settings = folder / "pyvenv.cfg"
    lines = settings.read_text(encoding="utf-8").splitlines(keepends=True)
    settings.write_text("".join(x for x in lines if not x.startswith("command")), encoding="utf-8")
    return folder / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"


def replace(final: Path, new: Path) -> None:
    """Put the new one in the place of an old one: what the old one runs finds its files until then."""
    old = final.with_name("holdfast.old")
    shutil.rmtree(old, ignore_errors=True)
    if final.exists():
        final.rename(old)
    new.rename(final)
    shutil.rmtree(old, ignore_errors=True)


def install(
    prefix: str, destdir: str, python: str, packages: Callable[[Path], None] = copy_locked
) -> None:
    """Everything, below ``destdir``; what is installed runs at ``prefix``, by ``python``.

    ``packages`` provides the directory that it is given with the packages that running needs.
    """
    home = f"{prefix}/lib/holdfast"
    final = Path(f"{destdir}{home}")
    folder = final.with_name("holdfast.new")
    site = environment(folder, python)
    packages(site)
    with tempfile.TemporaryDirectory() as scratch:
        shutil.unpack_archive(build_wheel(Path(scratch)), site, "zip")
    compileall.compile_dir(
        site, quiet=2, stripdir=str(site), prependdir=f"{home}/{site.relative_to(folder)}"
    )
    script = folder / "bin" / "holdfast"
    script.write_text(SCRIPT.format(python=f"{home}/bin/python"), encoding="utf-8")
    script.chmod(0o755)
    replace(final, folder)
    command = Path(f"{destdir}{prefix}/bin/holdfast")
    command.parent.mkdir(parents=True, exist_ok=True)
    command.unlink(missing_ok=True)
    command.symlink_to("../lib/holdfast/bin/holdfast")
    rest = ["install-files", "--prefix", prefix, "--destdir", destdir,
            "--program", f"{prefix}/bin/holdfast", "--python", f"{home}/bin/python"]  # fmt: skip
    subprocess.run([final / "bin" / "python", "-I", final / "bin" / "holdfast", *rest], check=True)


def main(arguments: list[str]) -> int:
    """Read the arguments; the exit status."""
    parser = argparse.ArgumentParser(prog="make install", description=__doc__.split(":")[0])
    parser.add_argument("--prefix", default="/usr/local", type=os.path.abspath)
    parser.add_argument("--destdir", default="")
    parser.add_argument("--python", default=sys.executable, help="the interpreter to run with")
    parser.add_argument(
        "--any-python", action="store_true", help="also one that the service cannot run"
    )
    given = parser.parse_args(arguments)
    os.umask(0o022)
    try:
        python = interpreter(given.python, checked=not given.any_python)
    except Refused as reason:
        print(f"make install: {reason}", file=sys.stderr)
        return 1
    install(given.prefix, given.destdir and os.path.abspath(given.destdir), python)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
