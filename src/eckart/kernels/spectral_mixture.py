"""Spectral mixtures: stationary kernels whose spectral density is a sum of Gaussians."""

from __future__ import annotations

from math import pi
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from eckart.errors import Refused
from eckart.kernels._kernel import Kernel
from eckart.kernels._parameters import log_parameter, plain
from eckart.kernels._stationary import normal
from eckart.kernels.contract import Example, kernel


def _example(rng: np.random.Generator) -> Example:
    made = SpectralMixture([0.7, 0.4], [[0.1, 0.4], [0.9, 0.0]], [[0.1, 0.2], [0.3, 0.1]])
    return Example(made, rng.standard_normal((12, 2)), rng.standard_normal((5, 2)), (lambda x: x + 0.7,))


@kernel(
    "spectral-mixture",
    paper="Wilson and Adams 2013, arXiv 1302.4245, eq. 12",
    gives="sums of waves that fade",
    example=_example,
    unmeasured="a formula; what is built on it is measured",
)
class SpectralMixture(Kernel):
    """sum_q w_q prod_p exp(-2 pi^2 s_qp^2 t_p^2) cos(2 pi mu_qp t_p) of the difference t = x - z.

    Args:
        weights: w (components,), positive.
        means: mu, frequencies in cycles by the unit of x, (components, d); numbers (components,) are of one dimension.
        scales: s, the widths of the Gaussians in the same units, of the same shape, positive.

    Raises:
        Refused: shapes do not fit, or a weight or scale is not positive.
    """

    sees_only = frozenset({"difference"})

    def __init__(self, weights: Any, means: Any, scales: Any) -> None:
        super().__init__()
        self.log_weights = log_parameter("SpectralMixture", "weights", weights, dimensions=(1,))
        wide = torch.as_tensor(means, dtype=torch.float64).detach().clone()
        self.means = nn.Parameter(wide[:, None] if wide.ndim == 1 else wide)
        logs = log_parameter("SpectralMixture", "scales", scales, dimensions=(1, 2))
        self.log_scales = nn.Parameter(logs.detach()[:, None]) if logs.ndim == 1 else logs
        if self.log_weights.ndim != 1 or self.means.shape != self.log_scales.shape or self.means.ndim != 2:
            raise Refused(
                f"SpectralMixture: means {tuple(self.means.shape)} and scales {tuple(self.log_scales.shape)} are not "
                f"both (components, d)"
            )
        if len(self.log_weights) != len(self.means) or not torch.isfinite(self.means).all():
            raise Refused(f"SpectralMixture: {len(self.log_weights)} weights for {len(self.means)} finite means")

    def options(self) -> dict[str, Any]:
        exp = (self.log_weights.exp(), self.means, self.log_scales.exp())
        return dict(zip(("weights", "means", "scales"), map(plain, exp), strict=True))

    def _between(self, x: Tensor, z: Tensor) -> Tensor:
        if x.shape[1] != self.means.shape[1]:
            raise Refused(f"SpectralMixture is of {self.means.shape[1]} dimensions, and points are of {x.shape[1]}")
        terms = []
        for weight, mean, scale in zip(self.log_weights.exp(), self.means, self.log_scales.exp(), strict=True):
            term = weight
            for p in range(x.shape[1]):
                t = x[:, None, p] - z[:, p]
                term = term * (-2 * (pi * scale[p] * t).square()).exp() * (2 * pi * mean[p] * t).cos()
            terms.append(term)
        return torch.stack(terms).sum(0)

    def _diagonal(self, x: Tensor) -> Tensor:
        return self.log_weights.exp().sum().expand(len(x))

    def frequencies(self, count: int, dimensions: int, generator: torch.Generator | None = None) -> Tensor:
        weights = self.log_weights.detach().exp()
        which = torch.multinomial(weights, count, replacement=True, generator=generator)
        widths = self.log_scales.detach().exp()[which] * normal(count, dimensions, generator)
        # A product of cosines is the mean of cos over the signs of its frequencies.
        signs = 1 - 2 * torch.randint(2, widths.shape, generator=generator, device=widths.device)
        return 2 * pi * (signs * self.means.detach()[which] + widths)

    def along(self, t: Tensor, order: int = 0) -> Tensor:
        if self.means.shape[1] != 1 or order not in (0, 1, 2):
            raise Refused(f"derivative {order} by one difference, of a mixture of {self.means.shape[1]} dimensions")
        t = t[..., None]
        w, a, b = self.log_weights.exp(), 2 * (pi * self.log_scales.exp()[:, 0]).square(), 2 * pi * self.means[:, 0]
        fade, wave, other = (-a * t.square()).exp(), (b * t).cos(), (b * t).sin()
        if order == 0:
            return (w * fade * wave).sum(-1)
        if order == 1:
            return (-w * fade * (2 * a * t * wave + b * other)).sum(-1)
        return (w * fade * ((4 * (a * t).square() - 2 * a - b.square()) * wave + 4 * a * b * t * other)).sum(-1)
