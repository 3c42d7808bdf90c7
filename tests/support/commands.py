"""What tests of the command line share."""

from __future__ import annotations

import json
import os
import random
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

from eckart.report import schema

SMALL = ["--samples", "4", "--length", "32", "--eval-samples", "3"]


@cache
def validator() -> Draft202012Validator:
    """Of `report.json`; to check the schema itself takes longer than to check a report."""
    found = schema()
    Draft202012Validator.check_schema(found)
    return Draft202012Validator(found)


def report_of(directory: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((directory / "report.json").read_text())
    validator().validate(report)
    return report


def in_child(act: Callable[[], int]) -> int:
    """The exit status of a function run in a forked process, where limits can be set that cannot be lifted again."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            code = act()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def nothing_left(out: Path) -> bool:
    """Whether a command left neither its directory nor a part of it."""
    return not out.exists() and not out.with_name(out.name + ".partial").exists()


WORDS = """the of and a matrix table rank singular values number theorem best smaller keeps largest noise size
directions carry people meet simple their says few nearly all what they do rest is most"""


def prose(seed: int, lines: int) -> str:
    """Sentences of random common words; those of two seeds share next to nothing."""
    pick, words = random.Random(seed), WORDS.split()
    return "\n".join(" ".join(pick.choices(words, k=12)) + "." for _ in range(lines)) + "\n"
