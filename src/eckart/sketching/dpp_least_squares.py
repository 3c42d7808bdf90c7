"""Where to evaluate a function that is to be fitted in a basis: points that repel each other, with weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from eckart.arrays import Array, Seed, back, dense, generator_of
from eckart.errors import Refused
from eckart.linalg.projection_dpp import orthonormal, projection_dpp
from eckart.sketching.contract import sketch


@dataclass(frozen=True)
class Design:
    """Points and weights.

    Attributes:
        index: (n,), of the candidates; one may come several times.
        weights: (n,), m over the Christoffel function K at the points, K having a mean of m over all candidates.
        features: (n, m), their rows.
    """

    index: Array
    weights: Array
    features: Array

    def fit(self, values: Array) -> Array:
        """c = argmin sum_i w_i (f(x_i) - phi(x_i) c)^2 of values f (n,) or (n, k) at the points."""
        root = np.sqrt(dense(self.weights, "the weights", ndim=1))
        y = dense(values, "the values", ndim=None)
        if len(y) != len(root):
            raise Refused(f"{len(root)} points have {len(root)} values, and {len(y)} came")
        weighted = root.reshape(-1, *[1] * (y.ndim - 1)) * y
        return back(np.linalg.lstsq(root[:, None] * dense(self.features), weighted, rcond=None)[0], values)


def _polynomials(generator: np.random.Generator) -> dict[str, Any]:
    """Legendre polynomials to degree 3 at 50 random points."""
    return {"features": np.polynomial.legendre.legvander(generator.uniform(-1, 1, 50), 3), "count": 8}


@sketch(
    "dpp-least-squares",
    paper="Nouy and Michel 2023, arXiv 2312.14057",
    gives="a design: points, weights, and `fit`",
    error="E|f - fit|^2 at most a constant times that of the best fit, from about m log m points on; 2 m in practice",
    problem=_polynomials,
)
def dpp_design(
    features: Array,
    count: int,
    *,
    design: Literal["repeated-dpp", "volume", "iid"] = "repeated-dpp",
    generator: Seed = None,
) -> Design:
    """Chooses n of N candidates for weighted least squares in m features, by projection determinantal processes.

    "repeated-dpp": ceil(n/m) draws of m points that repel each other, of the last of which the first points are kept;
    "volume": one such draw, and the others independently in proportion to K, the leverage; "iid": all of them so.
    Weights are m/K(x) at every point.

    Args:
        features: phi (N, m) at the candidates, of full column rank.
        count: n, at least m.
        design: how points are drawn.
        generator: of the draws.
    """
    phi = dense(features, "the features")
    q = orthonormal(phi)
    m, rng = phi.shape[1], generator_of(generator)
    if count < m:
        raise Refused(f"count={count} points do not determine {m} coefficients")
    if design not in ("repeated-dpp", "volume", "iid"):
        raise Refused(f"unknown design {design!r}; there are repeated-dpp, volume and iid")
    leverage = np.square(q).sum(1)
    if design == "repeated-dpp":
        index = np.concatenate([projection_dpp(q, rng) for _ in range(-(-count // m))])[:count]
    else:
        first = projection_dpp(q, rng) if design == "volume" else np.empty(0, np.int64)
        others = rng.choice(len(q), count - len(first), p=leverage / leverage.sum())
        index = np.concatenate([first, others])
    weights = m / (len(q) * leverage[index])
    return Design(back(index, features), back(weights, features), back(phi[index], features))
