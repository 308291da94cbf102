"""Commands about a store as a whole: create, gc, check, scrub, stats, repair, incidents, history."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import click

from daemon.cli.common import alone, backend, is_far, open_store, path_of, place_of, plain
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
    when,
)  # fmt: skip
from engine import Store
from engine.errors import Corrupt, InvalidRequest, LocationUnavailable
from engine.incidents import Incident


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
    if plain(ctx):
        with open_store(ctx) as store:
            store.create_mount(name, quota, chunking, max_files)
    else:
        from daemon.contract import MountSpec

        with backend(ctx) as asked:
            asked.create_mount(MountSpec(name, quota or 0, max_files or 0, chunking))
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
    if alone(ctx):
        with open_store(ctx) as store, progress() as report:
            found = store.collect(dry_run=dry_run, budget_s=budget, report=report)
        result = dataclasses.asdict(found)
    else:
        from daemon.cli.following import run

        with backend(ctx) as asked:
            result = run(asked, "collect", _given(dry_run=dry_run, budget_s=budget))
    if json_:
        as_json(result)
        return
    verb = "would be freed" if dry_run else "freed"
    say(f"{size(result['freed_bytes'])} {verb}, "
        f"{counted(result['dead_chunks'], 'chunk')} no longer needed")  # fmt: skip
    verb = "would go" if dry_run else "went"
    say(f"{size(result['returned_bytes'])} {verb} back to the file system")


def _given(**options: object) -> dict[str, Any]:
    """Options of a job: those that were given."""
    return {
        key: value for key, value in options.items() if value is not None and value is not False
    }


@click.command()
@click.option("--read-data", is_flag=True, help="Read and verify every stored byte.")
@click.option(
    "--without-key",
    is_flag=True,
    help="Of a sealed store, verify that nothing was damaged since it was written; what it holds stays unknown.",
)
@click.option("--json", "json_", is_flag=True)
@click.pass_context
def check(ctx: click.Context, read_data: bool, without_key: bool, json_: bool) -> None:
    """Verify the store; exit 20 when something is damaged, 22 when a location is away.

    \b
      holdfast check --read-data
    """
    if without_key:
        with progress() as report:
            found = Store.check_without_key(path_of(ctx), report=report)
        result: dict[str, Any] = dataclasses.asdict(found)
    elif alone(ctx):
        with open_store(ctx) as store, progress() as report:
            found = store.check(read_data=read_data, report=report)
        result = {
            "problems": [dataclasses.asdict(p) for p in found.problems],
            "counts": found.counts,
        }
    else:
        from daemon.cli.following import run

        with backend(ctx) as asked:
            result = run(asked, "check", _given(read_data=read_data))
    problems, left_out = result["problems"], result.get("problems_left_out", 0)
    if json_:
        as_json(result)
    else:
        _tell(problems, left_out)
        say(", ".join(f"{count} {name}" for name, count in result["counts"].items()))
    _refuse_away(ctx, problems)
    if problems:
        count = counted(len(problems) + left_out, "problem")
        raise Corrupt(f"store {place_of(ctx)}", expected="no damage", found=count,
                      do="run 'holdfast repair'; undamaged points can be restored")  # fmt: skip
    if not json_:
        say("no problems found" + (", as far as can be told without a key" if without_key else ""))


def _refuse_away(ctx: click.Context, problems: list[dict[str, Any]]) -> None:
    """Locations that could not be read are no damage, where there is none beside them."""
    from engine.maintain.asked import only_away

    if only_away(one["code"] for one in problems):
        raise LocationUnavailable(
            f"store {place_of(ctx)}", expected="every location to answer",
            found=f"{len(problems)} that could not be read", do="nothing was found damaged; try again when they answer",
        )  # fmt: skip


def _tell(problems: list[dict[str, Any]], left_out: int = 0) -> None:
    for one in problems:
        say(f"{one['code']}: {shown(one['thing'])}: {shown(one['text'])}")
    if left_out:
        say(f"{counted(left_out, 'more problem')}: run this on the store's machine for all of them")


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
    if alone(ctx):
        with open_store(ctx) as store, progress() as report:
            found = store.scrub(rate=rate, budget_s=budget, every_s=every, report=report)
        result = dataclasses.asdict(found)
    else:
        from daemon.cli.following import run

        with backend(ctx) as asked:
            result = run(asked, "scrub", _given(rate=rate, budget_s=budget, every_s=every))
    if json_:
        as_json(result)
    else:
        _scrubbed(result)
    if not result["suspects"]:
        _refuse_away(ctx, result["problems"])
    if result["problems"] or result["suspects"]:
        count = len(result["problems"]) + result.get("problems_left_out", 0)
        problems = counted(count, "problem")
        known = counted(result["suspects"], "damaged chunk")
        raise Corrupt(f"store {place_of(ctx)}", expected="no damage", found=f"{problems}, {known}",
                      do="run 'holdfast check --read-data' to see which files need them")  # fmt: skip


def _scrubbed(result: dict[str, Any]) -> None:
    _tell(result["problems"], result.get("problems_left_out", 0))
    say(f"{size(result['verified_bytes'])} verified, {counted(result['records'], 'chunk')} in "
        f"{counted(result['packs'], 'pack')}")  # fmt: skip
    cycle, due = result["cycle_bytes"], result["due_bytes"]
    say(f"{size(cycle)} of {size(result['store_bytes'])} since {moment(result['begun_ns'])}"
        + (": all of it" if result["finished"] else ""))  # fmt: skip
    if due is not None and not result["finished"]:
        say(f"{size(abs(cycle - due))} {'ahead of' if cycle >= due else 'behind'} schedule")


@click.command()
@click.argument("name", required=False)
@click.option("--json", "json_", is_flag=True)
@click.pass_context
def stats(ctx: click.Context, name: str | None, json_: bool) -> None:
    """Sizes and counts of the store, or of one mount.

    \b
      holdfast stats --json
    """
    if alone(ctx):
        with open_store(ctx) as store:
            result = store.stats(name)
    else:
        with backend(ctx) as asked:
            result = asked.stats(name or "")
    if json_:
        as_json(result)
        return
    for key, value in result.items():
        say(f"{key.removesuffix('_ns').replace('_', ' '):18} {_number(key, value)}")


def _number(key: str, value: int | float) -> str:
    """A number as its name says what it is."""
    if key.endswith("_bytes"):
        return size(value)
    if key.endswith("_ns"):
        return when(int(value))
    return f"{value:.2f}" if isinstance(value, float) else str(value)


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
    say(counted(len(result.done), "repair"))


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
    if is_far(ctx):
        with backend(ctx) as asked:
            _incidents([Incident(**one) for one in asked.incidents()], [], json_)
            if reset:
                asked.reset_incidents()
        return
    import fsmount

    _incidents(*fsmount.incidents(path_of(ctx)), json_)
    if reset:
        Store.reset_incidents(path_of(ctx))


def _incidents(found: list[Incident], silent: list[str], json_: bool) -> None:
    if json_:
        as_json({"incidents": found, "silent": silent})
        return
    _show(found)
    for name in silent:
        say(f"the worker of mount {shown(name)} does not answer")


def _show(found: list[Incident]) -> None:
    if not found:
        say("no incidents")
        return
    rows = [
        (moment(one.last), moment(one.first), str(one.count), one.kind, shown(one.thing), shown(one.text))
        for one in found
    ]  # fmt: skip
    table(rows, ("LAST", "FIRST", "TIMES", "KIND", "THING", "WHAT"))


@click.command()
@click.option("--since", type=Duration(), help="Only the last so long, as 30d.")
@click.option("--json", "json_", is_flag=True)
@click.pass_context
def history(ctx: click.Context, since: float | None, json_: bool) -> None:
    """Tell how the store has grown: its sizes as they were noted, oldest first.

    \b
      holdfast history --since 30d
    """
    after = time.time_ns() - int(since * 1e9) if since else 0
    with backend(ctx) as asked:
        found = asked.history(after)
    if json_:
        as_json(found)
        return
    # Those of single mounts are in the JSON: they would be a column each.
    keys = sorted(
        {key for row in found for key in row if " of " not in key},
        key=lambda key: (key != "time_ns", key),
    )
    if not found:
        say("nothing noted yet: the daemon notes it once an hour")
        return
    rows = [[_number(key, row[key]) if key in row else "-" for key in keys] for row in found]
    table(rows, [key.removesuffix("_ns").replace("_", " ").upper() for key in keys])


COMMANDS = (create, gc, check, scrub, stats, repair, incidents, history)
