"""A quantized matrix, and a product that starts at what quantization lost."""

from __future__ import annotations

import torch
from torch import Tensor

from eckart.adapters.contract import Layer, Start, adapter, check_rank
from eckart.linalg.truncated_svd import truncated_svd
from eckart.ops.packing import normal_float
from eckart.structures.low_rank import low_rank
from eckart.structures.quantized import Quantized, finite_matrix

BITS, GROUP = 4, 64
ITERATIONS = 5


@adapter(
    "loftq",
    paper="Li 2023, arXiv 2310.08659",
    expression="Sum(Quantized, Chain(Dense*, Dense*))",
    scaled=True,
)
def loftq(layer: Layer) -> Start:
    """Q + B A in place of W: 4-bit NormalFloat codes and the best product for what they lose, in turns (algorithm 1).

    Five turns, of which the best is kept; the paper keeps the last.
    """
    rank = check_rank(layer)
    weight = finite_matrix(layer.weight)
    codes, left, right = alternate(weight, rank, layer.generator)
    root = layer.scale**0.5
    return Start(low_rank((left / root).to(layer.dtype), (right / root).to(layer.dtype)), frozen=codes)


def alternate(weight: Tensor, rank: int, generator: torch.Generator) -> tuple[Quantized, Tensor, Tensor]:
    """Q, B (out, r) and A (r, in) with `||W - Q - B A||_F` the least of all turns.

    Args:
        weight: W (out, in).
        rank: of B A.
        generator: of the decompositions.
    """
    w, codebook = weight.double(), normal_float(BITS)
    # Squares of what is divided by the largest entry neither overflow nor vanish.
    largest = float(w.abs().max()) or 1.0
    product, least = torch.zeros_like(w), float("inf")
    for _ in range(ITERATIONS):
        codes = Quantized.quantize(w - product, BITS, GROUP, codebook=codebook, dtype=weight.dtype)
        rest = w - codes.to_dense().detach().double()
        u, s, vh = truncated_svd(rest, rank, generator=generator)
        left, right = u * s.sqrt(), s.sqrt()[:, None] * vh
        product = left @ right
        error = float(torch.linalg.matrix_norm((rest - product) / largest))
        if error < least:
            least, best = error, (codes, left, right)
    return best
