"""The inverse of a damped empirical Fisher matrix, by the gradients that it is made from and never formed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from eckart.errors import Refused
from eckart.machine import wide

COLUMNS = 1 << 16
"""Columns of the gradients that are in float64 at once."""


class InverseFisher:
    """F^-1 for F = damping I + (1/m) sum g_i g_i^T, of m gradients of length d: O(m d) a product, and m d numbers.

    By Woodbury F^-1 = (I - G^T (m damping I + G G^T)^-1 G) / damping. The m x m matrix is held and factored in float64
    in the memory of the CPU; the products with G are in float64 where their device has it, since what is left of x in
    the brackets may be small. (Frantar et al. 2021, arXiv 2107.03356; its recursion gives the same at twice the cost.)

    Args:
        gradients: G (m, d), float; kept, and `replace` writes into it.
        damping: above 0.

    Raises:
        Refused: gradients that are not finite or no matrix, or a damping that is not positive and finite.
    """

    def __init__(self, gradients: Tensor, damping: float) -> None:
        if gradients.ndim != 2 or not gradients.numel():
            raise Refused(f"gradients of shape {tuple(gradients.shape)} are no (m, d) with m and d at least 1")
        if not 0 < damping < float("inf"):
            raise Refused(f"damping={damping} must be above 0 and finite")
        self.gradients, self.damping = gradients, float(damping)
        self._gram = gram = self._inner(gradients)
        if not torch.isfinite(gram).all():
            raise Refused("gradients have NaN or Inf entries, or squares beyond float64")
        self._factor()

    def multiply(self, x: Tensor) -> Tensor:
        """F^-1 x, (d,) or (d, columns), in the dtype and on the device of x."""
        columns = x.view(len(x), -1)
        pairs = list(zip(_pieces(self.gradients, 1), _pieces(columns, 0), strict=True))
        inside = torch.zeros(len(self.gradients), columns.shape[1], dtype=torch.float64, device="cpu")
        for g, part in pairs:
            inside += (wide(g) @ wide(part)).cpu().double()
        solved = torch.cholesky_solve(inside, self._lower)
        found = []
        for g, part in pairs:
            exact = wide(g)
            found.append((wide(part) - exact.T @ solved.to(exact.dtype).to(exact.device)) / self.damping)
        return torch.cat(found).to(x.dtype).view(x.shape)

    def diagonal(self) -> Tensor:
        """The diagonal of F^-1 (d,), float64, in the memory of the CPU."""
        squares = [self._whitened(part).square().sum(0) for part in _pieces(self.gradients, 1)]
        return (1 - torch.cat(squares)) / self.damping

    def element(self, i: int, j: int) -> float:
        """One entry of F^-1."""
        v = self._whitened(self.gradients[:, [i, j]])
        return (float(i == j) - float(v[:, 0] @ v[:, 1])) / self.damping

    def block(self, index: Tensor) -> Tensor:
        """The rows and columns of F^-1 at some places: (k, k), float64, in the memory of the CPU."""
        v = self._whitened(self.gradients[:, index.to(self.gradients.device)])
        return (torch.eye(len(index), dtype=torch.float64) - v.T @ v) / self.damping

    def without(self, weights: Tensor, index: Tensor) -> Tensor:
        """The weights that cost least, by F, once some of them are zero: w - F^-1 E (E^T F^-1 E)^-1 w_index.

        It is optimal brain surgery of a block, E the columns of the identity at `index`.

        Args:
            weights: w (d,).
            index: places that become zero, each once.

        Returns:
            (d,), in the dtype of the weights, with zeros at `index`.
        """
        if not len(index):
            return weights.clone()
        lower = torch.linalg.cholesky(self.block(index))
        solved = torch.cholesky_solve(weights[index].cpu().double()[:, None], lower)[:, 0]
        picked = torch.zeros_like(weights).index_put((index,), solved.to(weights.dtype).to(weights.device))
        found = weights - self.multiply(picked)
        found[index] = 0
        return found

    def replace(self, k: int, gradient: Tensor) -> None:
        """Puts another gradient (d,) in the place of the k-th: O(m d) and one factorisation of m x m."""
        if not torch.isfinite(gradient).all():
            raise Refused("the gradient has NaN or Inf entries")
        self.gradients[k] = gradient
        row = self._inner(self.gradients[k : k + 1])[0]
        self._gram[k], self._gram[:, k] = row, row
        self._factor()

    def _factor(self) -> None:
        m = len(self._gram)
        self._lower: Tensor = torch.linalg.cholesky(
            self._gram + m * self.damping * torch.eye(m, dtype=torch.float64, device="cpu")
        )

    def _inner(self, rows: Tensor) -> Tensor:
        """Products of some rows with all gradients, (rows, m), float64."""
        found = torch.zeros(len(rows), len(self.gradients), dtype=torch.float64, device="cpu")
        for a, b in zip(_pieces(rows, 1), _pieces(self.gradients, 1), strict=True):
            found += (wide(a) @ wide(b).T).cpu().double()
        return found

    def _whitened(self, columns: Tensor) -> Tensor:
        """L^-1 G of some columns of G, L L^T = m damping I + G G^T; float64, on the CPU."""
        found: Tensor = torch.linalg.solve_triangular(self._lower, columns.cpu().double(), upper=False)
        return found


def _pieces(x: Tensor, dim: int) -> Sequence[Tensor]:
    pieces: Sequence[Tensor] = torch.split(x, COLUMNS, dim)
    return pieces
