"""Sparse dictionary learning on the inputs of a layer."""

from __future__ import annotations

import torch
from torch import Tensor

from eckart.compressors._one_by_one import Once, OneByOne, paying
from eckart.compressors.contract import Family, compressor
from eckart.linalg import project
from eckart.linalg.dictionary import largest, least_squares_atoms, sparse_codes
from eckart.linalg.low_rank import balanced
from eckart.metrics import Metric
from eckart.statistics.needs import Need, Statistics
from eckart.structures.base import Cost
from eckart.structures.compose import Chain
from eckart.structures.dense import Dense
from eckart.structures.masked import Masked
from eckart.structures.quantized import finite_matrix

ATOMS = 2
"""Atoms for each entry of a column of codes, the paper's k / s."""
SIZES = 12


@compressor(
    "cospadi",
    paper="Shopkhoev et al. 2025, arXiv 2509.22075",
    expression="Chain(Masked, Dense)",
    needs=(Need.INPUT_SECOND_MOMENT,),
    size="terms",
)
def cospadi(weight: Tensor, statistics: Statistics) -> Family:
    """W^T ~ D Z: every output a sum of s of the k = 2 s atoms of a dictionary, fitted to what W does to its inputs.

    The error is `||C^1/2 (W^T - D Z)||`: columns of Z belong to outputs, so that a dictionary C^1/2 D of the columns of
    C^1/2 W^T keeps its sparse codes when the metric is undone. Places of the codes are stored as bits, as the paper
    counts them; with an index of 16 bits for each, 16-bit codes would take the bytes of a product of rank k, which can
    hold whatever they hold.

    Where the paper alternates orthogonal matching pursuit and K-SVD, all codes are the largest of a least-squares fit
    here, and all atoms are updated at once.

    Args:
        weight: (out, in).
        statistics: `input_second_moment` C is read; errors are `||(W - What) C^1/2||_F^2`.

    Raises:
        Refused: weight or C has NaN or Inf entries, or C does not fit the weight.
    """
    w, moment = finite_matrix(weight), statistics.get(Need.INPUT_SECOND_MOMENT)
    scale = float(w.abs().max()) or 1.0

    exact = torch.promote_types(w.dtype, torch.float32)
    prepared = Once(lambda: signals(w.double() / scale, moment).to(exact))

    def fit(terms: int) -> Chain:
        codes = sparse_codes(prepared(), ATOMS * terms, terms)
        x, atoms = balanced(codes, least_squares_atoms(codes, w.double() / scale) * scale)
        return Chain(Masked.from_dense(x.to(w.dtype), largest(codes, terms)), Dense(atoms.to(w.dtype).contiguous()))

    def cost(terms: int) -> Cost:
        return cospadi_cost(w.shape[0], w.shape[1], terms, w.element_size())

    most = len(paying(w, range(1, w.numel() // (w.shape[0] + ATOMS * w.shape[1]) + 1), cost))
    sizes = sorted({max(1, round(most * i / SIZES)) for i in range(1, SIZES + 1)}) if most else []
    return OneByOne(w, sizes, cost, fit, Metric(right=moment))


def signals(weight: Tensor, moment: Tensor) -> Tensor:
    """Y (out, min(out, in)) with Y Y^T = W C W^T, principal directions first, of mean squared row norm one.

    Any codes X, one row an output, have `||(W - X T) C^1/2|| = ||Y - X T'||` up to a common factor for the best T and
    T', so that the metric is no more to be thought of.
    """
    principal = project(weight, Metric(right=moment))
    y = principal.synthesis * (-principal.errors.diff()).clamp_min(0).sqrt()
    size = y.square().sum(1).mean().sqrt()
    return y / size if size > 0 else y


def cospadi_cost(out: int, columns: int, s: int, itemsize: int) -> Cost:
    """The cost of s of 2 s atoms for each row of a matrix (out, in)."""
    values = s * (out + ATOMS * columns)
    return Cost(values, values * itemsize + out * -(-ATOMS * s // 8), values)
