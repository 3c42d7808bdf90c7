"""How heavy the tail of a spectrum is: the exponent of the power law that its eigenvalues follow most closely."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from eckart.diagnostics._tails import Array, checked, hill
from eckart.diagnostics.contract import Column, Numbers, diagnostic
from eckart.errors import Refused
from eckart.linalg.spectrum import Spectrum

Indices = NDArray[np.int64]

SHORT_TAIL = 10
"""Values below which the exponent of a tail says little."""

_COARSE = 8
_COMPLETED = 16
_BLOCK = 1 << 14


@dataclass(frozen=True)
class PowerLaw:
    """A tail p(x) ~ x^-alpha for x >= xmin.

    Attributes:
        alpha: the exponent.
        xmin: where the tail begins.
        distance: Kolmogorov-Smirnov distance between the tail and the law.
        sigma: standard error of alpha, (alpha - 1) / sqrt(count).
        count: values in the tail.
    """

    alpha: float
    xmin: float
    distance: float
    sigma: float
    count: int


def fit_power_law(values: Tensor) -> PowerLaw:
    """The power law that its tail follows most closely, over all cut-offs (Clauset, Shalizi and Newman 2009).

    For a tail of n values from x_i up, alpha_i = 1 + n / sum_j ln(x_j / x_i) is the maximum of the likelihood, and
    D_i = max_j |1 - (x_j / x_i)^(1 - alpha_i) - j / n| with j = 0, 1, ... its distance; the least D_i wins. The
    distances of all i are bounded from below on every eighth j, then on all j around the largest of these, and
    completed in the order of these bounds until none is left below the least: what is returned is the minimum over
    all i.

    Args:
        values: positive, in any order.

    Raises:
        Refused: fewer than `LEAST` values, values that are not positive, or values that are all equal.
    """
    x = checked(values)
    n = len(x)
    logs = np.log(x / x[-1])
    counts = np.arange(n, 1.0, -1.0)
    # The mean of ln(x_j / x_i) over the tail, 1 / (alpha_i - 1).
    excess = np.cumsum(logs[::-1])[::-1][:-1] / counts - logs[:-1]
    candidates = np.flatnonzero(excess > 1e-12)
    if not len(candidates):
        raise Refused("all values are equal, so they have no tail")

    rates, shares = -1 / excess, 1 / counts

    def distances(rows: Indices, step: int) -> tuple[Array, Indices]:
        """D_i, or its maximum over every `step`-th j, and the j where it is; rows ascending."""
        found, places = np.empty(len(rows)), np.empty(len(rows), np.int64)
        size = max(1, _BLOCK * step // n)
        for k in range(0, len(rows), size):
            part = rows[k : k + size]
            # A j below i counts as i; below exp(-40) is nothing, and slow to compute.
            law = np.multiply.outer(rates[part], logs[part[0] :: step]) - (rates[part] * logs[part])[:, None]
            gap = np.exp(np.clip(law, -40, 0, out=law), out=law)
            ranks = np.arange(part[0], n, step, dtype=np.float64)
            rank = np.multiply.outer(shares[part], ranks) - (shares[part] * part)[:, None]
            gap += np.maximum(rank, 0, out=rank)
            gap -= 1
            at = np.abs(gap, out=gap).argmax(1)
            found[k : k + size] = gap[np.arange(len(part)), at]
            places[k : k + size] = part[0] + step * at
        return found, places

    bound, places = distances(candidates, _COARSE)
    # Between two of those j both terms of D_i rise, so that it exceeds the bound by at most 8 / n.
    likely = bound <= (bound + _COARSE * shares[candidates]).min()
    rows = candidates[likely]
    j = np.clip(places[likely, None] + np.arange(1 - _COARSE, _COARSE), rows[:, None], n - 1)
    law = np.maximum(rates[rows, None] * (logs[j] - logs[rows, None]), -40)
    bound = np.abs(np.exp(law) - 1 + shares[rows, None] * (j - rows[:, None])).max(1)
    order = bound.argsort()
    least, i = math.inf, n
    for k in range(0, len(order), _COMPLETED):
        part = order[k : k + _COMPLETED]
        if bound[part[0]] > least + 1e-12:
            break
        part = np.sort(rows[part])
        complete, _ = distances(part, 1)
        least, i = min((least, i), *zip(complete.tolist(), part.tolist(), strict=True))
    alpha = 1 + 1 / float(excess[i])
    return PowerLaw(alpha, float(x[i]), least, (alpha - 1) / math.sqrt(n - i), n - i)


def _doubt(s: Spectrum, numbers: Numbers) -> str:
    count = numbers["num_pl_spikes"]
    assert isinstance(count, int)
    return f"alpha is of a tail of {count} values and says little" if count < SHORT_TAIL else ""


@diagnostic(
    "power-law",
    paper="Clauset, Shalizi and Newman 2009, arXiv 0706.1062; Martin, Peng and Mahoney 2021, arXiv 2002.06716",
    of="eigenvalues",
    gives={
        "alpha": Column(
            "Exponent of the power law that the tail of the eigenvalues follows most closely",
            title="alpha of the tail",
            short="alpha",
            mean=True,
        ),
        "xmin": Column("Where that tail begins", place="file"),
        "xmax": Column("Where it ends, lambda_max", place="file"),
        "D": Column("Kolmogorov-Smirnov distance between tail and law", title="distance to the law", place="facts"),
        "sigma": Column("Standard error of alpha", place="file"),
        "num_pl_spikes": Column("Eigenvalues in the tail", kind="integer", title="values in the tail", place="facts"),
        "alpha_weighted": Column("alpha log10 lambda_max", place="file", mean=True),
        "log_alpha_norm": Column("log10 of the sum of the eigenvalues to the power of alpha", place="file", mean=True),
        "warning": Column(
            "over-trained where alpha is below 2, under-trained where it is above 6", kind="string", place="file"
        ),
        "alpha_hill": Column(
            "Exponent of the upper half of the eigenvalues", title="alpha by Hill", place="facts", mean=True
        ),
    },
    noun="power law",
    doubt=_doubt,
)
def tail(s: Spectrum) -> Numbers:
    """The exponent of the tail of the eigenvalues, and what WeightWatcher makes of it, under its names.

    The cut-off is the one from which values follow a power law most closely. `alpha_weighted` is alpha log10 lambda_max
    and `log_alpha_norm` log10 sum lambda^alpha; `warning` is `over-trained` below an alpha of 2 and `under-trained`
    above 6. `alpha_hill` takes the upper half of the values instead.

    Args:
        s: all eigenvalues of a matrix.

    Raises:
        Refused: as `fit_power_law`, for those that are not zero.
    """
    values = s.positive
    law = fit_power_law(values)
    return {
        "alpha": law.alpha,
        "xmin": law.xmin,
        "xmax": s.largest,
        "D": law.distance,
        "sigma": law.sigma,
        "num_pl_spikes": law.count,
        "alpha_weighted": law.alpha * math.log10(s.largest),
        "log_alpha_norm": float((law.alpha * values.log()).logsumexp(0)) / math.log(10),
        "warning": "over-trained" if law.alpha < 2 else "under-trained" if law.alpha > 6 else "",
        "alpha_hill": hill(values),
    }
