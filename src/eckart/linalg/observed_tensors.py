"""Tensors of which some entries are known: sums of outer products and Tucker forms, by least squares on those alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from math import prod

import numpy as np
import torch
from torch import Tensor

from eckart.arrays import Dense
from eckart.linalg.batched_ridge import Ragged, batched_ridge
from eckart.linalg.cp import contraction
from eckart.linalg.dimension_tree import visit_modes
from eckart.linalg.khatri_rao import AT_ONCE, contracted, row_products
from eckart.linalg.mode_products import mode_products


@dataclass(frozen=True)
class Entries:
    """Entries of a tensor.

    Attributes:
        shape: (n_1, ..., n_K).
        index: where they stand, (nnz,) a mode.
        values: (nnz,).
    """

    shape: tuple[int, ...]
    index: tuple[Dense, ...]
    values: Dense

    @cached_property
    def patterns(self) -> list[Ragged]:
        """For each mode, the entries of each of its indices."""
        return [
            Ragged(np.cumsum([0, *np.bincount(at, minlength=n)]), np.argsort(at, kind="stable"))
            for at, n in zip(self.index, self.shape, strict=True)
        ]

    def rows(self, factors: Sequence[Dense]) -> list[Dense]:
        """Rows (nnz, r_k) of the factors (n_k, r_k) at the entries."""
        return [f[at] for f, at in zip(factors, self.index, strict=True)]

    def step(self, mode: int, factor: Dense, design: Dense, damping: float) -> tuple[Dense, float]:
        """The factor (n, r) for which design . factor's rows are nearest to the values, and their squared distance.

        Args:
            mode: of the factor.
            factor: as it is.
            design: (nnz, r).
            damping: how strongly rows are held where they are, by the mean eigenvalue of their normal equations.
        """
        pattern, at = self.patterns[mode], self.index[mode]
        rest = self.values - (design * factor[at]).sum(axis=1)
        held = damping * np.bincount(at, np.square(design).sum(axis=1), self.shape[mode]) / design.shape[1]
        least = np.finfo(float).eps * float(held.max(initial=0.0)) / max(damping, 1e-300)
        move = batched_ridge(pattern, rest[pattern.indices], design, np.maximum(held, max(least, 1e-300)))
        return factor + move, float(np.square(rest - (design * move[at]).sum(axis=1)).sum())


def cp_sweep(entries: Entries, factors: Sequence[Dense], damping: float) -> tuple[list[Dense], float]:
    """Every factor (n_k, r) of a sum of outer products in turn, brought to one norm a term; the squared error."""
    found, error = list(factors), np.inf
    for mode in range(len(found)):
        others = [rows for k, rows in enumerate(entries.rows(found)) if k != mode]
        design = np.prod(others, axis=0) if len(others) > 1 else others[0]
        found[mode], error = entries.step(mode, found[mode], design, damping)
    return one_norm(found), error


def one_norm(factors: Sequence[Dense]) -> list[Dense]:
    """The factors with each term's columns brought to the geometric mean of their norms; 0 where one is."""
    norms = np.array([np.linalg.norm(f, axis=0) for f in factors])
    even = np.exp(np.log(np.where(norms > 0, norms, 1.0)).mean(axis=0)) * (norms > 0).all(axis=0)
    return [f * even / np.where(n > 0, n, 1.0) for f, n in zip(factors, norms, strict=True)]


def few_gaps(gaps: Entries, damping: float) -> bool:
    """Whether `cp_sweep_of_the_whole` is as good as `cp_sweep`: half of each slice is known, and rows are held."""
    size = prod(gaps.shape)
    most = max(int(p.counts.max()) * n for p, n in zip(gaps.patterns, gaps.shape, strict=True))
    return 2 * most <= size and damping >= 1e-9


def cp_sweep_of_the_whole(
    filled: Dense, entries: Entries, gaps: Entries, factors: Sequence[Dense], damping: float
) -> tuple[list[Dense], float]:
    """`cp_sweep` where little is missing: from the whole tensor's normal equations what is missing is taken off.

    A row's are V + d I less the sum of u u^T over its gaps, u the product of the others' rows there, and the right side
    is the match of the tensor with zeros in the gaps, from a tree over the modes: |gaps| rank^2 and two readings of the
    tensor, instead of |entries| rank^2.

    Args:
        filled: (n_1, ..., n_K), zero where it is not known.
        entries: what is known.
        gaps: what is not; the values are not read.
        factors: as in `cp_sweep`.
        damping: as in `cp_sweep`.
    """
    found = [torch.from_numpy(f) for f in factors]
    grams, error = [f.T @ f for f in found], np.inf
    whole, eye = float(np.square(entries.values).sum()), torch.eye(found[0].shape[1], dtype=torch.float64)

    def update(mode: int, node: Tensor) -> None:
        nonlocal error
        old, match = found[mode], node.T
        others = [each for k, each in enumerate(gaps.rows([f.numpy() for f in found])) if k != mode]
        design = np.prod(others, axis=0)
        normal = reduce(torch.mul, (g for k, g in enumerate(grams) if k != mode)).repeat(len(old), 1, 1)
        for members, _, d in gaps.patterns[mode].gathered(np.zeros(len(design)), design):
            normal[torch.from_numpy(members)] -= torch.from_numpy(d.transpose(0, 2, 1) @ d)
        held = damping * normal.diagonal(dim1=1, dim2=2).mean(1)[:, None]
        if not held.min() > 0:
            error = whole
            return
        lower = torch.linalg.cholesky(normal + held[:, :, None] * eye)
        new = found[mode] = torch.cholesky_solve((match + held * old)[:, :, None], lower)[:, :, 0]
        grams[mode] = new.T @ new
        error = whole + float((((normal @ new[:, :, None])[:, :, 0] - 2 * match) * new).sum())

    tensor = torch.from_numpy(filled)
    visit_modes(tensor, filled.shape, range(filled.ndim), contraction(tensor, found), update)
    return one_norm([f.numpy() for f in found]), max(error, 0.0)


def tucker_sweep(
    entries: Entries, core: Dense, factors: Sequence[Dense], damping: float
) -> tuple[Dense, list[Dense], float]:
    """Every factor (n_k, r_k) in turn, orthonormal afterwards, and the core (r_1, ..., r_K); the squared error."""
    found = list(factors)
    for mode in range(len(found)):
        design = contracted(core, entries.rows(found), mode)
        moved, _ = entries.step(mode, found[mode], design, damping)
        found[mode], triangle = np.linalg.qr(moved)
        core = mode_products(core, [triangle if k == mode else None for k in range(len(found))])
    size = core.size
    gram, aims, rest = np.zeros((size, size)), np.zeros(size), np.zeros(len(entries.values))
    step = max(1, AT_ONCE // size)
    rows = entries.rows(found)
    parts = [slice(at, at + step) for at in range(0, len(rest), step)]
    for part in parts:
        design = row_products([each[part] for each in rows])
        rest[part] = entries.values[part] - design @ core.ravel()
        gram += design.T @ design
        aims += design.T @ rest[part]
    gram.flat[:: size + 1] += max(damping, np.finfo(float).eps) * (float(np.trace(gram)) / size or 1.0)
    move = np.linalg.solve(gram, aims)
    for part in parts:
        rest[part] -= row_products([each[part] for each in rows]) @ move
    return core + move.reshape(core.shape), found, float(np.square(rest).sum())


def known_rows(entries: Entries, factors: Sequence[Dense]) -> list[Dense]:
    """The factors, where the row of an index without any entry is the mean of the others."""
    filled = []
    for factor, pattern in zip(factors, entries.patterns, strict=True):
        seen = pattern.counts > 0
        filled.append(np.where(seen[:, None], factor, factor[seen].mean(axis=0)))
    return filled


def spread_start(entries: Entries) -> Dense:
    """The tensor with zero for what is not known, by the share that is: near the whole on average."""
    whole = np.zeros(entries.shape)
    whole[entries.index] = entries.values * (prod(entries.shape) / len(entries.values))
    return whole
