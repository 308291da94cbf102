"""The command line of the demonstration: `./tools/demo --help`."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path

from tools.demolib import set_database, set_disk, set_tree
from tools.demolib.cleanup import Cleanup, Stopped, ignore_signals, watch_signals
from tools.demolib.commands import Runner, ordinary_account
from tools.demolib.console import Console, DemoError
from tools.demolib.dataset import DataSet
from tools.demolib.holdfast import Holdfast
from tools.demolib.postgres import Postgres, give
from tools.demolib.report import print_differences, print_table
from tools.demolib.scratch import Scratch
from tools.demolib.service import ServiceStory
from tools.demolib.story import Story

ROOT = Path(__file__).resolve().parents[2]
# The most that is there at one time: sources, the store, one restored point.
NEED_BYTES = 4_000_000_000
PROGRAMS = (
    "curl",
    "rsync",
    "qemu-img",
    "mkfs.ext4",
    "e2fsck",
    "debugfs",
    "tar",
    "cp",
    "cmp",
    "fusermount3",
)


def main() -> int:
    """Run the demonstration; 0 when every point was restored and found equal."""
    options = _options()
    console = Console()
    # mkfs and its companions are where ordinary users' PATH does not lead.
    os.environ["PATH"] = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))
    cleanup = Cleanup(console)
    status = 1
    watch_signals()
    try:
        if options.clean:
            status = _clean(console, options)
        else:
            status = _demonstrate(console, options, cleanup)
    except DemoError as error:
        print(f"demo: {error}", file=sys.stderr)
    except OSError as error:
        # A mount that breaks shows as an error of whatever touched it.
        print(f"demo: {error}", file=sys.stderr)
    except Stopped as stopped:
        console.step("stopped; cleaning up")
        status = 128 + stopped.number
    finally:
        try:
            ignore_signals()
        finally:
            trouble = cleanup.run()
    if trouble:
        print("demo: not everything could be cleaned up; see above", file=sys.stderr)
    return status or int(bool(trouble))


def _demonstrate(console: Console, options: argparse.Namespace, cleanup: Cleanup) -> int:
    _require_programs(options.command)
    scratch = Scratch.make(options.dir, round(NEED_BYTES * options.scale))
    runner = Runner(console, scratch.path)
    holdfast = Holdfast(runner, options.command, scratch.store)
    if options.keep:
        cleanup.add("telling what is left", lambda: _tell_kept(scratch, holdfast))
    else:
        cleanup.add("removing the scratch directory", scratch.remove)
        cleanup.add("unmounting", lambda: _unmount(scratch, runner, holdfast))
    postgres = _postgres(runner, scratch, cleanup)
    sets = _sets(runner, postgres, scratch.sources, options.scale)
    for one in sets:
        cleanup.add(f"stopping {one.name}", one.close)
    story = Story(runner, holdfast, scratch, sets)
    service = ServiceStory(runner, options.command, postgres, scratch.path / "service")
    cleanup.add("stopping the daemon", service.close)
    story.run()
    results = [*story.results, service.run()]
    console.step("done")
    print_table(results, sys.stdout)
    print_differences(results, sys.stdout)
    for line in story.damage:
        print(f"DAMAGE   {line}")
    equal = all(result.equal for result in results) and not story.damage
    print("every point was restored and is equal" if equal else "SOMETHING IS WRONG: see above")
    sys.stdout.flush()
    return 0 if equal else 1


def _postgres(runner: Runner, scratch: Scratch, cleanup: Cleanup) -> Postgres:
    account = ordinary_account()
    # Of its own, and short: the address of a socket has at most 107 bytes.
    socket = Path(tempfile.mkdtemp(prefix="hfd-", dir="/tmp"))
    cleanup.add("removing the socket's directory", lambda: shutil.rmtree(socket))
    give(socket, account)
    runner.console.step("unpacking PostgreSQL")
    return Postgres.unpack(runner, account, scratch.path / "postgres", socket)


def _sets(runner: Runner, postgres: Postgres, place: Path, scale: float) -> list[DataSet]:
    return [
        set_database.DatabaseSet(runner, postgres, place / "pg", scale),
        set_disk.DiskSet(runner, place / "vm", scale),
        set_tree.TreeSet(runner, place / "tree", scale),
    ]


def _unmount(scratch: Scratch, runner: Runner, holdfast: Holdfast) -> None:
    left = scratch.release(runner, holdfast)
    if left:
        raise DemoError("; ".join(left))


def _tell_kept(scratch: Scratch, holdfast: Holdfast) -> None:
    print(
        f"""
Everything is kept and mounted below {scratch.path}. Look around:
    export HOLDFAST_STORE={scratch.store}
    export PATH={holdfast.command.parent}:$PATH
    ls {scratch.mounts}/*
    holdfast points
    ls {scratch.mounts}/tree/.snapshots/
    holdfast stats
When done, unmount and remove it all:
    ./tools/demo --clean {scratch.path}""",
        flush=True,
    )


def _clean(console: Console, options: argparse.Namespace) -> int:
    scratch = Scratch.find(options.clean)
    runner = Runner(console, scratch.path)
    _unmount(scratch, runner, Holdfast(runner, options.command, scratch.store))
    scratch.remove()
    console.step(f"{scratch.path} is gone")
    return 0


def _require_programs(command: Path) -> None:
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        raise DemoError(f"these programs are missing: {', '.join(missing)}; run ./tools/demo")
    if not os.access(command, os.X_OK):
        raise DemoError(f"there is no {command}: run ./tools/setup")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="tools/demo",
        description="Write a PostgreSQL cluster, a VM disk and a source tree into Holdfast mounts "
        "on three days, restore all nine recovery points, prove them equal; the same once through the daemon "
        "and its API; and print one table.",
    )
    parser.add_argument("--keep", action="store_true", help="leave it mounted, to look around")
    parser.add_argument("--clean", type=Path, metavar="DIR", help="remove what --keep left")
    parser.add_argument(
        "--dir", type=Path, metavar="DIR", help="work below DIR (else $TMPDIR or /var/tmp)"
    )
    parser.add_argument(
        "--scale", type=float, default=1.0, metavar="N", help="so many times the data (0.1 to 20)"
    )
    parser.add_argument(
        "--command", type=Path, metavar="FILE", default=ROOT / ".venv" / "bin" / "holdfast",
        help="the holdfast command to use",
    )  # fmt: skip
    options = parser.parse_args()
    if not 0.1 <= options.scale <= 20:
        parser.error("--scale is a number from 0.1 to 20")
    options.command = options.command.absolute()
    return options


if __name__ == "__main__":
    sys.exit(main())
