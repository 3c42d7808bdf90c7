"""Which units of a module to keep, how many at a time, and what that loses: the mathematics of MoDeGPT."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from eckart.heads import Heads
from eckart.methods.lowrank import damped
from eckart.methods.registry import Fitted
from eckart.structures.base import Cost
from eckart.structures.compose import Chain
from eckart.structures.dense import Dense
from eckart.structures.permutation import Selection

Fits = list[tuple[Chain, Tensor | None]]
"""Of each matrix of a module, the structure and what is added to the bias of its layer."""

INDEX_BYTES = 4


def remainders(gains: Tensor) -> Tensor:
    """What is lost with the first k of some gains, k = 0, ..., n: (n + 1,), the last one zero."""
    return torch.cat([gains.flip(0).cumsum(0).flip(0), gains.new_zeros(1)])


def definite(moment: Tensor, relative: float = 1e-6) -> Tensor:
    """A second moment with `relative` times its mean eigenvalue on the diagonal, more where rounding made it negative.

    The identity for a zero moment.
    """
    raised = damped(moment, relative)
    if torch.linalg.cholesky_ex(raised).info.item() != 0:
        raised.diagonal().add_(2 * torch.linalg.eigvalsh(raised)[0].abs())
    return raised


def by_leverage(moment: Tensor, ridge: float) -> Tensor:
    """Indices by descending ridge leverage s_i = [C (C + ridge I)^-1]_ii = 1 - ridge [(C + ridge I)^-1]_ii.

    Args:
        moment: C (n, n), positive semi-definite, float64.
        ridge: above zero.
    """
    identity = torch.eye(len(moment), dtype=moment.dtype, device=moment.device)
    root = torch.linalg.cholesky(moment + ridge * identity)
    inverse = torch.linalg.solve_triangular(root, identity, upper=False)
    order: Tensor = inverse.square().sum(0).argsort(stable=True)
    return order


def nystrom_gains(weight: Tensor, moment: Tensor, order: Tensor) -> Tensor:
    """What each further unit explains of W h where W h is predicted, by least squares, from the units before it.

    With C = L L^T, units in that order, h = L z of white z, and the first k units know the first k of z: unit k
    explains |W L_k|^2.

    Args:
        weight: W (out, n), float64.
        moment: C = E[h h^T] (n, n), positive definite.
        order: (n,).

    Returns:
        (n,), in that order; they sum up to E|W h|^2.
    """
    root = torch.linalg.cholesky(moment[order][:, order])
    gains: Tensor = (weight[:, order] @ root).square().sum(0)
    return gains


def nystrom(weight: Tensor, moment: Tensor, kept: Tensor) -> Tensor:
    """W C[:, S] C[S, S]^-1 (out, k): the best prediction of W h from the units S of h."""
    root = torch.linalg.cholesky(moment[kept][:, kept])
    return torch.cholesky_solve((weight @ moment[:, kept]).T, root).T


def pair_scores(query: Tensor, key: Tensor, rotary: int) -> Tensor:
    """Squared error of the attention scores without a pair of rotated outputs, or without one output that is not.

    Pairs of independent tokens at an angle that is uniform: E[(q^T R k)^2] = E|q|^2 E|k|^2 / 2. For a single output
    it is E[q^2] E[k^2], and for several of them the sum where they are uncorrelated. The query heads of a key head
    are one stacked matrix, whose squared norms add up.

    Args:
        query: E[q^2] (keys, queries / keys, size).
        key: E[k^2] (keys, size).
        rotary: outputs rotated, see `eckart.heads.Heads`.

    Returns:
        (keys, size), for each output the share of its pair, a half: both outputs of a pair have the same.
    """
    q = query.sum(1)
    scores = q * key
    if rotary:
        both_q, both_k = (x[:, :rotary].view(len(x), 2, -1).sum(1) for x in (q, key))
        scores[:, :rotary] = (both_q * both_k).repeat(1, 2) / 4
    return scores


def rotated_order(scores: Tensor, rotary: int) -> tuple[Tensor, Tensor]:
    """Outputs of all heads by descending score, those of a pair together.

    Args:
        scores: (keys, size), from `pair_scores`.
        rotary: as there.

    Returns:
        Indices (keys * size,), and whether the first k of them cut no pair, k = 0, ..., keys * size.
    """
    keys, size = scores.shape
    own = torch.arange(size, device=scores.device)
    pair = torch.where(own < rotary, own % max(1, rotary // 2), own)
    unit = (torch.arange(keys, device=scores.device)[:, None] * size + pair).flatten()
    # By score, and where scores are equal by pair: a stable sort by the second first.
    order = unit.argsort(stable=True)
    order = order[scores.flatten()[order].argsort(descending=True, stable=True)]
    ends = unit[order][1:] != unit[order][:-1]
    whole = ends.new_ones(1)
    return order, torch.cat([whole, ends, whole])


def queries_of(index: Tensor, heads: Heads) -> Tensor:
    """The outputs of the query heads that go with outputs of their key heads, ascending.

    Args:
        index: (k,), into keys * size.

    Returns:
        (k * queries / keys,), into queries * size.
    """
    served = heads.queries // heads.keys
    first = index // heads.size * served * heads.size + index % heads.size
    return (first[:, None] + heads.size * torch.arange(served, device=index.device)).flatten().sort().values


def kept_rows(weight: Tensor, index: Tensor, size: int, dtype: torch.dtype) -> Chain:
    """A matrix of `size` outputs: these rows at these places, zeros elsewhere."""
    rows = Dense(weight.to(dtype).contiguous())
    return Chain(Selection(index, size=size, adjoint=True), rows)


def kept_columns(weight: Tensor, index: Tensor, size: int, dtype: torch.dtype) -> Chain:
    """A matrix that reads these of `size` inputs."""
    return Chain(Dense(weight.to(dtype).contiguous()), Selection(index, size=size))


@dataclass(frozen=True)
class Part:
    """One matrix of a module whose units are kept or not.

    Attributes:
        length: entries of a unit, the other dimension of the matrix.
        units: rows or columns for each that is counted.
        bias: numbers of a bias that the layer has not had yet.
    """

    length: int
    units: int = 1
    bias: int = 0

    def cost(self, kept: int, itemsize: int) -> Cost:
        values, indices = kept * self.units * self.length, INDEX_BYTES * kept * self.units
        return Cost(values + self.bias, (values + self.bias) * itemsize + indices, values)


class Units:
    """Numbers of kept units as candidates; see `eckart.methods.registry.JointFamily`.

    Args:
        parts: the matrices.
        losses: squared error with k units kept, k = 0, ..., n; float64.
        step: sizes are multiples of it.
        whole: whether k units can be kept, (n + 1,); None for any.
        itemsize: bytes of an entry.
        fit: structures and biases with k units kept.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        losses: Tensor,
        step: int,
        itemsize: int,
        fit: Callable[[int], Fits],
        whole: Tensor | None = None,
    ) -> None:
        full = len(losses) - 1
        dense = sum(full * part.units * part.length for part in parts)
        self._parts, self._losses, self._itemsize, self._fit = parts, losses, itemsize, fit
        possible = [k for k in range(step, full, step) if whole is None or whole[k]]
        self.sizes: Sequence[int] = [k for k in possible if self._cost(k).parameters < dense]

    def _cost(self, kept: int) -> Cost:
        first, *others = (part.cost(kept, self._itemsize) for part in self._parts)
        return sum(others, first)

    @property
    def costs(self) -> Sequence[Cost]:
        return [self._cost(size) for size in self.sizes]

    @property
    def errors(self) -> Tensor:
        return self._losses[list(self.sizes)]

    @property
    def zero_error(self) -> float:
        return float(self._losses[0])

    def build(self, size: int) -> list[Fitted]:
        """The candidate of a size; its error is entered for the last matrix, at whose output it is measured."""
        fitted = self._fit(size)
        errors = [0.0] * (len(fitted) - 1) + [float(self._losses[size])]
        return [Fitted(structure, bias, error) for (structure, bias), error in zip(fitted, errors, strict=True)]
