"""Commands about storage locations: location."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Literal

import click

from daemon.cli.common import backend, beside, path_of
from daemon.cli.output import as_json, counted, progress, say, shown, size, table
from daemon.cli.passphrases import passphrase_of, public_of, typed, write_new
from daemon.contract import LocationChange, LocationSpec
from engine import Store
from engine.errors import AlreadyExists

if TYPE_CHECKING:
    from daemon.contract import Backend


_BANDWIDTH = click.option(
    "--bandwidth",
    metavar="WINDOWS",
    help="Bytes a second to send at most, by the time of day: 08:00-18:00=5M,20M; none for no limit.",
)
_READ_BANDWIDTH = click.option(
    "--read-bandwidth",
    metavar="WINDOWS",
    help="The same of what is fetched, restores as well; without it nothing holds those up.",
)


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
@click.option(
    "--object-lock",
    is_flag=True,
    help="Have the server retain what locked points need, until their locks end; its bucket must have Object Lock.",
)
@_BANDWIDTH
@_READ_BANDWIDTH
@click.option("--not-sealed", is_flag=True, help="Do not encrypt: only for file: locations.")
@click.option("--json", "json_", is_flag=True)
@click.pass_context
def add(
    ctx: click.Context, name: str, url: str, passphrase_file: str | None, key_files: tuple[str, ...],
    recovery_key_out: str | None, mounts: tuple[str, ...], verify: float, local: Literal["keep", "drop"],
    credentials: str, object_lock: bool, bandwidth: str | None, read_bandwidth: str | None, not_sealed: bool,
    json_: bool,
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
                name, url, passphrase, keys, credentials, not not_sealed, list(mounts), verify, local,
                bandwidth or "", read_bandwidth or "", object_lock,
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
         "sealed" if one.sealed else "open", "yes" if one.object_lock else "no", one.local,
         ", ".join(one.mounts) or "all",
         shown(one.paused) or "-", shown(one.url)]
        for one in found
    ]  # fmt: skip
    heads = "LOCATION VERIFIED WAITING FAILED CONTENT LOCKS LOCAL MOUNTS PAUSED URL"
    table(rows, heads.split())


@location.command()
@click.argument("name")
@click.option(
    "--mount", "mounts", multiple=True, help="Only points of this mount; may be given again."
)
@click.option("--all-mounts", is_flag=True, help="Points of every mount.")
@click.option(
    "--verify", type=click.FloatRange(0, 1), help="Part of what is sent that is read back."
)
@click.option(
    "--local", type=click.Choice(["keep", "drop"]), help="What becomes of the bytes here."
)
@click.option("--credentials", metavar="SOURCE", help="Where they are; they are tried first.")
@_BANDWIDTH
@_READ_BANDWIDTH
@click.option(
    "--object-lock",
    is_flag=True,
    default=None,
    help="Have the server retain what locked points need; nobody switches that off again.",
)
@click.option("--json", "json_", is_flag=True)
@click.pass_context
def change(
    ctx: click.Context, /, name: str, mounts: tuple[str, ...], all_mounts: bool, json_: bool, **fields: Any
) -> None:  # fmt: skip
    """Change what a location was added with; an upload that runs sees another bandwidth at once.

    \b
      holdfast location change offsite --bandwidth 08:00-18:00=5M,20M
      holdfast location change offsite --bandwidth none --verify 1
    """
    if mounts and all_mounts:
        raise click.UsageError("--mount and --all-mounts exclude each other")
    if mounts or all_mounts:
        fields["mounts"] = list(mounts)
    for field in ("bandwidth", "read_bandwidth"):
        fields[field] = "" if fields[field] == "none" else fields[field]
    if all(value is None for value in fields.values()):
        raise click.UsageError("say what is to be another")
    with backend(ctx) as asked:
        made = asked.change_location(name, LocationChange(**fields))
    if json_:
        as_json(made)
        return
    say(f"location {made.name}: {counted(made.queued + made.uploading, 'point')} to be sent")
    for what, windows in (("sent", made.bandwidth), ("fetched", made.read_bandwidth)):
        say(f"bytes {what} a second: {shown(windows) or 'no limit'}")


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
    if found.locked:
        say(f"{counted(found.locked, 'pack')} more once the server lets go of them")
    if found.waiting:
        say(
            f"{counted(found.waiting, 'pack')} more once 'holdfast gc' has freed chunks here that name them"
        )


COMMANDS = (location,)
