"""Bayesian and sparse from the start to the end: entries are normal, and the least certain ones move."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from eckart.errors import Refused
from eckart.machine import wide
from eckart.parametrizations._sparse import AlongGradient, density, scattered, stored
from eckart.parametrizations.contract import Layer, Step, Structures, parametrization
from eckart.structures.gaussian import Gaussian
from eckart.structures.scattered import Scattered

PRIOR = 0.005
"""Standard deviation of the prior N(0, PRIOR^2)."""
TEMPER = 0.01
"""Weight of the divergence from the prior."""
BEGIN = 6e-4
"""Standard deviation that entries start with."""


def signal_to_noise(mean: Tensor, deviation: Tensor) -> Tensor:
    """E|w| / sqrt(Var|w|) for w ~ N(mean, deviation^2), in float64 where the device has it.

    E|w| = mu erf(mu / (s sqrt 2)) + 2 s exp(-mu^2 / 2 s^2) / sqrt(2 pi), and E|w|^2 = mu^2 + s^2.
    """
    mu, s = wide(mean.detach()).abs(), wide(deviation.detach())
    s = s.clamp_min(torch.finfo(s.dtype).tiny ** 0.5)  # its square is no zero
    size = mu * torch.erf(mu / (s * 2**0.5)) + 2 * s * torch.exp(-(mu**2) / (2 * s**2)) / (2 * math.pi) ** 0.5
    # Var|w| lies in [(1 - 2 / pi) s^2, s^2]; where mu >> s the difference would round to nothing.
    found: Tensor = size / (mu**2 + s**2 - size**2).clamp(min=(1 - 2 / math.pi) * s**2).minimum(s**2).sqrt()
    return found


class Selecting(AlongGradient):
    """Outputs are drawn in every step; of signal to noise the least entries move to where the mean's slope is largest.

    Args:
        examples: how many there are to learn from; the divergence from the prior counts 0.01 over that.
    """

    def __init__(
        self,
        structures: Structures,
        steps: int,
        generator: torch.Generator,
        *,
        drop: float = 0.3,
        every: int = 100,
        until: float = 0.75,
        examples: int = 50_000,
    ) -> None:
        super().__init__(structures, steps, generator, drop=drop, every=every, until=until)
        if examples < 1:
            raise Refused(f"examples={examples} must be at least 1")
        self.examples = examples

    def before_step(self, step: Step) -> None:
        super().before_step(step)
        for part in self.parts.values():
            if isinstance(part, Gaussian):
                part.noise = self.generator

    @torch.no_grad()
    def after_backward(self, step: Step) -> None:
        weight = TEMPER / self.examples * min(1.0, 2 * step.done / step.steps)
        for part in self.parts.values():
            assert isinstance(part, Gaussian)
            part.noise = None
            if part.values.grad is None or part.spread.grad is None:
                continue
            s = part.deviation.clamp_min(torch.finfo(part.dtype).tiny)
            part.values.grad.add_(part.values, alpha=weight / PRIOR**2)
            part.spread.grad.add_((s / PRIOR**2 - 1 / s) * part.spread.sigmoid(), alpha=weight)

    def least(self, name: str, part: Scattered, count: int) -> Tensor:
        assert isinstance(part, Gaussian)
        return signal_to_noise(part.values, part.deviation).topk(count, largest=False).indices

    def begin(self, part: Scattered, moved: Tensor) -> None:
        assert isinstance(part, Gaussian)
        stays = torch.ones_like(part.values, dtype=torch.bool)
        stays[moved] = False
        part.values[moved] = 0
        if stays.any():
            part.spread[moved] = part.spread[stays].mean()


@parametrization(
    "ssvi",
    paper="Li et al. 2024, arXiv 2402.11025",
    expression="Gaussian*",
    schedule=Selecting,
    fold=stored,
)
def ssvi(layer: Layer, *, keep: float = 0.1, of: str = "parameters", distribution: str = "erk") -> Gaussian:
    """A share `keep` of the entries, each with a mean and a deviation; the least of signal to noise move now and then.

    q(w) = N(mu, softplus(rho)^2) at its places, and in every step outputs are drawn as y = x mu^T + sqrt(x^2 (s^2)^T +
    1e-8) eps. The divergence from N(0, 0.005^2) is added to the loss with 0.01 / `examples`, growing to that over half
    of the steps. Every `every` steps until `until` of all, a share that falls from `drop` along a cosine, of least E|w|
    / sqrt(Var|w|), goes to where |dL/dmu| is largest; mu is zero there, rho the mean of the others. Means start from
    the entries of W, deviations at 6e-4.

    Between steps, and in the end, the model computes with the means; `structures.Gaussian.noise` draws, for a mean over
    several outputs. Biases have no deviation.
    """
    base = scattered(layer, density(layer, keep, distribution, of))
    spread = torch.full_like(base.values, math.log(math.expm1(BEGIN)))
    out, columns = layer.shape
    return Gaussian(base.values.detach(), spread, base.places, out=out, columns=columns)
