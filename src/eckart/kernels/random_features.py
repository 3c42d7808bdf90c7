"""Random features: a kernel as the inner product of features that are drawn and not fitted."""

from __future__ import annotations

import copy
from typing import Any, Literal

import numpy as np
import torch
from scipy.special import ndtri
from torch import Tensor

from eckart.arrays import Dense
from eckart.errors import Refused
from eckart.kernels._kernel import Kernel, Multiple
from eckart.kernels._named import as_kernel
from eckart.kernels._rows import OfKernel, torch_generator
from eckart.kernels._stationary import normal
from eckart.kernels.contract import kernel_method
from eckart.kernels.rbf import RBF
from eckart.scikit.base import at_least_one, same_kind
from eckart.scikit.door import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from eckart.scikit.planted import Planted

Drawn = Literal["rff", "orthogonal", "qmc", "positive", "arccos"]
KINDS = ("rff", "orthogonal", "qmc", "positive", "arccos")
SOBOL = 21201
"""Dimensions up to which Sobol's points are known."""


def _planted(rng: np.random.Generator) -> Planted:
    x = rng.standard_normal((40, 3))

    def error(fitted: Any) -> float:
        features = fitted.transform(x)
        return float(np.abs(features @ features.T - fitted.kernel_(x)).mean())

    varies = {
        "order of columns": "frequencies are drawn, feature by feature",
        "scale": "the width of the kernel is in units of X",
    }
    return Planted({"X": x}, error, 0.02, {"n_components": 2000}, varies)


def orthogonal(count: int, dimensions: int, generator: torch.Generator) -> Tensor:
    """Normal numbers (count, dimensions), rows orthogonal in blocks of as many as there are dimensions.

    Rows of rotations drawn uniformly, each as long as a normal vector of its own: every row is normal by itself.
    """
    turns = []
    for at in range(0, count, dimensions):
        q, r = torch.linalg.qr(normal(dimensions, dimensions, generator))
        turns.append((q * r.diagonal().sign()).T[: count - at])
    made: Tensor = torch.cat(turns) * normal(count, dimensions, generator).norm(dim=1, keepdim=True)
    return made


def low_discrepancy(count: int, dimensions: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Normal numbers (count, dimensions) and uniform ones (count,) by quantiles of scrambled points of Sobol.

    Raises:
        Refused: there are too many dimensions.
    """
    if dimensions >= SOBOL:
        raise Refused(f"kind='qmc' has points of up to {SOBOL - 1} dimensions, and there are {dimensions}")
    seed = int(torch.randint(2**62, (), generator=generator))
    engine: Any = torch.quasirandom.SobolEngine(dimensions + 1, scramble=True, seed=seed)  # type: ignore[no-untyped-call]
    points = engine.draw(count, dtype=torch.float64).clamp(2.0**-31, 1 - 2.0**-31)
    return torch.from_numpy(ndtri(points[:, 1:].numpy())), points[:, 0]


@kernel_method(
    "random-features",
    paper="Rahimi and Recht 2007, NIPS; Yu et al. 2016, arXiv 1610.09072; Avron et al. 2016, arXiv 1412.8293; "
    "Choromanski et al. 2021, arXiv 2009.14794; Cho and Saul 2009, NIPS",
    kind="transformer",
    gives="features (samples, n_components)",
    planted=_planted,
)
class RandomFeatures(ClassNamePrefixFeaturesOutMixin, TransformerMixin, OfKernel):
    """Features that are drawn, whose inner products are a kernel's on average.

    k(x - z) = E cos(w (x - z)) gives cos(w x) and sin(w x) for frequencies w of the spectral density: drawn one by one
    ("rff"), in orthogonal directions ("orthogonal"), or by points of low discrepancy ("qmc"), which both make the
    error smaller while the dimensions are few. exp(-|x - z|^2 / 2) = E e^{w x - |x|^2} e^{w z - |z|^2} gives features
    above zero ("positive"), good where the kernel is small and x + z is too: their variance grows as e^|x + z|^2.
    "arccos" is max(w x, 0), of the kernel |x| |z| (sin t + (pi - t) cos t) / pi of the angle t.

    Args:
        kernel: by name, as `as_kernel` takes it, or a `Kernel` of which frequencies are known; None for "rbf". Of the
            Gaussian one alone there are "positive" features, and "arccos" has no other kernel than its own.
        n_components: features, two for each frequency but for "arccos" and the last of an odd number.
        kind: "rff", "orthogonal", "qmc", "positive", or "arccos".
        gamma: of a kernel by name, as scikit-learn has it; 1 / features where it is None.
        random_state: of the draws.

    Attributes:
        frequencies_: w, (frequencies, features), in radians by the unit of X.
        amplitude_: what the features are multiplied with.
        phase_: what the angle of the last of an odd number of frequencies is shifted by.
        kernel_: the `Kernel`; None for "arccos".
        kind_, n_components_: that were drawn.

    Raises:
        Refused: the kernel has no frequencies, or none of this kind.
    """

    def __init__(
        self,
        kernel: Any = None,
        *,
        n_components: int = 100,
        kind: Drawn = "orthogonal",
        gamma: float | None = None,
        random_state: int | np.random.Generator | np.random.RandomState | None = None,
    ) -> None:
        self.kernel = kernel
        self.n_components = n_components
        self.kind = kind
        self.gamma = gamma
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> RandomFeatures:
        """Draws features for rows like those of X (samples, features), of which the width alone counts; itself."""
        if self.kind not in KINDS:
            raise Refused(f"kind={self.kind!r} is none of {', '.join(KINDS)}")
        at_least_one(n_components=self.n_components)
        table = self._table(X, fit=True)
        generator, d = torch_generator(self._rng()), table.shape[1]
        self.kind_, self.n_components_ = self.kind, int(self.n_components)
        if self.kind == "arccos":
            if self.kernel is not None or self.gamma is not None:
                raise Refused(f"kind='arccos' has a kernel of its own, and kernel={self.kernel!r} was given")
            self.kernel_ = None
            self.frequencies_ = orthogonal(self.n_components, d, generator).numpy()
            self.amplitude_ = float((2 / self.n_components) ** 0.5)
            return self
        named = "rbf" if self.kernel is None else self.kernel
        self.kernel_ = copy.deepcopy(as_kernel(named, d, gamma=self.gamma))
        self.frequencies_ = self._frequencies(self.kernel_, (self.n_components + 1) // 2, d, generator).numpy()
        self.phase_ = 2 * np.pi * float(torch.rand((), generator=generator)) if self.n_components % 2 else 0.0
        with torch.no_grad():
            at_zero = float(self.kernel_.diag(torch.zeros(1, d, dtype=torch.float64))[0])
        self.amplitude_ = float(((1 if self.kind == "positive" else 2) * at_zero / self.n_components) ** 0.5)
        return self

    def _frequencies(self, kernel: Kernel, count: int, d: int, generator: torch.Generator) -> Tensor:
        if self.kind == "rff":
            return kernel.frequencies(count, d, generator)
        if self.kind == "positive":
            _lengthscale(kernel)
        if self.kind == "qmc":
            return kernel.frequencies_of(*low_discrepancy(count, d, generator))
        uniform = torch.rand(count, generator=generator, dtype=torch.float64)
        return kernel.frequencies_of(orthogonal(count, d, generator), uniform)

    @same_kind
    def transform(self, X: Any) -> Any:
        """Features (samples, n_components) of rows X."""
        x = self._table(X)
        with np.errstate(over="ignore", invalid="ignore"):
            angles = x @ self.frequencies_.T
            if self.kind_ == "arccos":
                return self.amplitude_ * np.maximum(angles, 0)
            pairs = self.n_components_ // 2
            if self.kind_ != "positive":
                angles[:, pairs:] += self.phase_
                return self.amplitude_ * np.hstack([np.cos(angles), np.sin(angles[:, :pairs])])
            size = np.square(x / _lengthscale(self.kernel_)).sum(1)[:, None]
            return self.amplitude_ * np.exp(np.hstack([angles, -angles[:, :pairs]]) - size)

    @property
    def _n_features_out(self) -> int:
        return self.n_components_


def _lengthscale(kernel: Kernel | None) -> Dense:
    """l of a Gaussian kernel, or a multiple of one; Refused for others."""
    while isinstance(kernel, Multiple):
        kernel = kernel.kernel
    if not isinstance(kernel, RBF):
        raise Refused(f"kind='positive' is of the Gaussian kernel, and {type(kernel).__name__} is none")
    found: Dense = kernel.log_lengthscale.detach().exp().numpy()
    return found
