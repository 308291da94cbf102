"""Commands about the service itself: status, token, audit."""

from __future__ import annotations

import click

from daemon.cli.common import backend
from daemon.cli.output import Duration, as_json, counted, moment, say, shown, table, when
from daemon.contract import AuditLine, Backend, Role, TokenInfo
from engine.errors import Corrupt

ROLES: tuple[Role, ...] = ("admin", "operator", "writer", "restorer", "auditor")
_AUDIT_PART = 1000  # lines asked for at a time


@click.command()
@click.option("--json", "json_", is_flag=True)
@click.pass_context
def status(ctx: click.Context, json_: bool) -> None:
    """Tell in short how it stands: mounts, open sessions, running jobs, incidents.

    \b
      holdfast status
      holdfast status --json
    """
    with backend(ctx) as asked:
        mounts = asked.mounts()
        opened = asked.sessions(state="open")
        running = asked.jobs(state="running").items
        incidents = asked.incidents()
    if json_:
        as_json({"mounts": mounts, "sessions": opened, "jobs": running, "incidents": incidents})
        return
    states = [one.state for one in mounts]
    told = ", ".join(f"{states.count(state)} {state}" for state in sorted(set(states)))
    stale = sum(one.stale for one in opened)
    say(f"{counted(len(mounts), 'mount')}" + (f": {told}" if told else ""))
    say(f"{counted(len(opened), 'open session')}" + (f", {stale} stale" if stale else ""))
    say(f"{counted(len(running), 'running job')}")
    say(f"{counted(len(incidents), 'incident')}")
    pending = sum(one.pending for one in mounts)
    if pending:
        say(f"{counted(pending, 'point')} without all copies: see 'holdfast uploads'")
    for one in mounts:
        if one.frozen:
            say(f"{shown(one.name)}: retention waits: {shown(one.frozen)}")
        if one.drilled_ns:
            say(
                f"{shown(one.name)}: recovered in {one.recovery_s:.1f} s in the drill of {moment(one.drilled_ns)}"
            )


@click.group()
def token() -> None:
    """Tokens: what programs ask the service with.

    \b
      (umask 077; holdfast token create --role writer --mount oracle > oracle.token)
      holdfast token list
    """


@token.command()
@click.option("--role", required=True, type=click.Choice(ROLES), help="What it may do.")
@click.option("--mount", "mounts", multiple=True, help="Only for this mount; may be given again.")
@click.option("--label", default="", help="A text for whoever looks.")
@click.option(
    "--expires", type=Duration(), help="Valid for this time, as 90d; for ever unless given."
)
@click.option("--json", "json_", is_flag=True)
@click.pass_context
def create(
    ctx: click.Context,
    role: Role,
    mounts: tuple[str, ...],
    label: str,
    expires: float | None,
    json_: bool,
) -> None:
    """Make a token and print it. It is shown this once: the store keeps a hash.

    \b
      (umask 077; holdfast token create --role writer --mount oracle --expires 90d > oracle.token)
    """
    with backend(ctx) as asked:
        made, secret = asked.create_token(role, list(mounts), label=label, lifetime_s=expires or 0)
    if json_:
        as_json({"token": made, "secret": secret})
        return
    click.echo(
        f"token {made.id}: {role} of {_mounts(made)}, ends {when(made.expires_ns)}", err=True
    )
    say(secret)


def _mounts(token: TokenInfo) -> str:
    return ", ".join(map(shown, token.mounts)) or "all mounts"


@token.command("list")
@click.option("--json", "json_", is_flag=True)
@click.pass_context
def list_(ctx: click.Context, json_: bool) -> None:
    """List tokens, without their secrets.

    \b
      holdfast token list --json
    """
    with backend(ctx) as asked:
        found = asked.tokens()
    if json_:
        as_json(found)
        return
    rows = [
        [one.id, one.role, _mounts(one), moment(one.created_ns), when(one.expires_ns),
         when(one.revoked_ns, "-"), when(one.used_ns), shown(one.label)]
        for one in found
    ]  # fmt: skip
    table(rows, ["TOKEN", "ROLE", "MOUNTS", "CREATED", "ENDS", "REVOKED", "USED", "LABEL"])


@token.command()
@click.argument("number", metavar="ID")
@click.pass_context
def revoke(ctx: click.Context, number: str) -> None:
    """Make a token worthless, from now on.

    \b
      holdfast token revoke 01jdq3
    """
    with backend(ctx) as asked:
        say(f"token {asked.revoke_token(number).id} revoked")


@click.command()
@click.option("--after", type=click.IntRange(0), default=0, help="Only lines after this number.")
@click.option("--limit", type=click.IntRange(1), help="At most so many lines.")
@click.option("--verify", is_flag=True, help="Check that no line was changed, taken out or put in.")
@click.option("--json", "json_", is_flag=True)
@click.pass_context
def audit(ctx: click.Context, after: int, limit: int | None, verify: bool, json_: bool) -> None:
    """List who did what, from where, and what came of it.

    \b
      holdfast audit --after 1000 --json
      holdfast audit --verify
    """
    if verify:
        _verify(ctx, json_)
        return
    with backend(ctx) as asked:
        found = _lines(asked, after, limit)
    if json_:
        as_json(found)
        return
    rows = [
        [str(one.number), moment(one.time_ns), shown(one.who), shown(one.origin), shown(one.act),
         shown(one.result), shown(one.about)]
        for one in found
    ]  # fmt: skip
    table(rows, ["NO", "TIME", "WHO", "FROM", "ACT", "RESULT", "ABOUT"])


def _lines(asked: Backend, after: int, limit: int | None) -> list[AuditLine]:
    found: list[AuditLine] = []
    while limit is None or len(found) < limit:
        left = _AUDIT_PART if limit is None else min(_AUDIT_PART, limit - len(found))
        part = asked.audit(after=after, limit=left)
        if not part:
            break
        found += part
        after = part[-1].number
    return found


def _verify(ctx: click.Context, json_: bool) -> None:
    """Each line is looked at as it comes: the chain is computed here, whoever sent them."""
    from daemon.observe.audit import follows

    chain, count, bad = "", 0, 0
    with backend(ctx) as asked:
        while not bad and (part := asked.audit(after=count, limit=_AUDIT_PART)):
            for line in part:
                if not follows(line, count + 1, chain):
                    bad = count + 1
                    break
                chain, count = line.chain, line.number
    if json_:
        as_json({"lines": count, "bad": bad, "chain": chain})
    elif not bad:
        say(
            f"{counted(count, 'line')}, none changed, taken out or put in; keep this elsewhere: {chain}"
        )
    if bad:
        raise Corrupt("audit log", expected=f"line {bad} as it was written",
                      found="that it, or one before it, was changed, taken out or put in",
                      do="compare it with a copy, and ask who may write it")  # fmt: skip


COMMANDS = (status, token, audit)
