"""gpytorch's exact processes on grids: Kronecker and Toeplitz matrices, conjugate gradients, Adam.

pip install --no-deps gpytorch linear_operator

Settings are those of its own examples: Adam of rate 0.1, and tolerances as they come.
"""

from __future__ import annotations

import time
from typing import Any

import gpytorch
import numpy as np
import torch
from gpytorch.kernels import GridKernel, RBFKernel, ScaleKernel


class OnGrid(gpytorch.models.ExactGP):
    """A process of a kernel on the full grid of some axes."""

    def __init__(self, axes: list[torch.Tensor], y: torch.Tensor, likelihood: Any, kernel: Any) -> None:
        x = gpytorch.utils.grid.create_data_from_grid(axes)
        super().__init__(x, y, likelihood)
        self.mean_module = gpytorch.means.ZeroMean()
        self.covar_module = GridKernel(kernel, axes)

    def forward(self, x: torch.Tensor) -> Any:
        return gpytorch.distributions.MultivariateNormal(self.mean_module(x), self.covar_module(x))


def fitted(
    axes: list[np.ndarray], y: np.ndarray, kernel: Any, noise: float, steps: int, most: float = float("inf")
) -> Any:
    """A process whose parameters some steps of Adam learned from values (n,) without mean; in the order of the grid.

    It stops behind a step after which `most` processor seconds are over; `steps` of it is how many there were.
    """
    torch.manual_seed(0)
    likelihood = gpytorch.likelihoods.GaussianLikelihood().double()
    likelihood.noise = noise
    model = OnGrid([torch.from_numpy(axis) for axis in axes], torch.from_numpy(y), likelihood, kernel.double()).double()
    model.train()
    evidence = gpytorch.mlls.ExactMarginalLogLikelihood(likelihood, model)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.1)
    begun, model.steps = time.process_time(), 0
    while model.steps < steps and time.process_time() - begun < most:
        optimizer.zero_grad()
        loss = -evidence(model(model.train_inputs[0]), model.train_targets)
        loss.backward()
        optimizer.step()
        model.steps += 1
    return model.eval()


def gaussian() -> Any:
    """A multiple of a Gaussian kernel of one lengthscale, which is 1 to begin with."""
    kernel = ScaleKernel(RBFKernel())
    kernel.base_kernel.lengthscale = 1.0
    return kernel
