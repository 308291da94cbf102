"""Commands about copies of points: uploads, upload."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from daemon.cli.common import backend
from daemon.cli.output import as_json, counted, moment, progress, say, shown, size, table
from engine import Progress, Report
from engine.errors import NotFound

if TYPE_CHECKING:
    from daemon.contract import Backend, LocationInfo, UploadInfo

_EVERY = 1.0  # s between two looks
_REASON = 80  # characters of a reason in a table


@click.command()
@click.option("--location", "place", default="", help="Only those to this location.")
@click.option(
    "--state",
    default="",
    type=click.Choice(["", "queued", "uploading", "verified", "failed"]),
    help="Only those in this state.",
)
@click.option("--watch", is_flag=True, help="Show how it goes on, until nothing waits any more.")
@click.option("--retry", is_flag=True, help="Try those again that failed.")
@click.option("--json", "json_", is_flag=True)
@click.pass_context
def uploads(
    ctx: click.Context, place: str, state: str, watch: bool, retry: bool, json_: bool
) -> None:
    """List recovery points with how far their copies are.

    \b
      holdfast uploads --state failed
      holdfast uploads --watch
      holdfast uploads --retry
    """
    with backend(ctx) as asked:
        if retry:
            names = [place] if place else [one.name for one in asked.locations()]
            count = sum(asked.retry_uploads(name) for name in names)
            if not watch:
                if json_:
                    as_json({"queued": count})
                else:
                    say(f"{counted(count, 'point')} queued again")
                return
        if watch:
            _watch(asked, place)
        found = asked.uploads(place, state)
        places = [one for one in asked.locations() if place in ("", one.name)]
    if json_:
        as_json(found)
        return
    rows = [
        [one.location, one.point, shown(one.mount), one.state, moment(one.since_ns), size(one.sent),
         str(one.requests), shown(one.reason[:_REASON])]
        for one in found
    ]  # fmt: skip
    table(rows, "LOCATION POINT MOUNT STATE SINCE SENT REQUESTS REASON".split())
    for each in places if found else ():
        if each.requests:
            say(f"{each.name}: {_asked_of(each.requests)}")


def _asked_of(counts: dict[str, int]) -> str:
    """Of all that was ever asked of a location."""
    sent = counts.get("bytes_up", 0)
    asked = sum(count for kind, count in counts.items() if not kind.startswith("bytes"))
    return f"{size(sent)} sent so far, {_requests(asked, sent)}"


def _requests(count: int, sent: int) -> str:
    """Requests, and how many they are for what was sent."""
    each = f", {count / (sent / 2**30):,.0f} per GiB" if sent >= 2**20 else ""
    return counted(count, "request") + each


def _watch(asked: Backend, place: str) -> None:
    with progress() as report:
        while True:
            places = [one for one in asked.locations() if place in ("", one.name)]
            if place and not places:
                raise NotFound(f"location {place!r}", expected="a storage location", found="none")
            for one in places:
                _draw(asked, report, one)
            if not any(_moves(one) for one in places):
                return
            time.sleep(_EVERY)


def _moves(one: LocationInfo) -> bool:
    return bool(one.queued + one.uploading + one.locking) and not one.paused


def _draw(asked: Backend, report: Report, one: LocationInfo) -> None:
    """Points that are there of those that go there; of what is being sent, bytes."""
    total = one.verified + one.queued + one.uploading + one.failed
    report(Progress(f"{one.name}: points", one.verified, total, "points"))
    for job in asked.jobs(kind="upload", state="running").items:
        if job.options.get("location") == one.name and job.progress:
            done = int(job.progress.get("done", 0))
            report(Progress(f"{one.name}: this point", done, None, "bytes"))


@click.command()
@click.argument("place", metavar="[LOCATION]", required=False)
@click.option("--json", "json_", is_flag=True)
@click.pass_context
def upload(ctx: click.Context, place: str | None, json_: bool) -> None:
    """Send what waits to a location, or to all of them, and wait for the end.

    A daemon does so by itself, beside other work; without one this is how points leave the machine.

    \b
      holdfast upload offsite
    """
    from daemon.cli import following

    with backend(ctx) as asked:
        names = [place] if place else [one.name for one in asked.locations() if _moves(one)]
        done = [following.run(asked, "upload", {"location": name}) for name in names]
        failed = [one for name in names for one in asked.uploads(name, "failed")]
    if json_:
        as_json(done)
    else:
        for one in done:
            say(
                f"{one['location']}: {counted(one['points'], 'point')}, {size(one['bytes'])} sent,"
                f" {_requests(one['requests'], one['bytes'])}"
            )
        if not done:
            say("nothing waits")
    _raise_failed(failed)


def _raise_failed(failed: list[UploadInfo]) -> None:
    if failed:
        from engine.errors import LocationUnavailable

        first = failed[0]
        raise LocationUnavailable(
            f"copies at {first.location}", expected="all of them verified",
            found=f"{len(failed)} failed, first {first.point}: {first.reason}",
            do="mend it, then run 'holdfast uploads --retry'",
        )  # fmt: skip


COMMANDS = (uploads, upload)
