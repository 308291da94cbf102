"""Manual pages, made from the commands themselves: what ``--help`` says is what ``man`` says."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

import click

from engine.errors import TABLE

SECTION = 1
_ENVIRONMENT = (
    ("HOLDFAST_STORE", "The store's directory, as --store."),
    ("HOLDFAST_API", "The address of a service, as --api."),
    ("HOLDFAST_TOKEN_FILE", "A file that holds the token to ask with, as --token-file."),
    ("HOLDFAST_CA", "Certificates to trust instead of the system's, as --ca."),
    ("HOLDFAST_KEY_FILE", "The key of a sealed store: a file, or credential:NAME of systemd."),
    ("HOLDFAST_PASSPHRASE_FILE", "Its passphrase, likewise; with both it wants both."),
    ("HOLDFAST_CERT", "A file with a certificate to show and its key, as --cert."),
    ("HOLDFAST_DEBUG", "When set, an error that is a bug is shown with all its details."),
)


def pages(top: click.Group, every: dict[str, click.Command], version: str) -> dict[str, str]:
    """File name and roff text: ``holdfast.1`` and one page for each command, those of groups included."""
    root = click.Context(top, info_name="holdfast", **top.context_settings)
    found = {f"holdfast.{SECTION}": _whole(root, every, version)}
    for context in _contexts(root, every):
        name = context.command_path.replace(" ", "-")
        found[f"{name}.{SECTION}"] = _one(context, name, version)
    return found


def configuration(example: str, version: str) -> str:
    """The page of the configuration file, made of the example that names every key with its reason."""
    # What is commented out is in force here; its own comments lose one mark.
    text = re.sub(r"^# ((?:[a-z_]+ = |\[|# ).*)$", r"\1", example, flags=re.MULTILINE)
    top, _, rest = text.partition("\n\n")
    lines = _head("holdfast.toml", "the configuration of holdfast serve", version, 5)
    lines += [".SH DESCRIPTION", *(escaped(line.lstrip("# ")) for line in top.split("\n"))]
    lines += [".SH KEYS"]
    reasons: list[str] = []
    keys: list[str] = []

    def flush() -> None:
        for number, key in enumerate(keys):
            lines.extend([".TQ" if number else ".TP", f"\\fB{escaped(key)}\\fR"])
        if keys:
            lines.append(escaped(" ".join(reasons)) or "\\&")
            reasons.clear()
            keys.clear()

    for line in rest.split("\n"):
        if line.startswith("["):
            flush()
            lines.extend([f'.SS "{escaped(line)}"', escaped(" ".join(reasons))] if reasons
                         else [f'.SS "{escaped(line)}"'])  # fmt: skip
            reasons.clear()
        elif line.startswith("#"):
            flush()
            reasons.append(line.lstrip("# "))
        elif line:
            keys.append(line)
        else:
            flush()
    flush()
    return "\n".join([*lines, ".SH SEE ALSO", _see("holdfast"), ""])


def _contexts(root: click.Context, every: dict[str, click.Command]) -> Iterator[click.Context]:
    for name, command in sorted(every.items()):
        context = click.Context(command, info_name=name, parent=root)
        yield context
        if isinstance(command, click.Group):
            inner = {
                one: command.get_command(context, one) for one in command.list_commands(context)
            }
            yield from _contexts(context, {one: found for one, found in inner.items() if found})


def escaped(text: str) -> str:
    """Text that roff shows as it is."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    for char, name in (
        ("…", "\\&..."),
        ("'", "\\(aq"),
        ("`", "\\(ga"),
        ("^", "\\(ha"),
        ("~", "\\(ti"),
    ):
        text = text.replace(char, name)
    return "\n".join(f"\\&{line}" if line.startswith(".") else line for line in text.split("\n"))


def _head(name: str, about: str, version: str, section: int = SECTION) -> list[str]:
    title = escaped(name.upper())
    return [
        '.\\" Made from what the program says of itself: change that.',
        f'.TH "{title}" "{section}" "" "Holdfast {escaped(version)}" "Holdfast"',
        ".SH NAME",
        f"{escaped(name)} \\- {escaped(about)}",
    ]


def _synopsis(context: click.Context) -> list[str]:
    words = " ".join(context.command.collect_usage_pieces(context))
    return [".SH SYNOPSIS", f"\\fB{escaped(context.command_path)}\\fR {escaped(words)}"]


def _prose(help_text: str) -> list[tuple[bool, list[str]]]:
    """Paragraphs of a help text: (whether it is an example, roff). What follows \\b is set as it stands."""
    found: list[tuple[bool, list[str]]] = []
    for block in re.split(r"\n\s*\n", inspect.cleandoc(help_text)):
        if block.startswith("\b"):
            lines = [escaped(line.strip()) for line in block.split("\n")[1:]]
            found.append((True, [".PP", ".nf", ".RS", *lines, ".RE", ".fi"]))
        elif block:
            found.append((False, [".PP", escaped(" ".join(block.split()))]))
    return found


def _options(context: click.Context) -> list[str]:
    lines: list[str] = []
    for parameter in context.command.get_params(context):
        record = (
            None if isinstance(parameter, click.Argument) else parameter.get_help_record(context)
        )
        if record is None:
            continue
        what = record[1]
        if not what and "--json" in parameter.opts:
            what = "Print one JSON document."
        lines += [".TP", f"\\fB{escaped(record[0])}\\fR", escaped(what) or "\\&"]
    return [".SH OPTIONS", *lines] if lines else []


def _first_sentence(command: click.Command) -> str:
    return command.get_short_help_str(200).rstrip(".")


def _one(context: click.Context, name: str, version: str) -> str:
    command = context.command
    prose = _prose(command.help or "")
    said = [line for example, lines in prose if not example for line in lines]
    shown = [line for example, lines in prose if example for line in lines]
    lines = [*_head(name, _first_sentence(command), version), *_synopsis(context)]
    lines += [".SH DESCRIPTION", *said, *_options(context)]
    if isinstance(command, click.Group):
        lines += _commands({one: found for one in command.list_commands(context)
                            if (found := command.get_command(context, one))}, name)  # fmt: skip
    if shown:
        lines += [".SH EXAMPLES", *shown]
    return "\n".join([*lines, ".SH SEE ALSO", _see("holdfast"), ""])


def _whole(root: click.Context, every: dict[str, click.Command], version: str) -> str:
    said = [line for _, lines in _prose(root.command.help or "") for line in lines]
    lines = [*_head("holdfast", "keep recovery points of what programs write", version)]
    lines += [*_synopsis(root), ".SH DESCRIPTION", *said]
    lines += [*_options(root), *_commands(every, "holdfast"), ".SH ENVIRONMENT"]
    for name, what in _ENVIRONMENT:
        lines += [".TP", f"\\fB{name}\\fR", escaped(what)]
    lines += [".SH EXIT STATUS", ".TP", "\\fB0\\fR", "It was done."]
    for code, names in sorted(_codes().items()):
        lines += [".TP", f"\\fB{code}\\fR", escaped("; ".join(names))]
    return "\n".join(
        [*lines, ".SH SEE ALSO", f"{_see('holdfast.toml', 5)},", _see("fusermount3"), ""]
    )


def _codes() -> dict[int, list[str]]:
    """Exit codes, and what each says: the first sentence of the errors that end with it."""
    found: dict[int, list[str]] = {}
    for kind in TABLE:
        what = (kind.__doc__ or "").split("\n")[0].rstrip(".")
        found.setdefault(kind.kind.exit, []).append(what)
    found[1] = ["A bug in Holdfast, or what reads the output has gone"]
    found[130] = ["Interrupted"]
    return found


def _commands(every: dict[str, click.Command], above: str) -> list[str]:
    lines = [".SH COMMANDS"]
    for name, command in sorted(every.items()):
        lines += [".TP", _see(f"{above}-{name}"), escaped(_first_sentence(command))]
    return lines


def _see(name: str, section: int = SECTION) -> str:
    return f"\\fB{escaped(name)}\\fR({section})"
