"""What commands print for programs: JSON of known keys and types, ids where scripts take them, help, completion."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import click
import pytest

from daemon.cli.main import cli
from daemon.cli.output import how_far
from engine import Progress
from tests.cli.support import good, holdfast, new_store, noise, refused, snapshot, write
from tests.warm import FRESH

Shape = dict[str, type]

POINT: Shape = {
    "id": str, "mount": str, "seq": int, "time_ns": int, "label": str, "logical_bytes": int, "files": int,
    "locked_ns": int,
}  # fmt: skip
STATS: Shape = {
    "logical_bytes": int, "live_bytes": int, "stored_bytes": int, "ratio": float, "points": int, "chunks": int,
    "delta_chunks": int, "dictionary_chunks": int, "plain_bytes": int, "chunk_bytes": int, "packs": int,
    "index_bytes": int, "index_used_bytes": int, "scrubbed_bytes": int, "last_scrub_ns": int,
}  # fmt: skip
COLLECTED: Shape = {
    "dead_chunks": int, "freed_bytes": int, "removed_bytes": int, "packs_removed": int, "packs_rewritten": int,
    "packs_mended": int, "packs_left": int, "files_quarantined": int, "finished": bool, "returned_bytes": int,
}  # fmt: skip
CHANGE: Shape = {"kind": str, "path": str, "detail": str}

OLD = {b"same": b"same", b"changed": noise(200_000, 1), b"removed": b"removed"}
NEW = {b"changed": noise(250_000, 2), b"added": b"added"}


class Made(NamedTuple):
    store: Path
    old: str
    new: str


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Two points of ``m``, one of ``n``; tests that change something take a copy."""
    store = new_store(tmp_path_factory.mktemp("made") / "store")
    good(holdfast(store, "create", "n"))
    write(store, OLD)
    old = good(holdfast(store, "snapshot", "m", "--label", "the old one")).split()[-1]
    write(store, NEW)
    new = snapshot(store)
    snapshot(store, "n")
    return Made(store, old, new)


def parsed(store: Path, *command: str) -> object:
    """The one JSON document a command prints, with nothing beside it."""
    done = holdfast(store, *command, "--json")
    said = good(done)
    assert done.stderr == ""
    assert said.endswith("\n") and said.count("\n") == 1
    return json.loads(said)


def shaped(value: object, shape: Shape) -> dict[str, object]:
    """The value, if it has just these keys, each of its type."""
    assert isinstance(value, dict)
    assert {key: type(one) for key, one in value.items()} == shape
    return value


# --- JSON -----------------------------------------------------------------------------------------------------


def test_points_in_json(made: Made) -> None:
    found = parsed(made.store, "points")
    assert isinstance(found, list)
    points = [shaped(one, {**POINT, "copies": dict}) for one in found]
    assert [(one["mount"], one["seq"]) for one in points] == [("m", 1), ("m", 2), ("n", 1)]
    assert [one["id"] for one in points[:2]] == [made.old, made.new]
    assert points[0]["label"] == "the old one" and points[0]["files"] == 4
    assert points[0]["logical_bytes"] == sum(len(data) for data in OLD.values())
    times = [one["time_ns"] for one in points]
    assert times == sorted(times)  # type: ignore[type-var]
    assert parsed(made.store, "points", "m") == found[:2]


def test_an_empty_list_is_json_too(empty: Path) -> None:
    assert parsed(empty, "points") == []
    assert parsed(empty, "points", "m") == []
    refused(holdfast(empty, "points", "nope", "--json"), 10, "mounts: m")


def test_stats_in_json(made: Made, empty: Path) -> None:
    whole = shaped(parsed(made.store, "stats"), STATS)
    assert whole["points"] == 3
    files = [path for path in made.store.rglob("*") if path.is_file()]
    assert whole["stored_bytes"] == sum(path.stat().st_size for path in files)
    assert whole["ratio"] == whole["logical_bytes"] / whole["stored_bytes"]  # type: ignore[operator]
    one = shaped(parsed(made.store, "stats", "m"), STATS)
    assert one["points"] == 2
    assert one["live_bytes"] == sum(len(data) for data in {**OLD, **NEW}.values())
    assert shaped(parsed(made.store, "stats", "n"), STATS)["logical_bytes"] == 0
    assert shaped(parsed(empty, "stats"), STATS)["ratio"] == 0.0


def test_stats_for_people_has_a_line_for_each_number_and_they_line_up(made: Made) -> None:
    lines = good(holdfast(made.store, "stats")).splitlines()
    found = [re.fullmatch(r"([a-z ]*[a-z]) +([\d.]+(?: [KMG]?i?B)?|never)", line) for line in lines]
    assert all(found), lines
    names = [one[1].replace(" ", "_") for one in found if one]
    assert names == [name.removesuffix("_ns") for name in STATS]
    assert len({one.start(2) for one in found if one}) == 1, lines


def test_diff_in_json(made: Made) -> None:
    found = parsed(made.store, "diff", made.old, made.new)
    assert isinstance(found, list)
    by_path = {one["path"]: one for one in found if shaped(one, CHANGE)}
    assert by_path.keys() == {"added", "changed"}
    assert by_path["added"] == {"kind": "added", "path": "added", "detail": "file"}
    assert by_path["changed"]["kind"] == "changed"
    assert by_path["changed"]["detail"].startswith("content, size 200000 to 250000")
    back = parsed(made.store, "diff", made.new, made.old)
    assert isinstance(back, list)
    assert {(one["kind"], one["path"]) for one in back} == {
        ("removed", "added"), ("changed", "changed"),
    }  # fmt: skip
    assert parsed(made.store, "diff", made.old, made.old) == []


def test_check_in_json(made: Made) -> None:
    for option in ([], ["--read-data"]):
        found = parsed(made.store, "check", *option)
        assert isinstance(found, dict) and found.keys() == {"problems", "counts"}
        assert found["problems"] == []
        assert found["counts"]["chunks"] > 0
        assert {type(count) for count in found["counts"].values()} == {int}


def contents(store: Path) -> dict[str, bytes]:
    """Every file of a store but LMDB's table of readers, and the log of who opened it last."""
    return {
        str(path.relative_to(store)): path.read_bytes()
        for path in sorted(store.rglob("*"))
        if path.is_file() and path.name != "lock.mdb"
    }


def test_a_dry_collection_tells_what_the_real_one_does_and_changes_nothing(
    made: Made, tmp_path: Path
) -> None:
    store = shutil.copytree(made.store, tmp_path / "store")
    nothing = shaped(parsed(store, "gc", "--dry-run"), COLLECTED)
    good(holdfast(store, "rm", made.old))
    before = contents(store)
    promised = shaped(parsed(store, "gc", "--dry-run"), COLLECTED)
    assert "would be freed" in good(holdfast(store, "gc", "--dry-run"))
    assert contents(store) == before
    assert promised["freed_bytes"] > nothing["freed_bytes"] + 199_000  # type: ignore[operator]
    assert promised["removed_bytes"] == promised["packs_removed"] == 0
    done = shaped(parsed(store, "gc"), COLLECTED)
    assert {key: done[key] for key in ("dead_chunks", "freed_bytes")} == {
        key: promised[key] for key in ("dead_chunks", "freed_bytes")
    }
    assert done["finished"] is True
    assert contents(store) != before
    assert shaped(parsed(store, "gc", "--dry-run"), COLLECTED)["dead_chunks"] == 0


def test_how_far_something_is() -> None:
    half = Progress("restore", 3 << 20, 9 << 20, "bytes")
    assert how_far(half, 2 << 20, 4.0) == "restore: 3.0 MiB of 9.0 MiB, 512.0 KiB/s, 0:12 left"
    assert how_far(half, 0, 4.0) == "restore: 3.0 MiB of 9.0 MiB"
    assert (
        how_far(Progress("walk", 5000, None, "nodes"), 5000, 2.0)
        == "walk: 5000 nodes, 2,500 a second"
    )
    far = Progress("gc", 1, 7201, "chunks")
    assert how_far(far, 1, 1.0) == "gc: 1 of 7201 chunks, 1 a second, 2:00:00 left"


def test_snapshot_and_restore_and_repair_in_json(made: Made, tmp_path: Path) -> None:
    store = shutil.copytree(made.store, tmp_path / "store")
    point = shaped(parsed(store, "snapshot", "m", "--label", "x"), POINT)
    listed = parsed(store, "points", "m")
    assert isinstance(listed, list) and listed[-1] == {**point, "copies": {}}
    target = str(tmp_path / "out")
    assert parsed(store, "restore", str(point["id"]), target) == {
        "files": 4,
        "bytes": sum(len(data) for data in {**OLD, **NEW}.values()),
        "kept": 0,
        "disowned": 0,
        "damaged": [],
        "skipped": [],
    }
    assert parsed(store, "repair") == {"done": []}


# --- ids ------------------------------------------------------------------------------------------------------


def test_the_id_is_the_last_word_of_snapshot(empty: Path) -> None:
    words = good(holdfast(empty, "snapshot", "m", "--label", "not the last")).split()
    assert re.fullmatch(r"[0-9a-z]{26}", words[-1])
    good(holdfast(empty, "diff", words[-1], "m@latest"))
    assert words[-1] in good(holdfast(empty, "points")).splitlines()[1].split()[0]


def test_a_prefix_names_a_point_only_while_it_is_the_only_one(made: Made) -> None:
    common = next(n for n in range(26) if made.old[n] != made.new[n])
    assert good(holdfast(made.store, "diff", made.old[: common + 1], made.new)) != ""
    refused(holdfast(made.store, "diff", made.old[:common], made.new), 2, "give more of the id")


# --- help and completion --------------------------------------------------------------------------------------

EVERY = cli.every()
COMMANDS = sorted(EVERY)
# One command of each module of commands.
ONE_OF_EACH = {module: name for name, module in cli.modules.items()}


def examples(text: str) -> list[str]:
    """The command lines of a help text that run holdfast."""
    found = []
    for line in text.splitlines():
        inner = re.search(r"(?:^\s+|\$\()(holdfast [^|)>]+)", line)
        if inner and not line.lstrip().startswith("Usage"):
            found.append(inner[1].strip())
    return found


def parse(line: str) -> None:
    """Have click parse one example, and not run it. Raises what click raises of a wrong one."""
    words = shlex.split(line)[1:]
    with click.Context(cli, info_name="holdfast") as ctx:
        _, words, _ = cli.make_parser(ctx).parse_args(words)
        name, command, rest = cli.resolve_command(ctx, words)
        assert command is not None
        command.make_context(name, rest, parent=ctx).close()


@pytest.mark.parametrize("name", COMMANDS)
def test_every_help_has_examples_that_parse(name: str, tmp_path: Path) -> None:
    text = good(holdfast(tmp_path / "no store is needed", name, "--help"))
    assert text.startswith("Usage: holdfast")
    found = examples(text)
    assert any(f" {name}" in line for line in found), text
    for line in found:
        parse(line)
    command = EVERY[name]
    for option in command.params:
        if isinstance(option, click.Option):
            assert option.opts[-1] in text
    short = good(holdfast(tmp_path / "no store is needed", name, "-h"))
    assert short == text


@pytest.mark.parametrize("name", sorted(ONE_OF_EACH.values()))
def test_each_module_is_imported_by_its_commands_alone(name: str) -> None:
    """In an interpreter of its own, where nothing else has imported what it forgets to."""
    done = subprocess.run([*FRESH, name, "--help"], capture_output=True, text=True, check=False)
    assert good(done).startswith("Usage: holdfast")


def test_the_help_of_all_names_every_command_and_its_examples_parse(tmp_path: Path) -> None:
    text = good(holdfast(tmp_path, "--help"))
    assert len(examples(text)) >= 5
    for line in examples(text):
        parse(line)
    for name in COMMANDS:
        assert re.search(rf"^  {name} +[A-Z]", text, re.MULTILINE), name


def test_an_example_that_were_wrong_would_be_noticed() -> None:
    for line in (
        "holdfast frobnicate",
        "holdfast gc --wet-run",
        "holdfast diff one",
        "holdfast gc --for soon",
        "holdfast --shop x gc",
    ):
        with pytest.raises(click.UsageError):
            parse(line)


def test_every_option_of_every_command_is_explained() -> None:
    silent = [
        f"{name} {option.opts[-1]}"
        for name, command in EVERY.items()
        for option in command.params
        if isinstance(option, click.Option) and not option.help and option.opts[-1] != "--json"
    ]
    assert silent == []


def test_completion_for_bash_is_a_script_that_completes_commands(tmp_path: Path) -> None:
    script = good(holdfast(tmp_path, "completion", "bash"))
    file = tmp_path / "holdfast.bash"
    file.write_text(script)
    subprocess.run(["bash", "-n", file], check=True)
    registered = subprocess.run(
        ["bash", "-c", f"source {shlex.quote(str(file))}; complete -p holdfast"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "holdfast" in registered.stdout and registered.stderr == ""
    for shell in ("zsh", "fish"):
        assert "_HOLDFAST_COMPLETE" in good(holdfast(tmp_path, "completion", shell))
    done = holdfast(tmp_path, "completion", "csh")
    assert done.returncode == 2 and "'bash', 'zsh', 'fish'" in done.stderr


def test_the_version_is_that_of_the_package(tmp_path: Path) -> None:
    assert re.fullmatch(r"holdfast, version \d+\.\d+\.\d+\n", good(holdfast(tmp_path, "--version")))
