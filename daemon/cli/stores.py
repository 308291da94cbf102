"""Commands about a store as a whole: init, create, gc, check, scrub, stats, repair, incidents."""

from __future__ import annotations

import dataclasses

import click

import fsmount
from daemon.cli.common import open_store, path_of
from daemon.cli.output import (
    Duration,
    Size,
    as_json,
    counted,
    moment,
    progress,
    say,
    shown,
    size,
    table,
)  # fmt: skip
from engine import Store
from engine.errors import Corrupt, InvalidRequest
from engine.incidents import Incident


@click.command()
@click.argument("path", required=False)
@click.pass_context
def init(ctx: click.Context, path: str | None) -> None:
    """Create an empty store.

    \b
      holdfast --store /srv/holdfast init
    """
    where = path or path_of(ctx)
    Store.init(where)
    say(f"store created at {shown(where)}")


@click.command()
@click.argument("name")
@click.option("--quota", type=Size(), help="Most bytes the mount may hold, as 500G.")
@click.option(
    "--max-files",
    type=click.IntRange(2, 2**40),
    help="Most files, directories and all else it may hold, its root counted.",
)
@click.option(
    "--chunking",
    default="auto",
    show_default=True,
    help="auto, fixed (written in place) or cdc (streams).",
)
@click.pass_context
def create(
    ctx: click.Context, name: str, quota: int | None, max_files: int | None, chunking: str
) -> None:
    """Create a mount.

    \b
      holdfast create oracle --quota 2T
      holdfast create home --quota 50G --max-files 2000000
    """
    with open_store(ctx) as store:
        store.create_mount(name, quota, chunking, max_files)
    say(f"mount {name} created")


@click.command()
@click.option("--dry-run", is_flag=True, help="Only say what would be freed.")
@click.option("--for", "budget", type=Duration(), help="Longest time to work, as 10m.")
@click.option("--json", "json_", is_flag=True)
@click.pass_context
def gc(ctx: click.Context, dry_run: bool, budget: float | None, json_: bool) -> None:
    """Free the space of deleted points, beside running writers.

    \b
      holdfast gc --dry-run
      holdfast gc --for 10m
    """
    with open_store(ctx) as store, progress() as report:
        result = store.collect(dry_run=dry_run, budget_s=budget, report=report)
    if json_:
        as_json(dataclasses.asdict(result))
        return
    verb = "would be freed" if dry_run else "freed"
    say(f"{size(result.freed_bytes)} {verb}, {result.dead_chunks} chunks no longer needed")
    verb = "would go" if dry_run else "went"
    say(f"{size(result.returned_bytes)} {verb} back to the file system")


@click.command()
@click.option("--read-data", is_flag=True, help="Read and verify every stored byte.")
@click.option("--json", "json_", is_flag=True)
@click.pass_context
def check(ctx: click.Context, read_data: bool, json_: bool) -> None:
    """Verify the store; exit 20 when something is damaged.

    \b
      holdfast check --read-data
    """
    with open_store(ctx) as store, progress() as report:
        result = store.check(read_data=read_data, report=report)
    if json_:
        as_json(
            {"problems": [dataclasses.asdict(p) for p in result.problems], "counts": result.counts}
        )
    else:
        for problem in result.problems:
            say(f"{problem.code}: {shown(problem.thing)}: {shown(problem.text)}")
        say(", ".join(f"{count} {name}" for name, count in result.counts.items()))
    if result.problems:
        raise Corrupt(f"store {path_of(ctx)}", expected="no damage", found=counted(len(result.problems), "problem"),
                      do="run 'holdfast repair'; undamaged points can be restored")  # fmt: skip
    if not json_:
        say("no problems found")


@click.command()
@click.option("--rate", type=Size(), help="Bytes to read in a second at most, as 50M.")
@click.option("--for", "budget", type=Duration(), help="Begin no further pack after this time.")
@click.option("--every", type=Duration(), help="Verify the whole store once in this time, as 30d.")
@click.option("--json", "json_", is_flag=True)
@click.pass_context
def scrub(
    ctx: click.Context, rate: int | None, budget: float | None, every: float | None, json_: bool
) -> None:
    """Verify stored bytes, going on where the last run ended; exit 20 when something is damaged.

    Works beside writers and gc. With --every, a run does only what is due since the cycle began;
    systemd/holdfast-scrub@.timer runs it so each day.

    \b
      holdfast scrub --rate 50M
      holdfast scrub --every 30d --rate 50M --for 4h
    """
    with open_store(ctx) as store, progress() as report:
        result = store.scrub(rate=rate, budget_s=budget, every_s=every, report=report)
    if json_:
        as_json(dataclasses.asdict(result))
    else:
        for problem in result.problems:
            say(f"{problem.code}: {shown(problem.thing)}: {shown(problem.text)}")
        say(f"{size(result.verified_bytes)} verified, {counted(result.records, 'chunk')} in "
            f"{counted(result.packs, 'pack')}")  # fmt: skip
        say(f"{size(result.cycle_bytes)} of {size(result.store_bytes)} since {moment(result.begun_ns)}"
            + (": all of it" if result.finished else ""))  # fmt: skip
        if result.due_bytes is not None and not result.finished:
            ahead = result.cycle_bytes - result.due_bytes
            say(f"{size(abs(ahead))} {'ahead of' if ahead >= 0 else 'behind'} schedule")
    if result.problems or result.suspects:
        found = counted(len(result.problems), "problem")
        known = counted(result.suspects, "damaged chunk")
        raise Corrupt(f"store {path_of(ctx)}", expected="no damage", found=f"{found}, {known}",
                      do="run 'holdfast check --read-data' to see which files need them")  # fmt: skip


@click.command()
@click.argument("name", required=False)
@click.option("--json", "json_", is_flag=True)
@click.pass_context
def stats(ctx: click.Context, name: str | None, json_: bool) -> None:
    """Sizes and counts of the store, or of one mount.

    \b
      holdfast stats --json
    """
    with open_store(ctx) as store:
        result = store.stats(name)
    if json_:
        as_json(result)
        return
    for key, value in result.items():
        if key.endswith("_bytes"):
            text = size(value)
        elif key.endswith("_ns"):
            text = moment(int(value)) if value else "never"
        else:
            text = f"{value:.2f}" if isinstance(value, float) else str(value)
        say(f"{key.removesuffix('_ns').replace('_', ' '):18} {text}")


@click.command()
@click.option(
    "--rebuild-index",
    is_flag=True,
    help="Make the index anew from the packs; nobody may use the store.",
)
@click.option("--json", "json_", is_flag=True)
@click.pass_context
def repair(ctx: click.Context, rebuild_index: bool, json_: bool) -> None:
    """Mend what check finds and can be mended; nothing is ever deleted.

    \b
      holdfast repair --rebuild-index
    """
    if not path_of(ctx):
        raise InvalidRequest("store")
    with progress() as report:
        if rebuild_index:
            result = Store.rebuild_index(path_of(ctx), report=report)
        else:
            with open_store(ctx) as store:
                result = store.repair(report=report)
    if json_:
        as_json(dataclasses.asdict(result))
        return
    for line in result.done:
        say(shown(line))
    say(f"{len(result.done)} repairs")


@click.command()
@click.option(
    "--reset", is_flag=True, help="Forget those that are listed: they have been dealt with."
)
@click.option("--json", "json_", is_flag=True)
@click.pass_context
def incidents(ctx: click.Context, reset: bool, json_: bool) -> None:
    """List what went wrong and wants attention, the last first; works when nothing else does.

    \b
      holdfast incidents
      holdfast incidents --reset
    """
    found, silent = fsmount.incidents(path_of(ctx))
    if json_:
        as_json({"incidents": [dataclasses.asdict(one) for one in found], "silent": silent})
    else:
        _show(found)
        for name in silent:
            say(f"the worker of mount {shown(name)} does not answer")
    if reset:
        Store.reset_incidents(path_of(ctx))


def _show(found: list[Incident]) -> None:
    if not found:
        say("no incidents")
        return
    rows = [
        (moment(one.last), moment(one.first), str(one.count), one.kind, shown(one.thing), shown(one.text))
        for one in found
    ]  # fmt: skip
    table(rows, ("LAST", "FIRST", "TIMES", "KIND", "THING", "WHAT"))


COMMANDS = (init, create, gc, check, scrub, stats, repair, incidents)
