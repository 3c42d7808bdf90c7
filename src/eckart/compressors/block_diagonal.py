"""The best block-diagonal matrix in the metric of the inputs."""

from __future__ import annotations

import torch
from torch import Tensor

from eckart.compressors._one_by_one import Once, OneByOne
from eckart.compressors.contract import Family, compressor
from eckart.linalg.low_rank import damped
from eckart.metrics import Metric
from eckart.statistics.needs import Need, Statistics
from eckart.structures.base import Cost
from eckart.structures.block_diagonal import BlockDiagonal
from eckart.structures.compose import Chain
from eckart.structures.permutation import Selection
from eckart.structures.quantized import finite_matrix

BLOCKS = (16, 8, 4, 2)
DAMPING = 1e-3
STEPS = 50
"""Power iterations for an order of rows and columns; four times as many change an error by one in a hundred at most."""


@compressor(
    "block-diagonal",
    paper="eckart; the structure is Nesky and Stout 2018, ICANN; the order is Dhillon 2001, KDD",
    expression="Chain(Selection, BlockDiagonal, Selection)",
    needs=(Need.INPUT_SECOND_MOMENT,),
    size="blocks",
)
def block_diagonal(weight: Tensor, statistics: Statistics) -> Family:
    """The b blocks on a diagonal that come nearest to W on its inputs: `B_i = W_i C[:, J_i] C[J_i, J_i]^-1`.

    W_i are the rows of block i and J_i its inputs: B_i is the regression of W_i x on the inputs that are left to these
    rows, so that what the others did is taken over as far as they are correlated. Rows and columns are first brought
    into the order that gathers the squares of W at the diagonal; blocks are runs of it that differ by one at most, the
    shorter ones padded.

    Args:
        weight: (out, in).
        statistics: `input_second_moment` C is read; errors are `||(W - What) C^1/2||_F^2`.

    Raises:
        Refused: weight or C has NaN or Inf entries, or C does not fit the weight.
    """
    w, moment = finite_matrix(weight), statistics.input_moment(weight)
    order = Once(lambda: spectral_order(w))

    def fit(blocks: int) -> Chain:
        rows, columns = (entries.tensor_split(blocks) for entries in order())
        return assemble(regress(w, moment, rows, columns).to(w.dtype), rows, columns)

    def cost(blocks: int) -> Cost:
        sides = [torch.arange(n).tensor_split(blocks) for n in w.shape]
        meta = torch.empty(blocks, *(len(runs[0]) for runs in sides), dtype=w.dtype, device="meta")
        return assemble(meta, *sides).cost()

    dense = w.numel() * w.element_size()
    sizes = [blocks for blocks in BLOCKS if blocks <= min(w.shape) and cost(blocks).bytes < dense]
    return OneByOne(w, sizes, cost, fit, Metric(right=moment))


def spectral_order(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Orders of the rows (out,) and the columns (in,) that bring the large entries of W near the diagonal.

    The second pair of singular vectors of D_1^-1/2 (W o W) D_2^-1/2, D_1 and D_2 the sums of the rows and columns of
    W o W, relaxes the cut of least weight between two groups of rows and columns (Dhillon). The first pair is known,
    the roots of D_1 and D_2, and is taken out; power iterations find the next.
    """
    w = weight.double().contiguous()
    squares = (w / w.abs().max().clamp_min(torch.finfo(torch.float64).tiny)).square()
    rows, columns = squares.sum(1).sqrt(), squares.sum(0).sqrt()
    a = squares / rows.clamp_min(1e-150)[:, None] / columns.clamp_min(1e-150)
    first = rows / rows.norm().clamp_min(1e-150), columns / columns.norm().clamp_min(1e-150)
    v = torch.linspace(-1, 1, len(columns), dtype=torch.float64)
    for _ in range(STEPS):
        u = a @ v - first[0] * (first[1] @ v)
        v = a.T @ u - first[1] * (first[0] @ u)
        v = v / v.norm().clamp_min(1e-150)
    return u.argsort(stable=True), v.argsort(stable=True)


def regress(weight: Tensor, moment: Tensor, rows: tuple[Tensor, ...], columns: tuple[Tensor, ...]) -> Tensor:
    """The blocks (b, longest of rows, longest of columns), float64, of the optimum; shorter ones padded with zeros.

    Args:
        weight: W (out, in).
        moment: C (in, in), symmetric positive semi-definite, singular or zero if need be; 1e-3 of its mean eigenvalue
            is added to its diagonal.
        rows, columns: those of each block.
    """
    mean = moment.diagonal().mean()
    C = damped(moment / mean if mean > 0 else moment, DAMPING)
    blocks = weight.new_zeros(len(rows), len(rows[0]), len(columns[0]), dtype=torch.float64)
    for block, i, j in zip(blocks, rows, columns, strict=True):
        factor = torch.linalg.cholesky(C[j][:, j])
        block[: len(i), : len(j)] = torch.cholesky_solve((weight[i].double() @ C[:, j]).T, factor).T
    limit = torch.finfo(weight.dtype).max
    return blocks.clamp(-limit, limit)


def assemble(blocks: Tensor, rows: tuple[Tensor, ...], columns: tuple[Tensor, ...]) -> Chain:
    """The matrix that holds blocks[i] at rows[i] and columns[i].

    Where a block is padded, its zero column reads the last input of the block once more, and no output reads its row.
    """
    b, p, q = blocks.shape
    take = torch.cat([torch.cat([run, run[-1:].expand(q - len(run))]) for run in columns])
    places = torch.cat([k * p + torch.arange(len(run)) for k, run in enumerate(rows)])
    out, size = places[torch.cat(rows).argsort()], sum(map(len, columns))
    return Chain(Selection(out, size=b * p), BlockDiagonal(blocks), Selection(take, size=size))
