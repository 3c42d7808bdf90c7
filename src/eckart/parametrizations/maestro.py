"""Factors of full rank whose columns are ordered by leaving the last ones out at random; ranks that are not used go."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from eckart.errors import Refused
from eckart.machine import wide
from eckart.parametrizations.contract import (
    Layer,
    Schedule,
    Step,
    Structures,
    affordable,
    check_currency,
    check_share,
    parametrization,
)
from eckart.structures.base import StructuredMatrix
from eckart.structures.compose import Chain
from eckart.structures.dense import Dense
from eckart.structures.low_rank import low_rank, low_rank_cost


def factors(structure: StructuredMatrix) -> tuple[Tensor, Tensor]:
    """U (out, k) and V (k, in)."""
    left, right = structure.operands()
    return left.weight, right.weight  # type: ignore[return-value]


def tails(factor: Tensor, dim: int) -> Tensor:
    """||U[:, j:]|| (dim=0) or ||V[j:]|| (dim=1) for every j."""
    squares = wide(factor.detach()).square().sum(dim)
    return squares.flip(0).cumsum(0).flip(0).sqrt()


def pull(factor: Tensor, dim: int) -> Tensor:
    """The gradient of the hierarchical group lasso sum_j ||U[:, j:]|| by U: U[:, i] sum_{j <= i} 1 / ||U[:, j:]||."""
    norms = tails(factor, dim)
    weights = torch.where(norms > 0, 1 / norms, 0).cumsum(0).to(factor)
    return factor.detach() * (weights if dim == 0 else weights[:, None])


def rank_of(structure: StructuredMatrix) -> int:
    """Ranks up to the last that is not zero, at least one."""
    left, right = factors(structure)
    used = ((left != 0).any(0) | (right != 0).any(1)).nonzero()
    return int(used[-1]) + 1 if len(used) else 1


def paid(matrix: Chain, keep: float, of: str) -> int:
    """The rank that `keep` pays for; all of them where it is 1."""
    left, _ = factors(matrix)
    if keep == 1:
        return left.shape[1]
    out, columns = matrix.shape
    dense = torch.empty(out, columns, dtype=left.dtype, device="meta")
    return affordable(
        dense, keep, of, lambda rank: low_rank_cost(out, columns, rank, left.element_size()), left.shape[1]
    )


class Ordering(Schedule):
    """In every second step one matrix acts with its first j ranks; the last ranks go once they count for little."""

    def __init__(
        self,
        structures: Structures,
        steps: int,
        generator: torch.Generator,
        *,
        penalty: float = 1e-4,
        threshold: float = 1e-2,
        every: int = 100,
        keep: float = 1.0,
        of: str = "parameters",
        cut_at: float = 0.7,
    ) -> None:
        super().__init__()
        if not 0 <= penalty < math.inf or not 0 <= threshold < 1:
            raise Refused(f"penalty={penalty} must be finite and not negative, and threshold={threshold} in [0, 1)")
        if every < 1 or not 0 <= cut_at <= 1:
            raise Refused(f"every={every} must be at least 1, and cut_at={cut_at} in 0..1")
        check_share("keep", keep)
        check_currency(of)
        self.penalty, self.threshold, self.every, self.generator = penalty, threshold, every, generator
        self.cut_at = max(1, round(cut_at * steps))
        self.matrices = [each for each in structures.values() if isinstance(each, Chain)]
        self.paid = [paid(each, keep, of) for each in self.matrices]
        self._left_out: tuple[Tensor, int, Tensor] | None = None

    @torch.no_grad()
    def before_step(self, step: Step) -> None:
        if step.done % 2 == 0 or not self.matrices:
            return
        drawn = torch.randint(len(self.matrices), (1,), generator=self.generator)
        matrix = self.matrices[int(drawn)]
        left, _ = factors(matrix)
        first = int(torch.randint(1, rank_of(matrix) + 1, (1,), generator=self.generator))
        self._left_out = left, first, left[:, first:].clone()
        left[:, first:] = 0

    @torch.no_grad()
    def after_backward(self, step: Step) -> None:
        if self._left_out is not None:
            left, first, rest = self._left_out
            left[:, first:] = rest
            if left.grad is not None:
                left.grad[:, first:] = 0
            self._left_out = None
        for matrix in self.matrices if self.penalty else ():
            for factor, dim in zip(factors(matrix), (0, 1), strict=True):
                if factor.grad is not None:
                    factor.grad.add_(pull(factor, dim), alpha=self.penalty)

    @torch.no_grad()
    def after_step(self, step: Step) -> None:
        done = step.done + 1
        for matrix, most in zip(self.matrices, self.paid, strict=True):
            left, right = factors(matrix)
            if done % self.every == 0:
                counts = tails(left, 0) * tails(right, 1)
                self._cut(matrix, max(1, int((counts > self.threshold * counts[0]).sum())))
            if done >= self.cut_at:
                self._cut(matrix, most)
            gone = torch.arange(left.shape[1], device=left.device) >= rank_of(matrix)
            step.forget(left, gone)
            step.forget(right, gone[:, None])

    @staticmethod
    def _cut(matrix: Chain, rank: int) -> None:
        left, right = factors(matrix)
        left[:, rank:], right[rank:] = 0, 0


def cut(structure: StructuredMatrix) -> StructuredMatrix:
    """Only the ranks that are left, or the matrix where that is smaller."""
    (left, right), rank = factors(structure), rank_of(structure)
    if rank * sum(structure.shape) >= math.prod(structure.shape):
        return Dense((left @ right).detach())
    return low_rank(left[:, :rank].clone(), right[:rank].clone())


@parametrization(
    "maestro",
    paper="Horvath et al. 2023, arXiv 2308.14929",
    expression="Chain(Dense*, Dense*)",
    schedule=Ordering,
    fold=cut,
)
def maestro(layer: Layer) -> Chain:
    """W = U V of full rank, whose first ranks are made to be the best ones; those at the end go where they count least.

    It starts from the SVD of W. In every second step one matrix, drawn, acts with its first j ranks only, j uniform
    (ordered dropout); in the others all act whole. A hierarchical group lasso, `penalty` sum_j (||U[:, j:]|| +
    ||V[j:]||), is added to the loss. Every `every` steps the ranks from j on go for good where ||U[:, j:]|| ||V[j:]||
    is below `threshold` ||U|| ||V||. With `keep` below 1 those that it does not pay for go at `cut_at` of all steps,
    and in the end any smaller rank is a slice too. For one linear map this is the SVD, for a linear autoencoder PCA.

    Departures: the authors' steps have both passes, the second with the outputs of the first as labels; here they take
    turns, at half the cost, under the loss of the loop. Their threshold is absolute, for SGD; what Adam leaves of a
    rank that is pulled to zero is of the size of its rate. Ranks that went are zeros until `finish()`, so that steps
    take no less time.

    A smaller net at no loss beside low rank from the start is not reproduced, because on a small net and two passes,
    cut to a fifth of the bytes, it is 0.009 behind that.
    """
    layer.variance  # noqa: B018  refuses zero
    u, s, v = torch.linalg.svd(layer.weight.cpu().double(), full_matrices=False)
    root = s.sqrt()
    return low_rank(*(layer.like(each) for each in (u * root, root[:, None] * v)))
