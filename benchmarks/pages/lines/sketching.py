"""The lines on the cards of sketches."""

from __future__ import annotations

from typing import Any

from benchmarks.pages.cards import Lines


def _sketching(where: str, conditions: str, select: dict[str, Any], line: str) -> Lines:
    return Lines("sketching", where, conditions, {"benchmark": "sketching.errors"} | select, line, together="; ")


SKETCHING = [
    _sketching(
        "regression",
        "{rows} x {columns}, sketches of {size} rows, {draws} draws: the worst coordinate's error by sqrt(d) / "
        "(|r| |A^+|), 95 % of draws below",
        {"part": "regression"},
        "{matrix} A, {arm} {q95:.2f}",
    ),
    _sketching(
        "design",
        "exp(sin 4x) in {features} Legendre polynomials, {draws} draws: root mean square of the error by that "
        "of the best fit",
        {"part": "design"},
        "{count} points, {arm} {rms:.2f}",
    ),
    _sketching(
        "transport",
        "{points} x {points} digits, steps after those of Sinkhorn's and the error of both marginals",
        {"part": "transport"},
        "range of the cost / reg {eta}, {arm}: {steps} steps, {error:short}",
    ),
    _sketching(
        "distance",
        "digits 3 and 8, {draws} draws: mean squared error of independent lines by that of",
        {"part": "distance", "arm": ("lower control", "orthogonal lines", "orthogonal, lower control")},
        "{lines} lines, {arm} {gain:.1f}",
    ),
    _sketching(
        "spectrum",
        "24 coefficients on 16 bits, {draws} draws: how often all were found, and the share of values asked for",
        {"part": "spectrum"},
        "noise {noise}, {repetitions} offsets: {exact:%}, {of all:%1}",
    ),
]
