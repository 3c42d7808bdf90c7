"""How many singular values of a table are more than noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from eckart.arrays import Array, Dense, dense
from eckart.errors import Refused
from eckart.estimators.contract import estimator
from eckart.linalg.singular_value_threshold import threshold
from eckart.linalg.solution import Solution
from eckart.scikit.base import at_least_one, generator_from
from eckart.scikit.planted import Planted

Method = Literal["gavish-donoho", "parallel"]


@dataclass(frozen=True)
class RankSelection:
    """A rank, and why.

    Attributes:
        rank: leading singular values above their thresholds.
        values: all singular values, (min(samples, features),).
        thresholds: what each was held against, of the same shape.
    """

    rank: int
    values: Dense
    thresholds: Dense


def _planted(rng: np.random.Generator) -> Planted:
    left, right = np.linalg.qr(rng.standard_normal((60, 3)))[0], np.linalg.qr(rng.standard_normal((40, 3)))[0]
    x = 25 * left @ right.T + rng.standard_normal((60, 40))
    return Planted({"x": x}, lambda solution: abs(solution.value.rank - 3), 0)


@estimator(
    "rank-selection",
    paper="Gavish and Donoho 2014, arXiv 1305.5870; Buja and Eyuboglu 1992",
    kind="solver",
    gives="a rank",
    planted=_planted,
)
def select_rank(
    x: Array,
    method: Method = "gavish-donoho",
    *,
    noise: float | None = None,
    draws: int = 20,
    quantile: float = 0.95,
    generator: int | np.random.Generator | None = None,
) -> Solution[RankSelection]:
    """How many singular values of a table are more than noise.

    "gavish-donoho" keeps those above a threshold that is the best for low rank under white noise as tables grow, of a
    known deviation or of one that the median of the singular values tells; that needs a rank well below half of the
    shorter side. Nothing is centred.

    "parallel" holds each singular value against a quantile of its like in tables whose columns were shuffled, each for
    itself (after taking off their means, which shuffling keeps). Noise may differ from column to column; a large
    component, spread over all shuffled ones, may hide a small one.

    Args:
        x: (samples, features).
        method: one of the two.
        noise: standard deviation of the noise in an entry, of "gavish-donoho"; None where it is not known.
        draws: shuffled tables, of "parallel".
        quantile: of them, 0 to 1.
        generator: a seed or generator, of "parallel".

    Returns:
        The rank, 0 where all is noise, with all singular values and thresholds.

    Raises:
        Refused: an unknown method, or an argument out of its range; NaN or Inf entries.
    """
    table = dense(x, "x")
    if method not in get_args(Method):
        raise Refused(f"method={method!r} is none of {', '.join(get_args(Method))}")
    if not min(table.shape):
        raise Refused(f"x is of shape {table.shape}, and one entry at least is needed")
    if method == "gavish-donoho":
        if noise is not None and not 0 <= noise < np.inf:
            raise Refused(f"noise={noise}, and a standard deviation is needed, or None where it is not known")
        values = np.linalg.svd(table, compute_uv=False)
        # Rounding is noise too: values of it are none of a table that has no other.
        rounding = max(table.shape) * np.finfo(float).eps * float(values[0])
        limits = np.full(len(values), max(threshold(values, (len(table), table.shape[1]), noise), rounding))
    else:
        at_least_one(draws=draws)
        if not 0 <= quantile <= 1:
            raise Refused(f"quantile={quantile} is not from 0 to 1")
        if noise is not None:
            raise Refused(f"noise={noise} is of method='gavish-donoho': 'parallel' learns it by shuffling")
        rng = generator_from(generator)
        table = table - table.mean(axis=0)
        values = np.linalg.svd(table, compute_uv=False)
        shuffled = [np.linalg.svd(rng.permuted(table, axis=0), compute_uv=False) for _ in range(draws)]
        limits = np.quantile(shuffled, quantile, axis=0)
    above = values > limits
    rank = int(len(values) if above.all() else above.argmin())
    message = f"{rank} of {len(values)} singular values are above what noise gives"
    return Solution(RankSelection(rank, values, limits), True, 1, tuple(values), message)
