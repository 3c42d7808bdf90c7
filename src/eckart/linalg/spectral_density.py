"""The density of a spectrum that is too large to be computed, by stochastic Lanczos quadrature."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor


def spectral_density(weight: Tensor, *, steps: int = 64, probes: int = 8, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Nodes and weights that stand for the eigenvalues of W W^T, or of W^T W where that is smaller.

    For a random sign vector v, the measure v^T delta(x - A) v / v^T v has the density of A as its expectation; k steps
    of the Lanczos process give its Gauss quadrature: the eigenvalues of the tridiagonal T_k, weighted with squares of
    the first entries of its eigenvectors (Golub and Welsch 1969; Ubaru, Chen and Saad 2017). The relative error of the
    trace of f(A) falls with 1 / sqrt(n probes). Vectors are orthogonalised against all before them.

    Args:
        weight: W (out, in); products with it are in its own precision, at least float32, all else in float64.
        steps: k, at most the shorter side of W.
        probes: random vectors.
        seed: of these.

    Returns:
        nodes, ascending, and weights that sum to 1, each (probes * k,) in float64. The largest node is a lower bound of
        the largest eigenvalue, close to it after a few dozen steps.
    """
    w = weight.detach().to(torch.promote_types(weight.dtype, torch.float32))
    w = w if w.shape[0] <= w.shape[1] else w.T
    n = w.shape[0]
    steps = min(steps, n)
    # Powers of two change no digit, and with entries of about one no product leaves the range of float32.
    exponent = math.frexp(max(abs(float(end)) for end in w.aminmax()))[1]
    scale = math.ldexp(1.0, -max(-100, min(100, exponent)))
    generator = torch.Generator().manual_seed(seed)
    signs = torch.randint(0, 2, (n, probes), generator=generator).to(w.device)
    q = (2.0 * signs.double() - 1) / n**0.5

    def product(q: Tensor) -> Tensor:
        return (w @ (scale * (w.T @ (scale * q.to(w.dtype))))).double() / scale**2

    nodes, vectors, _ = lanczos(product, q, steps, torch.finfo(w.dtype).eps)
    nodes, order = nodes.clamp_min(0).flatten().sort()
    return nodes, (vectors[:, 0].square() / probes).flatten()[order]


def lanczos(
    product: Callable[[Tensor], Tensor], start: Tensor, steps: int, rounding: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The Lanczos process with a symmetric matrix A, from some vectors at once, orthogonalised in full.

    Args:
        product: (n, probes) -> A times it, float64.
        start: vectors of unit length, (n, probes), float64.
        steps: k, at most n.
        rounding: relative, of the products.

    Returns:
        eigenvalues of the tridiagonal T_k, (probes, k), ascending: the outer ones lie inside of the spectrum of A,
        close to its ends. Eigenvectors of T_k in columns, (probes, k, k): squares of their first entries, which sum to
        1, are the weights of a quadrature, zero where the process had ended. The basis (k, n, probes), in which they
        are vectors of A.
    """
    q, basis, probes = start, [start], start.shape[1]
    diagonal = torch.zeros(probes, steps, dtype=torch.float64, device=start.device)
    beside = torch.zeros(probes, steps, dtype=torch.float64, device=start.device)
    for k in range(steps):
        r = product(q)
        size = torch.linalg.vector_norm(r, dim=0)
        diagonal[:, k] = (q * r).sum(0)
        for _ in range(2):
            for earlier in basis:
                r = r - earlier * (earlier * r).sum(0)
        beta = torch.linalg.vector_norm(r, dim=0)
        # What is left of an invariant subspace is rounding: the process ends there, and further nodes weigh nothing.
        alive = beta > 1e3 * rounding * size.clamp_min(torch.finfo(torch.float64).tiny)
        beside[:, k] = torch.where(alive, beta, 0.0)
        q = torch.where(alive, r / torch.where(alive, beta, 1.0), 0.0)
        basis.append(q)
    tridiagonal = torch.diag_embed(diagonal)
    tridiagonal += torch.diag_embed(beside[:, :-1], 1) + torch.diag_embed(beside[:, :-1], -1)
    nodes, vectors = torch.linalg.eigh(tridiagonal)
    return nodes, vectors, torch.stack(basis[:steps])
