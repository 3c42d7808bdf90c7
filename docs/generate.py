"""Writes the pages of the documentation that say what the code says: papers/*.md, report.md and cli.md.

python docs/generate.py
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from cyclopts import Group
from cyclopts.argument import Argument

from eckart.adapters.contract import AdapterCard
from eckart.cli.cards import text_of
from eckart.cli.command_line import COMMANDS, arguments_of, command_line
from eckart.compressors.contract import SIZES, CompressorCard
from eckart.jobs.diagnose.report import diagnosis_schema
from eckart.register import FAMILIES, Card, register_of
from eckart.report import schema
from eckart.report.compensation import compensation_schema
from eckart.report.fitting import fitting_schema
from eckart.report.learning import learning_schema
from eckart.report.training import training_schema

HERE = Path(__file__).parent
NOTE = "<!-- Written by docs/generate.py from {source}; run `make docs` after a change there. -->"

REPORTS_HEAD = """# Reports

Every command that makes a directory writes into it what it did, as JSON and as a page,
`report.html`, which needs no network. Names and meanings stay from version to version;
fields that are not required may be added. The JSON Schema of `report.json` is `eckart.report.schema()`.

A dot leads into an object and `[]` into the items of an array. Fields marked *optional* may be missing.
"""

REPORTS: dict[str, tuple[str, Callable[[], dict[str, Any]]]] = {
    "report.json": ("eckart compress", schema),
    "training.json": ("eckart adapt", training_schema),
    "train.json": ("eckart train", learning_schema),
    "compensation.json": ("eckart compensate", compensation_schema),
    "diagnosis.json": ("eckart diagnose", diagnosis_schema),
    "fit.json": ("eckart fit", fitting_schema),
}
"""By the name of the file: the command that writes it, and its schema."""

CLI_HEAD = """# Command line

`python -m eckart` is the same as `eckart`. The exit status is 0, 2 where a request cannot be met (the last line of the
error says what to do), 130 after Ctrl-C, 3 where `eckart export --rank` loses something, and 1 where `eckart verify`
finds damage or for a fault of eckart, which shows its traceback. Shares are given as 0.8 or 80%. Results go to the
output and all else to the error stream; with `--json` the output is one JSON document.
`eckart --install-completion` makes the shell complete commands and options.
"""


def papers_page(family: str) -> str:
    """The register of a family as a table, and a section for each of its papers."""
    register = register_of(family)
    cards = [register[name] for name in register]
    lines = [NOTE.format(source=FAMILIES[family].replace(".", "/")), "", f"# {family.capitalize()}", ""]
    about = (import_module(FAMILIES[family]).__doc__ or "").strip().removeprefix(f"{family.capitalize()}: ")
    lines += [about[:1].upper() + about[1:], ""]
    lines += [
        f"How one is put to use: {register.door.format(name='NAME')}. `eckart methods {family}` prints this table and"
    ]
    lines += ["`eckart methods NAME` a card. What is said to be measured was printed by a benchmark.", ""]
    if not cards:
        return "\n".join([*lines, "There is none yet."]) + "\n"
    headings = ["name", *cards[0].columns()]
    lines += [f"| {' | '.join(headings)} |", "|---" * len(headings) + "|"]
    for card in cards:
        cells = [f"`{text}`" if text == card.expression != "" else _cell(text) for text in card.columns().values()]
        lines.append(f"| [`{card.name}`](#{card.name}) | {' | '.join(cells)} |")
    for card in cards:
        lines += ["", f"## {card.name}", "", text_of(card)]
        lines += ["", *facts(card)] if facts(card) else []
    return "\n".join(lines) + "\n"


def facts(card: Card) -> list[str]:
    """What a card knows beside its words, a line each."""
    if isinstance(card, CompressorCard):
        return [f"Sizes: {SIZES[card.size]}. Shared out: `{card.allocation}`, unless `--allocation` says otherwise."]
    if isinstance(card, AdapterCard):
        return [f"Numbers that train beside a matrix of 64 x 48 at rank 8: {card.parameters(64, 48, 8)}."]
    return []


def _cell(text: str) -> str:
    """Text as a cell of a table."""
    return text.replace("|", "\\|")


def reports_page() -> str:
    """The schemas of the reports, field by field."""
    lines = [NOTE.format(source="src/eckart/report"), "", REPORTS_HEAD]
    for file, (command, made) in REPORTS.items():
        root = made()
        lines += [f"## {file}", "", f"`{command}` writes it.", "", "| field | type | what it is |", "|---|---|---|"]
        lines += [f"| `{name}` | {kind} | {text} |" for name, kind, text in fields(root, root, "")]
        lines.append("")
    return "\n".join(lines)


def fields(node: Mapping[str, Any], root: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str, str]]:
    """(path, type, description) of every field below a schema, in its order."""
    required = node.get("required", [])
    for name, entry in node.get("properties", {}).items():
        entry = resolved(entry, root)
        text = entry.get("description", "")
        if "enum" in entry:
            text += " One of " + ", ".join(f"`{value}`" for value in entry["enum"]) + "."
        yield prefix + name, kind_of(entry, root), text if name in required else f"*optional* {text}"
        for alternative in entry.get("oneOf", [entry]):
            yield from fields(resolved(alternative, root), root, f"{prefix}{name}.")
        if isinstance(entry.get("items"), dict):
            yield from fields(resolved(entry["items"], root), root, f"{prefix}{name}[].")


def resolved(entry: Mapping[str, Any], root: Mapping[str, Any]) -> dict[str, Any]:
    """The definition behind a `$ref`, under the entry's own description."""
    if "$ref" not in entry:
        return dict(entry)
    definition: dict[str, Any] = root["$defs"][entry["$ref"].rpartition("/")[2]]
    return {**definition, **{key: value for key, value in entry.items() if key != "$ref"}}


def kind_of(entry: Mapping[str, Any], root: Mapping[str, Any]) -> str:
    if "oneOf" in entry:
        return " or ".join(dict.fromkeys(kind_of(resolved(one, root), root) for one in entry["oneOf"]))
    kinds = entry.get("type", "string" if "enum" in entry else "object")
    names = [kinds] if isinstance(kinds, str) else list(kinds)
    if isinstance(entry.get("items"), dict) and "array" in names:
        inner = resolved(entry["items"], root).get("type", "object")
        names[names.index("array")] = f"array of {inner}s"
    return " or ".join(names)


def cli_page() -> str:
    """Every command with its arguments, group by group."""
    lines = [NOTE.format(source="src/eckart/cli"), "", CLI_HEAD]
    app = command_line()
    for name, does in COMMANDS.items():
        lines += [f"## eckart {name}", "", f"{does[:1].upper()}{does[1:]}.", ""]
        groups: dict[Group, list[Argument]] = {}
        for argument in arguments_of(app, name):
            if argument.show:
                groups.setdefault(argument.parameter.group[0], []).append(argument)
        for group in sorted(groups, key=lambda group: (group.name != "Arguments", str(group.sort_key))):
            lines += [f"| {group.name} | what it is |", "|---|---|"]
            lines += [f"| {_usage(argument)} | {_help(argument)} |" for argument in groups[group]]
            lines.append("")
    return "\n".join(lines)


def _usage(argument: Argument) -> str:
    if argument.field_info.is_positional_only:
        return f"`{argument.name}`"
    value = ""
    if not argument.is_flag() and not any(name.startswith("--no-") for name in argument.names):
        choices = argument.get_choices()
        value = " " + ("\\|".join(choices) if choices else argument.name[2:].upper().replace("-", "_"))
    return ", ".join(f"`{name}{value}`" for name in argument.names)


def _help(argument: Argument) -> str:
    text, default = argument.parameter.help or "", argument.field_info.default
    if argument.required and not argument.field_info.is_positional_only:
        return f"{text} (required)"
    shown = argument.parameter.show_default is not False and default not in (None, argument.field_info.empty)
    return f"{text} (default {default})" if shown else text


PAGES: dict[str, Callable[[], str]] = {
    **{f"papers/{family}.md": partial(papers_page, family) for family in FAMILIES},
    "reference/report.md": reports_page,
    "reference/cli.md": cli_page,
}


def main() -> None:
    for name, page in PAGES.items():
        (HERE / name).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
