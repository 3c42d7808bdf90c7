"""A method with options in one word of a command line: `galore:rank=64,every=50`."""

from __future__ import annotations

import inspect
import re
from ast import literal_eval
from collections.abc import Callable, Collection, Mapping
from typing import Any

from eckart.errors import Refused, check_type
from eckart.register import near


def parsed(text: str) -> tuple[str, dict[str, Any]]:
    """The name and the options, numbers as numbers; lists are in brackets.

    Raises:
        Refused: it is not NAME:OPTION=VALUE,OPTION=VALUE.

    >>> parsed("galore:rank=64,scale=0.25,betas=(0.9,0.99)")
    ('galore', {'rank': 64, 'scale': 0.25, 'betas': (0.9, 0.99)})
    """
    name, _, rest = text.partition(":")
    options: dict[str, Any] = {}
    for part in re.split(r",(?![^(\[]*[)\]])", rest) if rest else []:
        option, given, value = part.partition("=")
        if not given or not option.strip() or option.strip() in options:
            raise Refused(f"{text!r} is not NAME:OPTION=VALUE,OPTION=VALUE with each option once: {part!r}")
        try:
            options[option.strip()] = literal_eval(value.strip())
        except (ValueError, SyntaxError):
            options[option.strip()] = value.strip()
    return name.strip(), options


def check_options(
    name: str, options: Mapping[str, Any], function: Callable[..., Any], given: set[str], more: Mapping[str, Any]
) -> None:
    """Raises Refused for an option that a function has not, one of another type, or one that is given otherwise.

    Args:
        name: of the method.
        options: by name.
        function: what takes them as keyword arguments.
        given: names that are not options here.
        more: types of what it takes without naming it, by name.
    """
    named = inspect.signature(function, eval_str=True).parameters.values()
    has = {each.name: each.annotation for each in named if each.kind is not each.VAR_KEYWORD} | {**more}
    free = [option for option in has if option not in given]
    check_names(name, options, free)
    for option, value in options.items():
        if has[option] is not inspect.Parameter.empty:
            check_type(f"{name}:{option}", value, has[option])


def check_names(name: str, options: Mapping[str, Any], there: Collection[str]) -> None:
    """Raises Refused for an option of a name that a method has not."""
    for option in options:
        if option not in there:
            known = list(there)
            raise Refused(
                f"{name} has no option {option!r}; {near(option, known)}there are {', '.join(known) or 'none'}"
            )
