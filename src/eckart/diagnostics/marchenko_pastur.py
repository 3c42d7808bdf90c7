"""What of a spectrum noise alone would explain: the Marchenko-Pastur bulk, its edge, and the spikes above it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from eckart.diagnostics.contract import Column, Matrix, Numbers, diagnostic
from eckart.errors import Refused
from eckart.linalg.spectrum import Spectrum

TRACY_WIDOM_99 = 2.0234
"""The largest eigenvalue of noise exceeds its mean by this many of its scales once in a hundred matrices."""


@dataclass(frozen=True)
class Bulk:
    """The noise in a matrix.

    Attributes:
        sigma: standard deviation of an entry of the noise.
        edge: upper edge of the eigenvalues of W W^T that it explains, sigma^2 (sqrt N + sqrt M)^2.
        spikes: eigenvalues above the edge and its fluctuations.
        energy: their share of the squared norm.
    """

    sigma: float
    edge: float
    spikes: int
    energy: float


def bulk(s: Spectrum) -> Bulk:
    """The Marchenko-Pastur law at the median of a spectrum, and what stands out of it.

    Noise of variance sigma^2 in an N x M matrix, N >= M, has eigenvalues in sigma^2 (sqrt N -+ sqrt M)^2. Its
    variance is estimated from the median eigenvalue, which a few spikes hardly move (Gavish and Donoho 2014). Spikes
    are counted above sigma^2 (mu + 2.02 tau), which the largest eigenvalue of pure noise passes once in a hundred:
    mu = (sqrt(N - 1) + sqrt M)^2, tau = (sqrt(N - 1) + sqrt M)(1 / sqrt(N - 1) + 1 / sqrt M)^(1/3) (Johnstone 2001).
    WeightWatcher fits the variance to a smoothed density instead, so its `sigma_mp` is another number.

    Raises:
        Refused: half of the eigenvalues or more are zero, so that there is no bulk; or the matrix is a vector.
    """
    n, m = s.longer, s.shorter
    if m < 2:
        raise Refused("a vector has no bulk")
    middle = s.at(torch.tensor([(m - 1) // 2, m // 2], device=s.values.device)).mean()
    if float(middle) <= float(s.values[0]) * (n * torch.finfo(torch.float64).eps) ** 2:
        raise Refused("half of the eigenvalues are zero, so there is no bulk")
    variance = float(middle) / (n * median(m / n))
    side = math.sqrt(n - 1) + math.sqrt(m)
    limit = variance * (side**2 + TRACY_WIDOM_99 * side * (1 / math.sqrt(n - 1) + 1 / math.sqrt(m)) ** (1 / 3))
    above = s.values > limit
    count = round(float(s.weights[above].sum()))
    energy = float(s.values[above] @ s.weights[above]) / s.norm
    return Bulk(math.sqrt(variance), variance * (math.sqrt(n) + math.sqrt(m)) ** 2, count, energy)


@lru_cache(maxsize=256)
def median(beta: float) -> float:
    """Median of the Marchenko-Pastur law of unit variance at aspect ratio 0 < beta = M / N <= 1.

    With x = 1 + beta + 2 sqrt(beta) cos t the density is 2 sin^2 t / (pi x) in t, which is smooth on [0, pi].
    """
    t = np.linspace(0, np.pi, 20001)
    x = 1 + beta + 2 * math.sqrt(beta) * np.cos(t)
    density = np.divide(2 * np.sin(t) ** 2, np.pi * x, out=np.zeros_like(x), where=x > 1e-12)
    if beta == 1:
        density = (1 - np.cos(t)) / np.pi
    mass = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)]) * (t[1] - t[0])
    at = float(np.interp(mass[-1] / 2, mass, t))
    return 1 + beta + 2 * math.sqrt(beta) * math.cos(at)


@diagnostic(
    "marchenko-pastur",
    paper="Marchenko and Pastur 1967; Johnstone 2001; Gavish and Donoho 2014",
    of="matrix",
    gives={
        "mp_sigma": Column(
            "Standard deviation of the entries of the noise, from the median eigenvalue",
            title="size of the noise",
            place="file",
        ),
        "mp_edge": Column("Upper edge of the eigenvalues that noise explains", title="edge of the noise", place="file"),
        "mp_spikes": Column(
            "Eigenvalues above it and its fluctuations",
            kind="integer",
            title="values above noise",
            short="spikes",
        ),
        "mp_energy": Column("Their share of the squared norm", unit="share", title="norm above noise"),
    },
    noun="Marchenko-Pastur bulk",
)
def noise(matrix: Matrix) -> Numbers:
    """The noise that the median eigenvalue speaks of, and what stands out of it.

    Noise of variance sigma^2 in an N x M matrix has eigenvalues in sigma^2 (sqrt N -+ sqrt M)^2, the Marchenko-Pastur
    law; what is above its upper edge and the fluctuations of that is no noise.

    Raises:
        Refused: as `bulk`.
    """
    found = bulk(matrix.spectrum)
    return {"mp_sigma": found.sigma, "mp_edge": found.edge, "mp_spikes": found.spikes, "mp_energy": found.energy}
