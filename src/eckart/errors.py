"""What is raised where a request cannot be met, and for options that are of another type than theirs."""

from __future__ import annotations

import types
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Union, get_args, get_origin, get_type_hints

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

LONGEST = 2000
"""Characters of a refusal; one that quotes more of a file than that is no help."""


def readable(text: str) -> str:
    r"""`text` with what a terminal would obey rather than show written out; lines stay lines.

    >>> print(readable("a" + chr(27) + "[2J"))
    a\x1b[2J
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def abridged(value: object, longest: int = 80) -> str:
    """A value as a message quotes it: its beginning and its end, where it is long; of an error what it says, in a line.

    >>> abridged("a" * 100, 12)
    "'aaaa...aaa'"
    >>> abridged(ValueError("no such\\n  thing"))
    'no such thing'
    """
    text = " ".join(str(value).split()) if isinstance(value, BaseException) else _shown(value, longest)
    if len(text) <= longest:
        return text
    tail = (longest - 3) // 2
    return f"{text[: longest - 3 - tail]}...{text[len(text) - tail :]}"


def _shown(value: object, longest: int) -> str:
    """The beginning of what Python shows of a value, without showing all of what is in a long one."""
    if isinstance(value, str):
        return repr(value)
    if isinstance(value, dict):
        value = dict(list(value.items())[:longest])
    elif isinstance(value, list):
        value = value[:longest]
    try:
        return repr(value)
    except (RecursionError, ValueError):
        return f"a {type(value).__name__}"


def of_memory(error: BaseException) -> bool:
    """Whether an error says that there was no memory left, which torch says in words of its own.

    >>> of_memory(MemoryError()), of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    (True, False)
    """
    said = str(error).lower()
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(words in said for words in ("allocate memory", "out of memory"))
    )


class Refused(ValueError):
    """A request that cannot be met as it stands; the text says why and what to do instead.

    The command line turns it into one line, and a job that meets one while it fits a matrix leaves that matrix dense
    and says so. Any other exception is a fault of eckart and shows where it happened. What a terminal would obey rather
    than show is written out in the text, and one longer than `LONGEST` loses its middle: it may come from a file.

    >>> import eckart
    >>> eckart.compress(None, "lora")
    Traceback (most recent call last):
    eckart.errors.Refused: 'lora' is no compressor but an adapter: eckart.adapt, or eckart adapt --method lora
    """

    def __init__(self, why: object = "") -> None:
        text = readable(str(why))
        if len(text) > LONGEST:
            text = f"{text[: LONGEST * 3 // 4]} ... {text[-LONGEST // 4 :]}"
        super().__init__(text)


def check_types(options: DataclassInstance) -> None:
    """Raises Refused for a field of a dataclass whose value is of another type than the field is.

    Whole numbers will do where any number does; True and False are no numbers; numbers of NumPy are what they hold.

    >>> from eckart import Recipe
    >>> Recipe(keep="half")
    Traceback (most recent call last):
    eckart.errors.Refused: keep='half' is a str, and a number or None is wanted
    """
    for name, hint in get_type_hints(type(options)).items():
        check_type(name, getattr(options, name), hint)


def check_type(name: str, value: object, hint: Any) -> None:
    """Raises Refused where an option is of another type than `hint`; see `check_types`."""
    if not _fits(value, hint):
        raise Refused(f"{name}={value!r:.80} is a {type(value).__name__}, and {_wanted(hint)} is wanted")


def _fits(value: object, hint: Any) -> bool:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return any(_fits(value, each) for each in arguments)
    if origin is tuple or origin is Sequence:
        of = arguments[0]
        return isinstance(value, list | tuple) and all(_fits(each, of) for each in value)
    if hint in (int, float):
        return not isinstance(value, bool) and hasattr(value, "__index__" if hint is int else "__float__")
    return isinstance(value, hint) if isinstance(hint, type) else True


def _wanted(hint: Any) -> str:
    """A type in words."""
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(_wanted(each) for each in get_args(hint))
    if isinstance(hint, type) and hint.__module__ != "builtins" and hint is not type(None):
        return f"a {hint.__module__.split('.')[0]}.{hint.__name__}"
    words = {int: "a whole number", float: "a number", str: "a text", bool: "True or False", type(None): "None"}
    if hint in words:
        return words[hint]
    of, several = next(iter(get_args(hint)), str), {int: "whole numbers", float: "numbers", str: "texts"}
    return f"a list of {several.get(of, getattr(of, '__name__', 'other') + ' objects')}"
