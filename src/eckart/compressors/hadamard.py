"""A rotation in front of every matrix: what sticks out of its columns or of its inputs is spread over all of them."""

from __future__ import annotations

import torch
from torch import Tensor

from eckart.compressors._one_by_one import BITS, OneByOne, paying, rounding
from eckart.compressors.contract import Family, compressor
from eckart.metrics import Metric
from eckart.statistics.needs import Statistics
from eckart.structures._checks import size_option
from eckart.structures.base import Cost
from eckart.structures.compose import Chain
from eckart.structures.quantized import Quantized, finite_matrix, quantized_cost
from eckart.structures.rotations import drawn_rotation, spread

GROUP = 64
SEED = 0


@compressor(
    "hadamard",
    paper="Ashkboos et al. 2024, arXiv 2404.00456",
    expression="Chain(Quantized, Chain(Interleaved(Dense), Repeated(Hadamard), Diagonal))",
    size="bits",
)
def hadamard(weight: Tensor, statistics: Statistics, *, group: int = GROUP) -> Family:
    """Rounds W R^-1 to nearest and rotates the inputs by R, while the model runs.

    `W ~ Q(W R^-1) R`, R = (O kron H) diag(signs), H the Hadamard matrix of the largest power of two that divides the
    number of inputs, O a random orthogonal matrix of what is left, 9 x 9 for 576 (section 4, for the matrices that no
    rotation of the residual stream reaches). Affine grids, one for 64 entries of a row. A rotation of the residual
    stream (`--rotate`) does the same for nothing; this one needs no knowledge of the model, and costs
    `in (O + 2 sqrt(H))` multiply-adds a token and the numbers of O and the signs.

    Args:
        weight: (out, in).
        statistics: not read; the error is `||W - What||_F^2`.
        group: inputs that share a scale.

    Raises:
        Refused: weight has NaN or Inf entries.
    """
    weight, group = finite_matrix(weight), size_option("hadamard", "group", group)
    signs, mixing = drawn_rotation(weight.shape[1], torch.Generator().manual_seed(SEED))
    stored = None if mixing is None else mixing.to(weight.dtype)
    exact = torch.promote_types(weight.dtype, torch.float32)

    def cost(bits: int) -> Cost:
        rotation = spread(signs.to(weight.dtype), stored)
        return quantized_cost(weight.shape, bits, group, weight.dtype) + rotation.cost()

    def fit(bits: int) -> Chain:
        # What is stored of O is not quite orthogonal: what undoes it is its inverse.
        undoing = None if stored is None else torch.linalg.inv(stored.double()).T
        turned = spread(signs, undoing).to(weight.device).forward(weight.double()).to(exact)
        rotation = spread(signs.to(weight.dtype), stored).to(weight.device)
        return Chain(Quantized.quantize(turned, bits, group, dtype=weight.dtype), rotation)

    return OneByOne(weight, paying(weight, BITS, cost), cost, fit, Metric(), rounding)
