"""Commands about copies at storage locations: location, uploads, upload."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING, Literal

import click

from daemon.cli.common import backend, beside, path_of
from daemon.cli.output import as_json, counted, moment, progress, say, shown, size, table
from daemon.cli.passphrases import passphrase_of, public_of, typed, write_new
from daemon.contract import LocationSpec
from engine import Progress, Report, Store
from engine.errors import AlreadyExists, NotFound

if TYPE_CHECKING:
    from daemon.contract import Backend, LocationInfo, UploadInfo

_EVERY = 1.0  # s between two looks
_REASON = 80  # characters of a reason in a table


@click.group()
def location() -> None:
    """Storage locations: where copies of recovery points are kept, sealed.

    \b
      holdfast location add offsite s3://bucket/db --recovery-key-out /root/offsite.key
      holdfast location list
    """


@location.command("add")
@click.argument("name")
@click.argument("url")
@click.option(
    "--passphrase-file",
    metavar="FILE",
    help="A file with a passphrase that opens the location, - for standard input; without any secret it is asked for.",
)
@click.option(
    "--key-file",
    "key_files",
    multiple=True,
    metavar="FILE",
    help="A file with a key, or a recipient, that opens it as well; may be given again.",
)
@click.option(
    "--recovery-key-out",
    metavar="FILE",
    help="Make a recovery key, write it to this new file, and let it open the location: for a safe.",
)
@click.option(
    "--mount", "mounts", multiple=True, help="Only points of this mount; may be given again."
)
@click.option(
    "--verify",
    type=click.FloatRange(0, 1),
    default=0.02,
    show_default=True,
    help="Part of what is sent that is read back and compared.",
)
@click.option(
    "--local",
    type=click.Choice(["keep", "drop"]),
    default="keep",
    show_default=True,
    help="What becomes of the bytes here once they are verified there.",
)
@click.option(
    "--credentials",
    metavar="SOURCE",
    default="environment",
    show_default=True,
    help="Where the service finds the server's credentials.",
)
@click.option("--not-sealed", is_flag=True, help="Do not encrypt: only for file: locations.")
@click.option("--json", "json_", is_flag=True)
@click.pass_context
def add(
    ctx: click.Context, name: str, url: str, passphrase_file: str | None, key_files: tuple[str, ...],
    recovery_key_out: str | None, mounts: tuple[str, ...], verify: float, local: Literal["keep", "drop"],
    credentials: str, not_sealed: bool, json_: bool,
) -> None:  # fmt: skip
    """Keep a copy of every recovery point at URL, from now on and of those there are.

    Whoever has one of its secrets can restore from it, and nobody else: keep them elsewhere.

    \b
      holdfast location add nas file:///mnt/nas/holdfast
      holdfast location add offsite 's3://bucket/db?endpoint=https://s3.example' \\
        --passphrase-file /root/offsite.pass --recovery-key-out /media/usb/offsite.key
    """
    passphrase = passphrase_of(passphrase_file) if passphrase_file else ""
    keys = [public_of(path) for path in key_files]
    if not_sealed and (passphrase or keys or recovery_key_out):
        raise click.UsageError("--not-sealed takes no secrets: nothing is encrypted")
    if not (not_sealed or passphrase or keys or recovery_key_out):
        passphrase = typed(f"Passphrase of {name}", twice=True)
    with backend(ctx) as asked:
        if recovery_key_out:
            keys.append(_recovery_key(recovery_key_out, asked, name))
        made = asked.add_location(
            LocationSpec(
                name, url, passphrase, keys, credentials, not not_sealed, list(mounts), verify, local
            )
        )  # fmt: skip
    if json_:
        as_json(made)
        return
    count = counted(made.queued + made.uploading + made.verified, "point")
    say(f"location {made.name}: {count} to be kept at {shown(made.url)}")
    if recovery_key_out:
        click.echo(
            f"recovery key in {shown(recovery_key_out)}: keep it in a safe, not here", err=True
        )


def _recovery_key(path: str, asked: Backend, name: str) -> str:
    """A new key in a new file, synced before anything is sealed for it; its public half. Where a location was begun
    and not finished, the key that was made for it."""
    from engine.keys import Identity, load

    begun = {one.name: bool(one.paused) for one in asked.locations()}
    if not begun.get(name, True):
        raise AlreadyExists(
            f"location {name!r}", expected="a new name", found="a location of that name"
        )
    made = Identity.new()
    try:
        write_new(path, made.printed(), "recovery key file")
    except AlreadyExists:
        known = load(path) if name in begun else None
        if isinstance(known, Identity):
            return known.recipient.printed()
        raise
    return made.recipient.printed()


@location.command("list")
@click.option("--json", "json_", is_flag=True)
@click.pass_context
def list_(ctx: click.Context, json_: bool) -> None:
    """List storage locations, and how many points are there.

    \b
      holdfast location list --json
    """
    with backend(ctx) as asked:
        found = asked.locations()
    if json_:
        as_json(found)
        return
    rows = [
        [one.name, str(one.verified), str(one.queued + one.uploading), str(one.failed),
         "sealed" if one.sealed else "open", one.local, ", ".join(one.mounts) or "all",
         shown(one.paused) or "-", shown(one.url)]
        for one in found
    ]  # fmt: skip
    heads = "LOCATION VERIFIED WAITING FAILED CONTENT LOCAL MOUNTS PAUSED URL"
    table(rows, heads.split())


@location.command()
@click.argument("name")
@click.pass_context
def remove(ctx: click.Context, name: str) -> None:
    """Send nothing to a location any more; what lies there stays, and so do its secrets.

    \b
      holdfast location remove offsite
    """
    with backend(ctx) as asked:
        asked.remove_location(name)
    say(f"location {name} removed; what lies there stays")


@location.command("take-over")
@click.argument("name")
@click.pass_context
def take_over(ctx: click.Context, name: str) -> None:
    """Send to a location that was adopted without --take-over; who did so before is refused from then on.

    \b
      holdfast location take-over origin
    """
    beside(ctx)
    with Store.open(path_of(ctx)) as store:
        store.copies.take_over(name)
    say(f"location {name}: points of this store go there from now on")


@location.command()
@click.argument("name")
@click.option("--dry-run", is_flag=True, help="Say what would be freed, and free nothing.")
@click.option("--json", "json_", is_flag=True)
@click.pass_context
def reclaim(ctx: click.Context, name: str, dry_run: bool, json_: bool) -> None:
    """Free at a location what none of its points needs any more: after points were deleted.

    \b
      holdfast location reclaim offsite --dry-run
    """
    beside(ctx)
    with Store.open(path_of(ctx)) as store, progress() as report:
        found = store.copies.reclaim(name, dry_run=dry_run, report=report)
    if json_:
        as_json(dataclasses.asdict(found))
        return
    what = "would be freed" if dry_run else "freed"
    say(f"{name}: {counted(found.packs, 'pack')}, {size(found.bytes)} {what}")
    if found.waiting:
        say(
            f"{counted(found.waiting, 'pack')} more once 'holdfast gc' has freed chunks here that name them"
        )


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
    if json_:
        as_json(found)
        return
    rows = [
        [one.location, one.point, shown(one.mount), one.state, moment(one.since_ns), size(one.sent),
         shown(one.reason[:_REASON])]
        for one in found
    ]  # fmt: skip
    table(rows, ["LOCATION", "POINT", "MOUNT", "STATE", "SINCE", "SENT", "REASON"])


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
    return bool(one.queued + one.uploading) and not one.paused


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
            say(f"{one['location']}: {counted(one['points'], 'point')}, {size(one['bytes'])} sent")
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


COMMANDS = (location, uploads, upload)
