"""Numbers as a reader is told them."""

from __future__ import annotations

from typing import TypeVar

T = TypeVar("T")

_UNITS = ("", "k", "M", "G", "T")


def read_percent(value: T) -> T | float:
    """A share that is written in percent as a number; anything else as it is.

    >>> read_percent("80%")
    0.8
    """
    if not (isinstance(value, str) and value.strip().endswith("%")):
        return value
    try:
        return float(value.strip()[:-1]) / 100
    except ValueError:
        return value


def shown_count(value: float) -> str:
    """A count to three digits, with the letter of its thousands.

    >>> shown_count(1234567)
    '1.23 M'
    """
    unit = 0
    while abs(value) >= 999.5 and unit < len(_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:.2f} {_UNITS[unit]}" if unit else f"{value:.0f}"


def shown_bytes(value: float) -> str:
    """Bytes like a count."""
    text = shown_count(value)
    return f"{text}B" if " " in text else f"{text} B"


def shown_number(value: float) -> str:
    """A measured number to about four digits."""
    return f"{value:.4g}" if abs(value) < 100 else f"{value:.1f}"


def shown_change(before: float, after: float) -> str:
    """By what share of it something has changed; "" where it was nothing."""
    return f"{after / before - 1:+.1%}" if before else ""
