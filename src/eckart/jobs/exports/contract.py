"""What a format is: a file of this folder, called by its name, that says in a line what it is and writes it.

The first line of the file's docstring is what the help says of the format. Its function

    write(source: str, out: str | Path) -> str

reads the model `source`, writes the directory `out` whole or not at all, and returns what was lost or measured in a
line, or nothing. It raises `eckart.errors.Refused` for what the format cannot say. Names and lines are known without
the file being imported, because it loads torch. A file whose name begins with an underscore is shared by the formats.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from pkgutil import iter_modules
from typing import cast

from eckart.errors import Refused
from eckart.register import near

PACKAGE = "eckart.jobs.exports"


def formats() -> dict[str, str]:
    """What the help says of each format, by its name."""
    files = (module.name for module in iter_modules(import_module(PACKAGE).__path__))
    return {
        file.replace("_", "-"): _summary(f"{PACKAGE}.{file}")
        for file in sorted(files)
        if not file.startswith("_") and file != "contract"
    }


def writer(name: str) -> Callable[[str, str | Path], str]:
    """The function `write` of a format.

    Raises:
        Refused: there is no format of that name.
    """
    there = formats()
    if name not in there:
        raise Refused(f"unknown format {name!r}; {near(name, there)}there are {', '.join(there)}")
    module = import_module(f"{PACKAGE}.{name.replace('-', '_')}")
    return cast(Callable[[str, str | Path], str], module.write)


def _summary(module: str) -> str:
    """The first line of a module's docstring, read without importing it."""
    spec = find_spec(module)
    source = getattr(spec and spec.loader, "get_source", lambda _: None)(module)
    words = ast.get_docstring(ast.parse(source or "")) or inspect.getdoc(import_module(module)) or ""
    return words.partition("\n")[0]
