"""Options checked by what their annotations say, and named where they are none of it."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from math import isnan
from types import UnionType
from typing import Any, Literal, TypeVar

import numpy as np

from eckart.arrays import number, whole
from eckart.errors import Refused

F = TypeVar("F", bound=Callable[..., Any])


def fault(hint: Any, value: Any) -> str:
    """What is wrong with a value as an option annotated so, "" where nothing is: whole numbers are 0 at least."""
    kind, inside = typing.get_origin(hint), typing.get_args(hint)
    if kind in (typing.Union, UnionType):
        faults = [fault(each, value) for each in inside if each is not type(None)]
        return "" if (value is None and type(None) in inside) or not all(faults) else faults[0]
    if kind is Literal:
        known = isinstance(value, type(inside[0])) and value in inside
        return "" if known else f"unknown; there are {', '.join(map(str, inside))}"
    if hint is int:
        return "" if whole(value) and value >= 0 else "no whole number from 0 on"
    if hint is float:
        return "no number" if isnan(number(value)) else ""
    if hint is bool:
        return "" if isinstance(value, bool | np.bool_) else "neither True nor False"
    if kind is Sequence and inside[0] in (int, float):
        if isinstance(value, str) or not hasattr(value, "__len__") or not hasattr(value, "__iter__"):
            return "no sequence of numbers"
        return next(filter(None, (fault(inside[0], each) for each in value)), "")
    return ""


def check(hints: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    """Raises Refused for the first of some options, by name, that is not what its annotation says."""
    for name, value in options.items():
        if wrong := fault(hints.get(name), value):
            raise Refused(f"{name}={value!r:.80}: {wrong}")


def checked(function: F) -> F:
    """A function, or the constructor of a class, whose options are looked at before it is called."""
    signature = inspect.signature(function)
    hints: dict[str, Any] = {}

    @wraps(function)
    def called(*arguments: Any, **options: Any) -> Any:
        hints.update({} if hints else typing.get_type_hints(function))
        check(hints, signature.bind(*arguments, **options).arguments)
        return function(*arguments, **options)

    return typing.cast(F, called)


def checked_fits(estimator: type) -> None:
    """Has the options of an estimator looked at when it is fitted, which is where scikit-learn wants it."""
    for name in ("fit", "partial_fit"):
        if name in vars(estimator):
            setattr(estimator, name, _fit(vars(estimator)[name]))


def _fit(function: F) -> F:
    @wraps(function)
    def fitted(self: Any, *arguments: Any, **named: Any) -> Any:
        check(typing.get_type_hints(type(self).__init__), self.get_params(deep=False))
        return function(self, *arguments, **named)

    return typing.cast(F, fitted)
