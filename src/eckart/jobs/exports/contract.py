"""What a format is: a file of this folder, called by its name, that says in a line what it is and writes it.

The first line of the file's docstring is what the help says of the format. Its function

    write(source: str, out: str | Path) -> str

reads the model `source`, writes the directory `out` whole or not at all, and returns what was lost or measured in a
line, or nothing; a `Lossy` line where not all that was exported is done by what was written. It raises
`eckart.errors.Refused` for what the format cannot say. Names and lines are known without the file being imported,
because it loads torch. A file whose name begins with an underscore is shared by the formats.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from pkgutil import iter_modules
from typing import cast

from eckart.errors import Refused
from eckart.register import near


class Lossy(str):
    """What a writer returns where what it wrote does not do all that was exported."""

    __slots__ = ()


PACKAGE = "eckart.jobs.exports"
PACKAGES = {"google": "protobuf", "PIL": "pillow", "sklearn": "scikit-learn", "yaml": "PyYAML"}
"""Where a package to install has another name than what is imported."""


def formats() -> dict[str, str]:
    """What the help says of each format, by its name."""
    files = (module.name for module in iter_modules(import_module(PACKAGE).__path__))
    return {
        file.replace("_", "-"): _summary(f"{PACKAGE}.{file}")
        for file in sorted(files)
        if not file.startswith("_") and file != "contract"
    }


def writer(name: str) -> Callable[[str, str | Path], str]:
    """The function `write` of a format, which refuses in a line what a missing package keeps it from.

    Raises:
        Refused: there is no format of that name.
    """
    there = formats()
    if name not in there:
        raise Refused(f"unknown format {name!r}; {near(name, there)}there are {', '.join(there)}")
    module = import_module(f"{PACKAGE}.{name.replace('-', '_')}")
    return cast(Callable[[str, str | Path], str], telling_what_is_missing(name)(module.write))


@contextmanager
def telling_what_is_missing(name: str) -> Iterator[None]:
    """Refuses an export to a format that asked for a module which is not there, and says which package has it."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None:
            raise
        top = error.name.partition(".")[0]
        package = PACKAGES.get(top, top)
        raise Refused(
            f"export --to {name} needs the module {error.name}, which is not installed: pip install --upgrade {package}"
        ) from error


def missing_module(error: BaseException | None) -> ModuleNotFoundError | None:
    """What an error says to have been caused by, itself or at some remove, where that is a module that is not there."""
    while error is not None and not isinstance(error, ModuleNotFoundError):
        error = error.__cause__ or error.__context__
    return error


def _summary(module: str) -> str:
    """The first line of a module's docstring, read without importing it."""
    spec = find_spec(module)
    source = getattr(spec and spec.loader, "get_source", lambda _: None)(module)
    words = ast.get_docstring(ast.parse(source or "")) or inspect.getdoc(import_module(module)) or ""
    return words.partition("\n")[0]
