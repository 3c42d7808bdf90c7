"""Writes the pages of the documentation that say what the code says: methods.md, report.md and cli.md.

python docs/generate.py
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from eckart.adapters.contract import ADAPTERS
from eckart.cli.cards import text_of
from eckart.cli.options import parser
from eckart.compressors.contract import METHODS
from eckart.report import schema

HERE = Path(__file__).parent
NOTE = "<!-- Written by docs/generate.py from {source}; run `make docs` after a change there. -->"

METHODS_HEAD = """# Methods

Every method is one function that fits candidates to one matrix; *needs* is what it asks to know about the data around
that matrix ([statistics](statistics.md)), *sizes* is what its candidates differ in, and *allocation* is how sizes are
shared out among the matrices of a model unless `--allocation` says otherwise. `eckart methods` prints this table and
`eckart methods NAME` a card. What is said to be measured was printed by a benchmark, for all methods in one run.
More is in [measurements](measurements.md).
"""

ADAPTERS_HEAD = """## Adapters

What `eckart adapt` and `eckart.adapt` put beside a frozen matrix; `*` marks what trains. See [adapters](adapters.md).
"""

REPORT_HEAD = """# report.json

`eckart compress` writes `report.json`, and `report.html` made from it, beside the model. Names and meanings stay from
version to version; fields that are not required may be added. The JSON Schema is `eckart.report.schema()`.

A dot leads into an object and `[]` into the items of an array. Fields marked *optional* may be missing.
"""

CLI_HEAD = """# Command line

`python -m eckart` is the same as `eckart`. The exit status is 0, 2 where a request cannot be met (the last line of the
error says what to do), and 130 after Ctrl-C.
"""


def methods_page() -> str:
    """The registry as a table, and each method's own words."""
    lines = [NOTE.format(source="src/eckart/compressors and src/eckart/adapters"), "", METHODS_HEAD]
    lines += ["| method | makes | needs | sizes | allocation |", "|---|---|---|---|---|"]
    for name in sorted(METHODS):
        card = METHODS[name]
        needs = ", ".join(f"`{need.value}`" for need in card.needs) or "nothing"
        lines.append(f"| [`{name}`](#{name}) | `{card.expression}` | {needs} | {card.size} | {card.allocation} |")
    for name in sorted(METHODS):
        lines += ["", f"## {name}", "", text_of(METHODS[name])]
    lines += ["", ADAPTERS_HEAD]
    lines += ["| adapter | makes | needs | numbers at rank 8, 64 x 48 |", "|---|---|---|---|"]
    for name in sorted(ADAPTERS):
        adapter = ADAPTERS[name]
        asked = [f"`{need.value}`" for need in adapter.needs] + ["gradient of the loss"] * adapter.task_gradient
        count = adapter.parameters(64, 48, 8)
        needs = ", ".join(asked) or "nothing"
        lines.append(f"| [`{name}`](#adapter-{name}) | `{adapter.expression}` | {needs} | {count} |")
    for name in sorted(ADAPTERS):
        lines += ["", f"### Adapter: {name}", "", text_of(ADAPTERS[name])]
    return "\n".join(lines) + "\n"


def report_page() -> str:
    """The schema of the report, field by field."""
    root = schema()
    lines = [NOTE.format(source="src/eckart/report/schema.json"), "", REPORT_HEAD]
    lines += ["| field | type | what it is |", "|---|---|---|"]
    lines += [f"| `{name}` | {kind} | {text} |" for name, kind, text in fields(root, root, "")]
    return "\n".join(lines) + "\n"


def fields(node: Mapping[str, Any], root: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str, str]]:
    """(path, type, description) of every field below a schema, in its order."""
    required = node.get("required", [])
    for name, entry in node.get("properties", {}).items():
        entry = resolved(entry, root)
        text = entry.get("description", "")
        if "enum" in entry:
            text += " One of " + ", ".join(f"`{value}`" for value in entry["enum"]) + "."
        yield prefix + name, kind_of(entry), text if name in required else f"*optional* {text}"
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


def kind_of(entry: Mapping[str, Any]) -> str:
    kinds = entry.get("type", "string" if "enum" in entry else "object")
    names = [kinds] if isinstance(kinds, str) else list(kinds)
    if isinstance(entry.get("items"), dict) and "array" in names:
        inner = entry["items"].get("type", "object")
        names[names.index("array")] = f"array of {inner}s"
    return " or ".join(names)


def cli_page() -> str:
    """Every command with its arguments."""
    lines = [NOTE.format(source="src/eckart/cli/app.py"), "", CLI_HEAD]
    for name, (command, summary) in commands().items():
        lines += [f"## eckart {name}", "", f"{summary[:1].upper()}{summary[1:]}.", ""]
        arguments = [action for action in command._actions if action.dest != "help"]
        if arguments:
            lines += ["| argument | what it is |", "|---|---|"]
            lines += [f"| {_usage(action)} | {_help(action)} |" for action in arguments]
            lines.append("")
    return "\n".join(lines)


def commands() -> dict[str, tuple[argparse.ArgumentParser, str]]:
    """The parser and the summary of each command."""
    parsers = next(a for a in parser()._actions if isinstance(a, argparse._SubParsersAction))
    summaries = {choice.dest: choice.help or "" for choice in parsers._choices_actions}
    return {name: (parser, summaries[name]) for name, parser in parsers.choices.items()}


def _usage(action: argparse.Action) -> str:
    if not action.option_strings:
        return f"`{action.dest.upper()}`"
    value = ""
    if action.nargs != 0:
        value = " " + ("\\|".join(map(str, action.choices)) if action.choices else action.dest.upper())
    return f"`{action.option_strings[0]}{value}`"


def _help(action: argparse.Action) -> str:
    text = action.help or ""
    if "%(default)s" in text:
        return text % {"default": action.default}
    shown = action.option_strings and action.nargs != 0 and action.default not in (None, [])
    return f"{text} (default {action.default})".strip() if shown and "default" not in text else text


PAGES = {"methods.md": methods_page, "report.md": report_page, "cli.md": cli_page}


def main() -> None:
    for name, page in PAGES.items():
        (HERE / name).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
