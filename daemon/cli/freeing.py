"""The command that frees at a storage location what no point needs any more."""

from __future__ import annotations

from typing import Any

import click

from daemon.cli.common import backend
from daemon.cli.output import Duration, Size, as_json, counted, say, size

_PRICE = click.FloatRange(0, 1e9)


@click.command()
@click.argument("name")
@click.option(
    "--dry-run", is_flag=True, help="Say what would be freed, and what that costs; free nothing."
)
@click.option(
    "--for", "budget_s", type=Duration(), help="Longest time to work, as 10m; the next run goes on."
)
@click.option("--bytes", type=Size(), help="Fetch and send no more than about this, as 10G.")
@click.option(
    "--grace",
    "grace_s",
    type=Duration(),
    help="How long packs stay that are gone, as a restore elsewhere may read them; 24h by default.",
)
@click.option("--price-writes", "writes", type=_PRICE, help="Of 1,000 requests that write or list.")
@click.option("--price-reads", "reads", type=_PRICE, help="Of 1,000 requests that read.")
@click.option("--price-egress", "egress", type=_PRICE, help="Of a GB fetched.")
@click.option("--price-month", "month", type=_PRICE, help="Of a GB kept for a month.")
@click.option("--json", "json_", is_flag=True)
@click.pass_context
def reclaim(ctx: click.Context, /, name: str, json_: bool, **options: Any) -> None:
    """Free at a location what none of its points needs any more: after points were deleted.

    Packs of which little is needed are written anew. It may be stopped at any time, and goes on with the next run;
    uploads have their turn meanwhile.

    \b
      holdfast location reclaim offsite --dry-run
      holdfast location reclaim offsite --for 10m
    """
    from daemon.cli import following

    given = {key: value for key, value in options.items() if value not in (None, False)}
    with backend(ctx) as asked:
        found = following.run(asked, "reclaim", {"location": name, **given})
    if json_:
        as_json(found)
    else:
        _tell(name, found, dry=bool(given.get("dry_run")))


def _tell(name: str, found: dict[str, Any], *, dry: bool) -> None:
    what = "would be freed" if dry else "freed"
    say(f"{name}: {counted(found['packs'], 'pack')}, {size(found['bytes'])} {what}")
    if found["rewritten"]:
        verb = "would be" if dry else "were"
        say(f"{counted(found['rewritten'], 'pack')} of them or of those that follow {verb} written anew: "
            f"{size(found['added'])}")  # fmt: skip
    if found["later_packs"]:
        say(
            f"{counted(found['later_packs'], 'pack')}, {size(found['later_bytes'])} more once their grace is over"
        )
    if found["locked"]:
        say(f"{counted(found['locked'], 'pack')} more once the server lets go of them")
    if found["waiting"]:
        say(
            f"{counted(found['waiting'], 'pack')} more once 'holdfast gc' has freed chunks here that name them"
        )
    if found["left"]:
        say(f"{counted(found['left'], 'pack')} left as they are; see 'holdfast incidents'")
    requests = ", ".join(f"{number} {kind}" for kind, number in found["requests"].items())
    say(
        f"requests: {requests or 'none'}; {size(found['downloaded'])} fetched, {size(found['uploaded'])} sent"
    )
    if found["cost"] or found["saves"]:
        say(f"estimated cost {found['cost']:.4f}, and {found['saves']:.4f} less to pay each month")
    if not dry and not found["done"]:
        say("there is more to do: the next run goes on")
