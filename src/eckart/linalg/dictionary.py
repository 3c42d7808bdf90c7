"""Signals as sums of a few atoms of a dictionary that is learned with them."""

from __future__ import annotations

import torch
from torch import Tensor

ROUNDS = 16
REFINEMENTS = 3
RIDGE = 1e-3


def sparse_codes(y: Tensor, k: int, s: int) -> Tensor:
    """Codes X (n, k), s entries a row, of a dictionary T (k, m) with small `||Y - X T||_F`.

    Starts from the first k principal directions. Each round fits codes without a restriction, `X = Y T^T (T T^T)^-1`,
    keeps the s largest of each row and improves them by conjugate gradients; then T is the least-squares dictionary of
    these codes, with unit rows, and moves on as far again as it came.

    Args:
        y: Y (n, m), signals in rows.
        k: atoms; where they are more than m, the others start as signals.
        s: entries a row.
    """
    n, m = y.shape
    start = torch.eye(min(k, m), m).to(y)
    more = y[torch.linspace(0, n - 1, k - len(start)).long()] if k > m else y[:0]
    atoms = torch.cat([start, _unit(more)])
    best, least = y.new_zeros(n, k), float("inf")
    for _ in range(ROUNDS):
        gram, products = atoms @ atoms.T, y @ atoms.T
        damped = gram + RIDGE * torch.eye(k).to(y)
        codes = torch.cholesky_solve(products.T, torch.linalg.cholesky(damped)).T
        kept = largest(codes, s)
        codes = conjugate_gradients(gram, products, codes * kept, kept)
        fitted = least_squares_atoms(codes, y)
        error = float((y - codes @ fitted).square().sum())
        if error < least:
            best, least = codes, error
        fitted = _unit(fitted)
        atoms = _unit(2 * fitted - atoms)
    return best


def largest(codes: Tensor, s: int) -> Tensor:
    """Where the s entries of largest magnitude of each row are: codes (n, k) -> (n, k), bool."""
    return torch.zeros_like(codes, dtype=torch.bool).scatter_(1, codes.abs().topk(s, 1, sorted=False).indices, True)


def conjugate_gradients(gram: Tensor, products: Tensor, codes: Tensor, kept: Tensor) -> Tensor:
    """A few steps towards the least-squares codes with entries where `kept` is true, for all rows at once.

    Args:
        gram: T T^T (k, k).
        products: Y T^T (n, k).
        codes: where to start, (n, k).
        kept: (n, k), bool.
    """
    residual = (products - codes @ gram) * kept
    direction, squares = residual, residual.square().sum(1, keepdim=True)
    for _ in range(REFINEMENTS):
        image = direction @ gram
        curvature = (direction * image).sum(1, keepdim=True)
        step = torch.where(curvature > 0, squares / curvature, 0.0)
        codes = codes + step * direction
        residual = residual - step * image * kept
        before, squares = squares, residual.square().sum(1, keepdim=True)
        direction = residual + torch.where(before > 0, squares / before, 0.0) * direction
    return codes


def least_squares_atoms(codes: Tensor, y: Tensor) -> Tensor:
    """T (k, m) of least `||Y - X T||_F`: X^T X T = X^T Y, codes X (n, k), Y (n, m); an atom that is not used is zero.

    With W in the place of Y it is the best dictionary in the metric of any inputs.
    """
    x = codes.to(y.dtype)
    gram = x.T @ x
    gram.diagonal().add_(1e3 * torch.finfo(y.dtype).eps * gram.diagonal().mean() + torch.finfo(y.dtype).tiny)
    atoms: Tensor = torch.cholesky_solve(x.T @ y, torch.linalg.cholesky(gram))
    return atoms


def _unit(rows: Tensor) -> Tensor:
    norms = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return rows / torch.where(norms > 0, norms, 1.0)
