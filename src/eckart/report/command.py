"""The words of the command that repeats a run, made of the options that it had."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def command_words(command: str, models: Sequence[str], options: Mapping[str, object]) -> list[str]:
    """A command line as words, which a shell has still to be kept from reading anything into.

    An option that is None or empty is left out; True is its name alone, and False that with `no` before it; a list is
    repeated.

    Args:
        command: of `eckart`.
        models: what stands before the options; a name that begins with a hyphen is a path from here on.
        options: values by name; underscores stand for hyphens.

    >>> command_words("compress", ["llama"], {"keep": 0.5, "include": ["a", "-b"], "head": False, "allocation": None})
    ['eckart', 'compress', 'llama', '--keep', '0.5', '--include', 'a', '--include=-b', '--no-head']
    """
    words = ["eckart", command, *(f"./{model}" if model.startswith("-") else model for model in models)]
    for name, value in options.items():
        option = f"--{'no-' if value is False else ''}{name.replace('_', '-')}"
        if isinstance(value, bool):
            words.append(option)
        elif value is not None:
            for each in value if isinstance(value, list | tuple) else [value]:
                text = str(each)
                words += [f"{option}={text}"] if text.startswith("-") else [option, text]
    return words


def changed(options: DataclassInstance) -> dict[str, object]:
    """The fields of a dataclass that are not as they are by default, by name."""
    given = {each.name: getattr(options, each.name) for each in fields(options)}
    defaults = {each.name: each.default for each in fields(options)}
    return _unlike(given, defaults)


def changed_from(function: Callable[..., object], given: Mapping[str, object]) -> dict[str, object]:
    """Those of some keyword arguments of a function that are not as they are by default, by name."""
    parameters = inspect.signature(function).parameters
    return _unlike(given, {name: parameters[name].default for name in given})


def text_name(name: str) -> str:
    """How a text for evaluation is named on the command line, where `none` is no file."""
    return {"": "none", "none": "./none"}.get(name, name)


def _unlike(given: Mapping[str, object], defaults: Mapping[str, object]) -> dict[str, object]:
    def same(value: object, default: object) -> bool:
        empty = value in ((), []) and default in ((), [])
        return default is not MISSING and default is not inspect.Parameter.empty and (empty or value == default)

    return {name: value for name, value in given.items() if not same(value, defaults[name])}
