"""Features of a kernel of differences by frequencies that were drawn."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from eckart.errors import Refused
from eckart.kernels._parameters import _as_came, points


class FourierFeatures(nn.Module):
    """phi(x) = (k(0) / m)^1/2 (cos w_1 x, ..., cos w_m x, sin w_1 x, ..., sin w_m x), phi(x) phi(z) ~ k(x - z).

    Right on average over frequencies of the spectral density, with an error that falls as m^-1/2. Frequencies are
    buffers: a state dict brings them.

    Args:
        frequencies: w (m, d), in radians by the unit of x.
        size: k(0), no dimensions.
    """

    frequencies: Tensor
    amplitude: Tensor

    def __init__(self, frequencies: Tensor, size: Tensor) -> None:
        super().__init__()
        self.register_buffer("frequencies", frequencies)
        self.register_buffer("amplitude", (size / len(frequencies)).sqrt())

    def forward(self, x: Any) -> Any:
        """Features (n, 2 m) of points (n, d); an array where x is one. Refused where d is another."""
        given, dimensions = points(x), self.frequencies.shape[1]
        if given.shape[1] != dimensions:
            raise Refused(f"points of {given.shape[1]} dimensions: these features are of {dimensions}")
        angles = given @ self.frequencies.T
        return _as_came(self.amplitude * torch.cat([angles.cos(), angles.sin()], 1), x)
