"""Rows of a matrix that stand for all of them in lp norms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from eckart.arrays import Array, Seed, back, power_of_two, rows
from eckart.errors import Refused
from eckart.linalg.leverage import leverage_scores, lewis_weights, lp_sensitivities, sample_rows
from eckart.scikit.planted import Planted
from eckart.sketching.contract import sketch

Scores = Literal["lewis", "root-leverage", "sensitivity", "mixed", "leverage", "uniform"]


@dataclass(frozen=True)
class Rows:
    """Rows that were kept.

    Attributes:
        index: (k,), ascending.
        weights: (k,): |weights * (A x)[index]|_p^p is |A x|_p^p in the mean.
    """

    index: Array
    weights: Array


def _heavy_tails(generator: np.random.Generator) -> dict[str, Any]:
    """A matrix (60, 3) with a few large rows."""
    return {"a": generator.standard_t(1.5, (60, 3)), "count": 20.0}


def _all_rows(rng: np.random.Generator) -> Planted:
    """As many rows as there are: each once, with weight one."""
    given = _heavy_tails(rng) | {"count": 60}
    return Planted(given, lambda found: len(found.index) != 60 or np.abs(found.weights - 1).max(), 0.0)


@sketch(
    "lp-sensitivity",
    paper="Woodruff and Yasuda 2023, arXiv 2306.00732",
    gives="indices of rows and their weights",
    error="of |A x|_p for all x, as 1/sqrt(count) from about d rows on (p < 2); lp norms are kept in the mean",
    problem=_heavy_tails,
    limit=_all_rows,
)
def lp_sample(a: Array, count: float, p: float = 1.0, *, scores: Scores = "lewis", generator: Seed = None) -> Rows:
    """Draws rows of A with weights so that |A x|_p is nearly the same for every x, by scores of the rows.

    The paper's rules are "sensitivity" (max_x |a_i x|^p / |A x|_p^p, one regression a row), "root-leverage" (tau^(p/2),
    for p < 2) and "mixed" (leverage plus sensitivity, for p > 2). Lewis weights, which are about the sensitivities and
    cost a few leverage scores, are the default. All are scaled to the same number of rows, with probabilities cut at 1.

    Args:
        a: A (n, d), dense or sparse.
        count: rows in the mean.
        p: of the norm, at least 1 for sensitivities.
        scores: by what rows are drawn.
        generator: of the draws.
    """
    matrix = rows(a, "A")
    matrix = matrix / power_of_two(matrix)
    if scores == "lewis":
        found = lewis_weights(matrix, p)
    elif scores == "sensitivity":
        found = lp_sensitivities(matrix, p)
    elif scores in ("leverage", "root-leverage"):
        found = leverage_scores(matrix) ** (p / 2 if scores == "root-leverage" else 1)
    elif scores == "mixed":
        found = leverage_scores(matrix) + lp_sensitivities(matrix, p)
    elif scores == "uniform":
        found = np.ones(matrix.shape[0])
    else:
        raise Refused(
            f"unknown scores {scores!r}; there are lewis, root-leverage, sensitivity, mixed, leverage, uniform"
        )
    index, weights = sample_rows(found, count, p, generator)
    return Rows(back(index, a), back(weights, a))
