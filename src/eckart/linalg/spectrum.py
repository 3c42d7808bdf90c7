"""The spectrum of a matrix, exact or as a density."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from eckart.errors import Refused
from eckart.linalg.spectral_density import spectral_density

EXACT = 4096
"""Shorter side up to which all singular values are computed."""


@dataclass(frozen=True)
class Spectrum:
    """The eigenvalues of W W^T or W^T W, whichever is smaller: squared singular values of W.

    Attributes:
        shape: of W.
        values: descending, float64.
        weights: how many eigenvalues each stands for; they sum to the shorter side. All 1 where `exact`.
        norm: their sum, the squared Frobenius norm of W.
        exact: whether these are all eigenvalues, and not the nodes of a quadrature.
    """

    shape: tuple[int, int]
    values: Tensor
    weights: Tensor
    norm: float
    exact: bool

    @property
    def longer(self) -> int:
        return max(self.shape)

    @property
    def shorter(self) -> int:
        return min(self.shape)

    @property
    def largest(self) -> float:
        return float(self.values[0])

    @property
    def rank(self) -> int:
        """Singular values above `max(shape) eps s_max`, eps that of float64."""
        return int((self.values.sqrt() > self._tolerance()).sum())

    @property
    def positive(self) -> Tensor:
        """The eigenvalues that are not zero up to rounding, descending."""
        return self.values[self.values.sqrt() > self._tolerance()]

    def _tolerance(self) -> Tensor:
        return self.values[0].sqrt() * self.longer * torch.finfo(torch.float64).eps

    def at(self, ranks: Tensor) -> Tensor:
        """The eigenvalues at positions 0, 1, ... from the largest down; quantiles of the density where not exact."""
        wanted, middles = ranks.double() + 0.5, self.weights.cumsum(0) - self.weights / 2
        right = torch.searchsorted(middles, wanted).clamp(0, len(middles) - 1)
        left = (right - 1).clamp_min(0)
        gap = middles[right] - middles[left]
        share = torch.where(gap > 0, (wanted - middles[left]) / gap, 0.0).clamp(0, 1)
        return torch.lerp(self.values[left], self.values[right], share)

    def energy(self) -> Tensor:
        """Share of the squared norm in the first 1, 2, ... singular values, (shorter,); zeros for a zero matrix."""
        values = self.at(torch.arange(self.shorter, device=self.values.device))
        total = values.sum()
        return values.cumsum(0) / total if total > 0 else torch.zeros_like(values)


def spectrum(weight: Tensor, *, exact: int = EXACT, seed: int = 0) -> Spectrum:
    """The squared singular values of a matrix.

    Args:
        weight: W (out, in), any float dtype.
        exact: shorter side up to which they are computed, in float64; above it `spectral_density` stands for them.
        seed: of the density.

    Raises:
        Refused: W is no matrix, is empty, has NaN or Inf entries, or its squares overflow.
    """
    check(weight)
    shape = int(weight.shape[0]), int(weight.shape[1])
    norm = float(weight.detach().double().square().sum())
    if not math.isfinite(norm):
        raise Refused(f"squares of entries up to {float(weight.abs().max()):.0e} overflow float64; scale them down")
    if min(shape) <= exact:
        # LAPACK takes a third less time for a tall matrix than for its transpose.
        tall = weight if shape[0] >= shape[1] else weight.T
        values = torch.linalg.svdvals(tall.detach().double()).square()
        return Spectrum(shape, values, torch.ones_like(values), norm, True)
    nodes, weights = spectral_density(weight, seed=seed)
    return Spectrum(shape, nodes.flip(0), weights.flip(0) * min(shape), norm, False)


def check(weight: Tensor) -> None:
    """Raises Refused for what is no matrix of finite numbers."""
    if weight.ndim != 2 or not weight.numel():
        raise Refused(f"a matrix is needed, got shape {tuple(weight.shape)}")
    if not (torch.isfinite(weight.sum(dtype=torch.float64)) or torch.isfinite(weight).all()):
        raise Refused("NaN or Inf entries")


def entropy(values: Tensor, weights: Tensor | None = None) -> float:
    """-sum p ln p of values that are scaled to sum to one, each counted `weights` times; 0 for zeros.

    Args:
        values: not negative, (n,).
        weights: (n,); None for ones.
    """
    weights = torch.ones_like(values) if weights is None else weights
    total = float(values @ weights)
    if not total > 0:
        return 0.0
    p = values / total
    return float(-(weights * torch.special.xlogy(p, p)).sum())
