"""The command ``key``: who may open a storage location."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from daemon.cli.common import backend, path_of
from daemon.cli.output import as_json, counted, moment, say, shown, table
from daemon.cli.passphrases import passphrase_of, public_of, typed, write_new
from daemon.contract import KeyRing, SecretSpec
from engine.errors import InvalidRequest

_SAFE = "keep it in a safe, not here"
_HERE = "."  # instead of a location: the store itself


@click.group()
def key() -> None:
    """Keys of storage locations, and with . of this store itself: passphrases, key files, recipients, and the keys that
    seal.

    \b
      holdfast key list offsite
      holdfast key change offsite --passphrase-file /root/new.pass
      holdfast key rotate offsite
      holdfast key add . --recipient recipient:ABCDE-…
    """


@contextmanager
def _asked(ctx: click.Context, location: str) -> Iterator[Any]:
    """Who is asked about a location, or about the store itself."""
    if location != _HERE:
        with backend(ctx) as asked:
            yield asked
        return
    from daemon.cli.ownkeys import OwnRing
    from daemon.cli.recorded import AUDIT, written_down

    path = path_of(ctx)
    ring = OwnRing(path)
    kept = os.path.isdir(os.path.dirname(os.path.join(path, AUDIT)))  # else no service was here yet
    yield written_down(path, ring) if kept else ring


def _with(command: Callable[..., None]) -> Callable[..., None]:
    """What opens the location now, where it is not to be this store's own key: ``opened_with``."""

    @click.option(
        "--with-passphrase-file", metavar="FILE", help="Open it with this passphrase, - for standard input, "
        "instead of with this store's own key.",
    )  # fmt: skip
    @click.option(
        "--with-key-file", metavar="FILE", help="Open it with this key, or this private half of a recipient."
    )  # fmt: skip
    @functools.wraps(command)
    def run(*, with_passphrase_file: str | None, with_key_file: str | None, **options: Any) -> None:
        given = None
        if with_passphrase_file or with_key_file:
            given = SecretSpec(
                passphrase_of(with_passphrase_file) if with_passphrase_file else "",
                _printed(with_key_file) if with_key_file else "",
            )
        command(opened_with=given, **options)

    return run


def secrets_options(command: Callable[..., None]) -> Callable[..., None]:
    """Secrets to make slots for: ``secrets``."""

    @click.option(
        "--passphrase-file", metavar="FILE", help="A file with a passphrase, - for standard input."
    )
    @click.option(
        "--key-file", "key_files", multiple=True, metavar="FILE",
        help="A file with a key, or a recipient; may be given again.",
    )  # fmt: skip
    @click.option(
        "--recipient", "recipients", multiple=True, metavar="recipient:…",
        help="The public half of 'holdfast key identity'; may be given again.",
    )  # fmt: skip
    @click.option(
        "--both", is_flag=True, help="The passphrase and the key together, not each alone."
    )
    @functools.wraps(command)
    def run(
        *, passphrase_file: str | None, key_files: tuple[str, ...], recipients: tuple[str, ...], both: bool,
        **options: Any,
    ) -> None:  # fmt: skip
        words = passphrase_of(passphrase_file) if passphrase_file else ""
        keys = [*map(public_of, key_files), *map(_recipient, recipients)]
        if both:
            if not words or len(keys) != 1:
                raise click.UsageError("--both takes a --passphrase-file and one --key-file")
            command(secrets=[SecretSpec(words, keys[0])], **options)
            return
        given = [SecretSpec(words)] if words else []
        command(secrets=given + [SecretSpec(key=one) for one in keys], **options)

    return run


@key.command("list")
@click.argument("location")
@click.option("--json", "json_", is_flag=True)
@click.pass_context
def list_(ctx: click.Context, location: str, json_: bool) -> None:
    """List who may open a location, and the fingerprint to note beside a recipient's key.

    \b
      holdfast key list offsite
    """
    with _asked(ctx, location) as asked:
        found = asked.keys(location)
    if json_:
        as_json(found)
        return
    rows = [
        [one.id, one.kind, moment(one.made_ns), "this store's own" if one.own else ""]
        for one in found.slots
    ]
    table(rows, ["SLOT", "KIND", "MADE", ""])
    say(f"key ring {found.ring}, {counted(len(found.epochs), 'epoch')}{_mark(found)}")


@key.command()
@click.argument("location")
@secrets_options
@click.option(
    "--new", metavar="FILE", help="Make a key and write it to this new file; -: print a recovery key, once."
)  # fmt: skip
@click.option("--own", is_flag=True, help="This store's own key, where it was lost or taken out.")
@_with
@click.option("--json", "json_", is_flag=True)
@click.pass_context
def add(
    ctx: click.Context, location: str, secrets: list[SecretSpec], new: str | None, own: bool,
    opened_with: SecretSpec | None, json_: bool,
) -> None:  # fmt: skip
    """Have something else open a location as well; without an option a passphrase is asked for.

    \b
      holdfast key add offsite
      holdfast key add offsite --new /media/usb/offsite.key
      holdfast key add offsite --recipient recipient:ABCDE-…
      holdfast key add offsite --own --with-key-file /media/usb/offsite.key
    """
    if own and location == _HERE:
        raise click.UsageError("--own is of locations: a store has no key of its own but yours")
    if not (secrets or new or own):
        secrets = [SecretSpec(typed(f"Passphrase of {location}", twice=True))]
    with _asked(ctx, location) as asked:
        made = ""
        if new:
            if opened_with is None:
                asked.keys(location)  # no key is made for what cannot be opened
            made = _new_key(new)
            secrets = [*secrets, SecretSpec(key=made)]
        more = {"machine": True} if own else {}
        found = asked.change_keys(location, add=secrets, opened_with=opened_with, **more)
    if json_:
        as_json(found)
    else:
        _say(found)
    if new == "-":
        click.echo(f"recovery key, shown this once; {_SAFE}:", err=True)
        click.echo(made, err=json_)
    elif new:
        click.echo(f"key in {shown(new)}: {_SAFE}", err=True)


@key.command()
@click.argument("location")
@click.argument("slots", metavar="SLOT", nargs=-1, required=True)
@click.option(
    "--force", is_flag=True, help="Also this store's own, or the last that is not this store's own."
)
@_with
@click.option("--json", "json_", is_flag=True)
@click.pass_context
def remove(
    ctx: click.Context, location: str, slots: tuple[str, ...], force: bool, opened_with: SecretSpec | None,
    json_: bool,
) -> None:  # fmt: skip
    """Have a slot of 'key list' open a location no longer; one always stays.

    Who opened it before may have kept what he needs for what is there, and for what comes until 'key rotate --master'.

    \b
      holdfast key remove offsite 3b9d6f0c51a2e847
    """
    with _asked(ctx, location) as asked:
        more = {"force": True} if force else {}
        found = asked.change_keys(location, remove=list(slots), opened_with=opened_with, **more)
    if json_:
        as_json(found)
    else:
        _say(found)


@key.command()
@click.argument("location")
@secrets_options
@click.option(
    "--slot", metavar="SLOT", help="Which to replace, of 'key list'; not needed for the only passphrase."
)  # fmt: skip
@_with
@click.option("--json", "json_", is_flag=True)
@click.pass_context
def change(
    ctx: click.Context, location: str, secrets: list[SecretSpec], slot: str | None,
    opened_with: SecretSpec | None, json_: bool,
) -> None:  # fmt: skip
    """Replace the passphrase of a location, or the slot named, in one step; it is asked for without an option.

    \b
      holdfast key change offsite
      holdfast key change offsite --slot 3b9d6f0c51a2e847 --key-file /media/usb/new.key
    """
    with _asked(ctx, location) as asked:
        replaced = slot or _only_passphrase(asked.keys(location))
        if not secrets:
            secrets = [SecretSpec(typed(f"New passphrase of {location}", twice=True))]
        found = asked.change_keys(location, add=secrets, remove=[replaced], opened_with=opened_with)
    if json_:
        as_json(found)
    else:
        _say(found)


@key.command()
@click.argument("location")
@click.option(
    "--master", is_flag=True, help="A new master key as well: for the secrets given here and this store's "
    "own key, and no other slot.",
)  # fmt: skip
@secrets_options
@_with
@click.option("--json", "json_", is_flag=True)
@click.pass_context
def rotate(
    ctx: click.Context, location: str, master: bool, secrets: list[SecretSpec],
    opened_with: SecretSpec | None, json_: bool,
) -> None:  # fmt: skip
    """Seal with a new key from now on. Nothing that is there is sent again, and who could read it still can.

    With --master who is not named here can open nothing that comes after; recipients are named again as well.

    \b
      holdfast key rotate offsite
      holdfast key rotate offsite --master --recipient recipient:ABCDE-…
    """
    if secrets and not master:
        raise click.UsageError("secrets are given again with --master only: every slot stays")
    if master and not secrets:
        secrets = [SecretSpec(typed(f"New passphrase of {location}", twice=True))]
    with _asked(ctx, location) as asked:
        found = asked.rotate_keys(location, master_for=secrets, opened_with=opened_with)
    if json_:
        as_json(found)
        return
    unit = "record" if location == _HERE else "pack"
    say(f"{_thing(found)}: sealed in epoch {found.epochs[-1]} from the next {unit} on")
    if master:
        click.echo("keys and recipients that were not named open it no longer", err=True)
    _say(found)


@key.command()
@click.argument("file")
@click.option("--recipient", "public", is_flag=True, help="Print the public half of one that is there.")  # fmt: skip
def identity(file: str, public: bool) -> None:
    """Make a pair of keys for a safe: the private half goes to a new FILE, the public one is printed.

    Locations are opened with FILE, which nothing needs before; 'key add --recipient' takes what is printed.

    \b
      holdfast key identity /media/usb/safe.key
      holdfast key identity /media/usb/safe.key --recipient
    """
    from engine.keys import Identity

    if public:
        say(_recipient(public_of(file)))
        return
    made = Identity.new()
    write_new(file, made.printed(), "identity file")
    say(made.recipient.printed())
    click.echo(f"private half in {shown(file)}: {_SAFE}", err=True)


def _say(found: KeyRing) -> None:
    count = counted(len(found.slots), "slot")
    say(f"{_thing(found)}: {count} in key ring {found.ring}{_mark(found)}")
    if found.location != _HERE and not any(one.own for one in found.slots):
        click.echo(
            "this store's own key does not open it: nothing is sent there or read from there until "
            "'holdfast key add --own'", err=True,
        )  # fmt: skip
    if found.left:
        click.echo(f"older key rings are still there: {shown(found.left)}", err=True)


def _thing(found: KeyRing) -> str:
    return "this store" if found.location == _HERE else f"location {found.location}"


def _mark(found: KeyRing) -> str:
    return f", fingerprint {found.fingerprint}" if found.fingerprint else ""


def _only_passphrase(found: KeyRing) -> str:
    """The id of the one slot with a passphrase. Raises InvalidRequest."""
    slots = [one.id for one in found.slots if one.kind == "passphrase"]
    if len(slots) != 1:
        raise InvalidRequest(
            f"location {found.location!r}", expected="one passphrase to change, or --slot", found=str(len(slots)),
            do="see 'holdfast key list'",
        )  # fmt: skip
    return slots[0]


def _new_key(path: str) -> str:
    from engine.keys import Key

    made = Key.new().printed()
    if path != "-":
        write_new(path, made, "key file")
    return made


def _printed(path: str) -> str:
    from engine.keys import load

    return load(path).printed()


def _recipient(text: str) -> str:
    """Raises InvalidRequest for anything but a public half."""
    from engine.keys import Recipient, parse

    found = parse(text)
    if not isinstance(found, Recipient):
        raise InvalidRequest(
            "recipient", expected="a public half (recipient:…)", found="a secret: it may be known now",
            do="keys and private halves are given in files",
        )  # fmt: skip
    return found.printed()


COMMANDS = (key,)
