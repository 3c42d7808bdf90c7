"""Some rows of a matrix, and the others as combinations of them: the interpolative decomposition."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eckart.errors import Refused
from eckart.ops.native.combined import COMBINED
from eckart.ops.native.dense import DENSE
from eckart.ops.native.programs import Recipe
from eckart.structures._checks import check_distinct, check_range, float_leaf, index_leaf
from eckart.structures._fused import Fused, part
from eckart.structures.base import Cost, StructuredMatrix, structure
from eckart.structures.permutation import gather


@structure("interpolative")
class Interpolative(StructuredMatrix):
    """A matrix of rank r that stores r of its rows, and the others as combinations of them: r (out + in - r) numbers.

    `W[i] = [R; T R][index[i]]`. The same matrix as `Chain(Permutation(index), Stack(Identity(r), Dense(T)), Dense(R))`,
    in one node, because at batch 1 a call of a module takes as long as reading a hundred kilobytes.

    Args:
        index: (out,), integer, a permutation of 0..out-1; stored in 32 bits.
        rest: T (out - r, r), floating point; no rows where r = out.
        basis: R (r, in), of the same dtype.
    """

    index: Tensor
    rest: nn.Parameter
    basis: nn.Parameter

    def __init__(self, index: Tensor, rest: Tensor, basis: Tensor) -> None:
        float_leaf("Interpolative", "rest", rest, 2)
        float_leaf("Interpolative", "basis", basis, 2)
        rank, out = basis.shape[0], rest.shape[0] + basis.shape[0]
        if rest.shape[1] != rank or rest.dtype != basis.dtype:
            raise Refused(
                f"Interpolative: rest {tuple(rest.shape)} of {rest.dtype} does not go with a basis "
                f"{tuple(basis.shape)} of {basis.dtype}"
            )
        super().__init__((out, basis.shape[1]))
        # 32 bits, which the gather takes as they are, on the path of every token.
        self.leaf("index", index_leaf("Interpolative", "index", index, 1, out, torch.int32))
        if self.index.shape[0] != out:
            raise Refused(f"Interpolative: {self.index.shape[0]} entries of the index do not fit {out} rows")
        self.leaf("rest", rest)
        self.leaf("basis", basis)
        self._fused = Fused()

    @classmethod
    def from_pivots(cls, pivots: Tensor, rest: Tensor, basis: Tensor) -> Interpolative:
        """The matrix with W[pivots] = basis, its other rows, in ascending order, being rest @ basis.

        Args:
            pivots: (r,), integer, distinct.
            rest: (out - r, r).
            basis: (r, in).

        Raises:
            Refused: shapes that do not fit, or pivots that are not distinct rows of W.
        """
        if pivots.ndim != 1 or rest.ndim != 2 or basis.ndim != 2 or {rest.shape[1], basis.shape[0]} != {len(pivots)}:
            raise Refused(
                f"Interpolative needs pivots (r,), rest (out - r, r) and basis (r, in), got {tuple(pivots.shape)}, "
                f"{tuple(rest.shape)} and {tuple(basis.shape)}"
            )
        out = len(rest) + len(pivots)
        pivots = pivots.long()
        check_range("Interpolative", "pivots", pivots, out)
        check_distinct("Interpolative", "pivots", pivots)
        others = torch.ones(out, dtype=torch.bool, device=pivots.device).index_fill(0, pivots, False)
        return cls(torch.cat([pivots, others.nonzero()[:, 0]]).argsort(), rest, basis)

    def forward(self, x: Tensor) -> Tensor:
        y = self._fused(self, x)
        return self._in_turns(x) if y is None else y

    def affine(self, x: Tensor, bias: Tensor) -> Tensor:
        y = self._fused(self, x, bias)
        return self._in_turns(x) + bias if y is None else y

    def recipe(self) -> Recipe:
        return (part(self, DENSE, ("basis",)),), (part(self, COMBINED, ("index", "rest"), source=0),)

    def _in_turns(self, x: Tensor) -> Tensor:
        # From the registries: an attribute takes a third of the time of a small product.
        leaves = self._parameters
        picked = F.linear(x, leaves["basis"])  # type: ignore[arg-type]
        combined = F.linear(picked, leaves["rest"])  # type: ignore[arg-type]
        return gather(torch.cat((picked, combined), -1), self._buffers["index"])  # type: ignore[arg-type]

    def to_dense(self) -> Tensor:
        return torch.cat([self.basis, self.rest @ self.basis])[self.index.long()]

    def rows(self, index: Tensor) -> Tensor:
        rank = self.basis.shape[0]
        at = self.index[index.long()].long()
        picked = F.embedding(at.clamp_max(rank - 1), self.basis)
        if not len(self.rest):
            return picked
        combined = F.embedding((at - rank).clamp_min(0), self.rest) @ self.basis
        return torch.where((at < rank)[..., None], picked, combined)

    def check_values(self) -> None:
        check_range("Interpolative", "index", self.index, self.shape[0])
        check_distinct("Interpolative", "index", self.index)


def interpolative_cost(out: int, columns: int, rank: int, itemsize: int) -> Cost:
    """The cost of an `Interpolative` of that rank, entries of `itemsize` bytes and a 32-bit index for each row."""
    values = rank * (out + columns - rank)
    return Cost(values, values * itemsize + 4 * out, values)
