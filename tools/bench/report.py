"""The tables of a run, for a terminal and as Markdown: ratios against the targets first."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from tools.bench.results import Results, middle
from tools.bench.targets import TARGETS, Target

Table = tuple[list[str], list[list[str]]]
TIB: Final = 1 << 40
MIB: Final = 1 << 20
SMALL: Final = "Sets below scale 1: the start of every command weighs more than it should. "
SET_COLUMNS: Final = (
    ("first MB/s", "first_mb_s", 0),
    ("later MB/s", "later_mb_s", 0),
    ("stored", "ratio", 2),
    ("restore MB/s", "restore_mb_s", 0),
    ("out of .snapshots", "mount_mb_s", 0),
    ("peak MiB", "peak_mib", 0),
)


def number(value: float | None, digits: int = 2) -> str:
    """Write a number with thousands apart, or a dash for none."""
    return "–" if value is None else f"{value:,.{digits}f}"


def spread(values: Sequence[float], digits: int) -> str:
    """Write the median, and the lowest and highest when there are several."""
    text = number(middle(values), digits)
    if len(values) > 1:
        text += f" ({number(min(values), digits)}–{number(max(values), digits)})"
    return text


def target_line(target: Target, run: Results) -> list[str]:
    """Return the cells of one target: what, needed, got, verdict."""
    values = target.values(run)
    got = middle(values)
    sign = "≤" if target.most else "≥"
    needed = f"{sign} {target.need:g} {target.unit}"
    if got is None:
        return [target.what, needed, "–", "not measured"]
    verdict = "reached" if target.reached(got) else "FALLS SHORT"
    return [target.what, needed, spread(values, 0 if got >= 100 else 2), verdict]


def targets_table(run: Results) -> Table:
    """Compare the run with every target."""
    return ["measure", "wanted", "got", ""], [target_line(target, run) for target in TARGETS]


def sets_table(run: Results) -> Table:
    """List medians of every set and peer."""
    lines = []
    for name in dict.fromkeys(row["set"] for row in run.sets):
        for peer in dict.fromkeys(row["peer"] for row in run.rows(name)):
            cells = [name, peer]
            for _, key, digits in SET_COLUMNS:
                values = list(run.values(name, peer, key).values())
                cells.append(spread(values, digits) if values and any(values) else "–")
            failed = [row for row in run.rows(name) if row["peer"] == peer and "error" in row]
            cells.append(f"{len(failed)} failed" if failed else "")
            lines.append(cells)
    return ["set", "peer", *(title for title, _, _ in SET_COLUMNS), ""], lines


def probes_table(run: Results, probe: str, keys: Sequence[str]) -> Table:
    """List medians of a probe's peers."""
    lines = []
    for peer in dict.fromkeys(row["peer"] for row in run.rows(probe)):
        cells = [peer]
        for key in keys:
            values = list(run.values(probe, peer, key).values())
            cells.append(spread(values, 0) if values else "–")
        lines.append(cells)
    return ["peer", *keys], lines


def snapshots_table(run: Results) -> Table:
    """List seconds of snapshots by size."""
    lines = []
    for row in run.rows("snapshots"):
        what = f"{row['files']:,} files" if row["kind"] == "tree" else f"{row['file_mib']} MiB file"
        keys = ("first_s", "idle_s", "changed_100_s", "changed_1pc_s")
        lines.append([what, *(number(row.get(key), 3) for key in keys), row.get("error", "")])
    return ["tree", "first s", "nothing changed s", "100 changed s", "1 % changed s", ""], lines


def index_table(run: Results) -> Table:
    """List what the index needs: on real sets, and with synthetic chunks."""
    lines = []
    for name in dict.fromkeys(row["set"] for row in run.sets):
        extras = [row.get("extra", {}) for row in run.rows(name) if row["peer"] == "holdfast"]
        shares = [extra["index_bytes"] / extra["plain_bytes"] * TIB / MIB
                  for extra in extras if extra.get("plain_bytes")]  # fmt: skip
        if shares:
            lines.append([f"{name}: MiB per unique TiB", number(middle(shares), 0)])
    for row in run.rows("index"):
        lines.append([f"{row['chunks']:,} chunks: bytes each", number(row["bytes_per_chunk"], 0)])
        lines.append(["insert /s, at 10⁵ and at the end",
                      f"{row['insert_start_s']:,.0f}, {row['insert_end_s']:,.0f}"])  # fmt: skip
        lines.append(["look-up /s, at 10⁵ and at the end",
                      f"{row['lookup_start_s']:,.0f}, {row['lookup_end_s']:,.0f}"])  # fmt: skip
    for row in run.rows("adopt"):
        took = f"{number(row['adopt_s'], 1)}, {number(row['processor_s'], 1)}"
        lines.append([f"adopting {row['chunks']:,} chunks: s, s of processor", took])
    return ["index", "value"], lines


def tables(run: Results) -> list[tuple[str, Table]]:
    """Return every table that has lines, with its heading."""
    found = [("Against the targets", targets_table(run)), ("Sets", sets_table(run))]
    keys = {
        "overwrite": ("fill_mb_s", "buffered_iops", "direct_iops", "peak_mib"),
        "untar": ("alone_files_s", "four_files_s", "peak_mib"),
        "nfs": ("in_mb_s", "out_mb_s", "peak_mib"),
        "uploads": (
            "sent_mib",
            "upload_mb_s",
            "put_mb_s",
            "objects_per_gib",
            "write_alone_mb_s",
            "write_beside_mb_s",
        ),
    }
    keys["restores"] = (
        "stored_mib",
        "restore_mb_s",
        "download_mb_s",
        "link_restore_mb_s",
        "begin_s",
    )
    titles = {
        "overwrite": "Random 4 KiB overwrites",
        "untar": "Untar",
        "nfs": "Over NFS",
        "uploads": "Sent to a bucket",
        "restores": "Restored from a bucket",
    }
    found += [(titles[probe], probes_table(run, probe, keys[probe])) for probe in keys]
    found += [("Snapshots", snapshots_table(run)), ("Index", index_table(run))]
    return [(title, table) for title, table in found if table[1]]


def conditions(run: Results) -> str:
    """Return one paragraph about the machine and the settings."""
    machine, how = run.machine, run.conditions
    return (
        f"{machine.get('date')}: {machine.get('cores')} cores ({machine.get('processor')}), "
        f"{machine.get('memory_gib')} GiB, Linux {machine.get('kernel')}, "
        f"Python {machine.get('python')}; load {machine.get('load_at_start')} at the start, "
        f"{how.get('load_at_end')} at the end. Scale {how.get('scale')}, "
        f"{how.get('repeats')} repetitions{', quick' if how.get('quick') else ''}. "
        f"Median (lowest–highest); MB = 10⁶ bytes; sync (and snapshot) are in all times; "
        f"{'caches dropped before restores' if machine.get('root') else 'CACHES NOT DROPPED'}. "
        f"{SMALL if how.get('scale', 1) < 1 else ''}"
        f"{'; '.join(str(one) for one in how.get('versions', []))}."
    )


def as_text(run: Results) -> str:
    """Return the tables for a terminal."""
    parts = []
    for title, (head, lines) in tables(run):
        widths = [max(len(str(line[n])) for line in (head, *lines)) for n in range(len(head))]
        rows = [_padded(line, widths) for line in (head, *lines)]
        parts.append("\n".join([title, *(f"  {row}" for row in rows)]))
    return "\n\n".join([*parts, conditions(run)])


def _padded(cells: Sequence[Any], widths: Sequence[int]) -> str:
    padded = [str(cell).ljust(width) for cell, width in zip(cells, widths, strict=True)]
    return "  ".join(padded).rstrip()


def _piped(cells: Sequence[Any]) -> str:
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"


def write_markdown(run: Results, path: Path) -> None:
    """Write the tables as a Markdown page."""
    parts = ["# Benchmark results", conditions(run)]
    for title, (head, lines) in tables(run):
        rows = [head, ["---"] * len(head), *lines]
        parts.append(f"## {title}")
        parts.append("\n".join(_piped(row) for row in rows))
    path.write_text("\n\n".join(parts) + "\n")
