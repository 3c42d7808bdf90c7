"""Attention whose exponential is a polynomial, so that it and its gradients take time linear in the length.

T_g(s) = sum over j <= g of s^j / j! stands for exp(s). Of a product s = q.k it is itself a product phi(q).phi(k), with
phi(x) all monomials x^a / sqrt(a!) of degree g at most, so that sum_j T_g(q_i.k_j) v_j = phi(q_i) (sum_j phi(k_j) v_j).
"""

from __future__ import annotations

import math
from functools import cache
from itertools import combinations_with_replacement
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from eckart.errors import Refused
from eckart.machine import wide

CHUNK = 128
"""Tokens whose features are in memory at once; a causal product evaluates the polynomial itself inside a chunk."""
MOST = 1 << 16
"""Features that a token may have."""


def taylor(s: Tensor, degree: int) -> Tensor:
    """T_g(s), by Horner's rule."""
    found = torch.ones_like(s)
    for j in range(degree, 0, -1):
        found = found * s / j + 1
    return found


def worst(bound: float, degree: int) -> float:
    """How far attention with T_g for exp may be from exact, where no |score| is above `bound`; infinite where it fails.

    e(s) = T_g(s) / exp(s) - 1 has the slope -s^g exp(-s) / g!, so that its ends are at -bound and bound: they are
    (-1)^g times the integral of t^g exp(t) / g! over 0..bound, and minus that of t^g exp(-t) / g!. With -a and b the
    smallest and the largest of both, probabilities p become p (1 + d), d <= (1 + b) / (1 - a) - 1. By that they differ
    in total variation at most, and outputs by that times the largest |v|.
    """
    if bound == 0:
        return 0.0
    logarithm = (degree + 1) * math.log(bound) - math.lgamma(degree + 1) if bound < 700 else math.inf
    if not logarithm + bound < 700:
        return math.inf
    # Both as series of positive terms, which do not cancel.
    ends, start = [0.0, 0.0], math.exp(logarithm)
    term, last, j = 1.0, start * math.exp(-bound) / (degree + 1), 0
    while term > 0 and (j < bound or term > 1e-18):
        ends[0] += start * term / (degree + 1 + j)
        ends[1] += last
        j += 1
        term, last = term * bound / j, last * bound / (degree + 1 + j)
    low, high = (ends[1], ends[0]) if degree % 2 == 0 else (ends[0], 0.0)
    return (1 + high) / (1 - low) - 1 if low < 1 else math.inf


@cache
def allowed(tolerance: float, degree: int) -> float:
    """The largest bound of the scores up to which `worst` is at most `tolerance`."""
    low, high = 0.0, 700.0
    if worst(high, degree) <= tolerance:
        return math.inf
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if worst(middle, degree) <= tolerance else (low, middle)
    return low


def count(size: int, degree: int) -> int:
    """Features of a vector of that size."""
    return math.comb(size + degree, degree)


@cache
def _weights(size: int, degree: int) -> Tensor:
    """1 / sqrt(a!) of each monomial x^a, those of degree 0 first and in the order of `features`."""
    found = [
        math.prod(math.factorial(monomial.count(i)) for i in set(monomial)) ** -0.5
        for j in range(degree + 1)
        for monomial in combinations_with_replacement(range(size), j)
    ]
    return torch.tensor(found, dtype=torch.float64)


def features(x: Tensor, degree: int) -> Tensor:
    """phi(x): (..., d) -> (..., C(d + g, g))."""
    size = x.shape[-1]
    levels = [torch.ones_like(x[..., :1])]
    starts = [0] * size  # where the monomials of the last level begin whose first variable is i or a later one
    for j in range(1, degree + 1):
        parts = [x[..., i : i + 1] * levels[-1][..., starts[i] :] for i in range(size)]
        levels.append(torch.cat(parts, -1))
        starts = [math.comb(size + j - 1, j) - math.comb(size - i + j - 1, j) for i in range(size)]
    return torch.cat(levels, -1) * _weights(size, degree).to(x)


class _Sums(torch.autograd.Function):
    """(q, k, v, degree, causal) -> sum_j T_g(q_i.k_j) v_j, over j <= i where it is causal."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, degree: int, causal: bool) -> Tensor:
        ctx.save_for_backward(q, k, v)
        ctx.degree, ctx.causal = degree, causal
        state = q.new_zeros(len(q), count(q.shape[2], degree), v.shape[2])
        if not causal:
            for at in _chunks(k):
                state.baddbmm_(features(k[:, at], degree).mT, v[:, at])
            return torch.cat([features(q[:, at], degree) @ state for at in _chunks(q)], 1)
        found = []
        for at in _chunks(q):
            inside = taylor(q[:, at] @ k[:, at].mT, degree).tril_()
            found.append(torch.baddbmm(inside @ v[:, at], features(q[:, at], degree), state))
            state.baddbmm_(features(k[:, at], degree).mT, v[:, at])
        return torch.cat(found, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        q, k, v = ctx.saved_tensors
        degree, causal = ctx.degree, ctx.causal
        dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        state = q.new_zeros(len(q), count(q.shape[2], degree), v.shape[2])
        if not causal:
            for at in _chunks(k):
                state.baddbmm_(features(k[:, at], degree).mT, v[:, at])
        for at in _chunks(q):
            # s enters through T_g alone, whose slope is T_(g-1).
            dq[:, at] = _pulled(q[:, at], g[:, at] @ state.mT, degree)
            if causal:
                slopes = taylor(q[:, at] @ k[:, at].mT, degree - 1) * (g[:, at] @ v[:, at].mT)
                dq[:, at] += slopes.tril_() @ k[:, at]
                state.baddbmm_(features(k[:, at], degree).mT, v[:, at])
        state.zero_()
        if not causal:
            for at in _chunks(q):
                state.baddbmm_(features(q[:, at], degree).mT, g[:, at])
        for at in reversed(_chunks(k)):
            dv[:, at] = features(k[:, at], degree) @ state
            dk[:, at] = _pulled(k[:, at], v[:, at] @ state.mT, degree)
            if causal:
                scores = q[:, at] @ k[:, at].mT
                slopes = taylor(scores, degree - 1) * (g[:, at] @ v[:, at].mT)
                dv[:, at] += taylor(scores, degree).tril_().mT @ g[:, at]
                dk[:, at] += slopes.tril_().mT @ q[:, at]
                state.baddbmm_(features(q[:, at], degree).mT, g[:, at])
        return dq, dk, dv, None, None


def _chunks(x: Tensor) -> list[slice]:
    return [slice(start, start + CHUNK) for start in range(0, x.shape[1], CHUNK)]


def _pulled(x: Tensor, g: Tensor, degree: int) -> Tensor:
    """The gradient of x where that of phi(x) is g."""
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        (found,) = torch.autograd.grad(features(leaf, degree), leaf, g)
    return found


def bound_of(query: Tensor, keys: Tensor, scale: float) -> float:
    """No |scale q.k| is above it: the largest product of norms, over sequences and heads."""
    largest = [wide(x.detach()).norm(dim=-1).amax(-1) for x in (query, keys)]
    return abs(scale) * float((largest[0] * largest[1]).max())


def polynomial_attention(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    scale: float,
    causal: bool = False,
    degree: int = 2,
    tolerance: float = 0.1,
    seen: Tensor | None = None,
    whose: str = "polynomial_attention",
) -> Tensor:
    """softmax(scale Q K^T) V with T_g for the exponential, forward and backward in time linear in the length.

    A token takes C(d + g, g) features, 2145 for d = 64 and g = 2. Without `causal` the mean of the keys is taken out of
    them, which falls out of the softmax and lowers the bound; with it that would look ahead.

    Args:
        query: (sequences, heads, positions, d), floating point; 16 bits are computed in float32.
        keys: (sequences, heads, tokens, d).
        values: (sequences, heads, tokens, e).
        scale: of the scores.
        causal: whether position i sees the tokens up to i only; there are as many positions as tokens then.
        degree: g, at least 1.
        tolerance: how far outputs may be off, as a part of the largest |v|, by `worst`; infinite for any.
        seen: (sequences, tokens), bool: the tokens that are seen; None for all.
        whose: what a message calls it.

    Returns:
        (sequences, heads, positions, e).

    Raises:
        Refused: norms of queries and keys by which `tolerance` may be exceeded, or too many features.
    """
    if isinstance(degree, bool) or not isinstance(degree, int) or degree < 1:
        raise Refused(f"{whose}: degree must be an integer of at least 1, got {degree!r}")
    if (number := count(query.shape[-1], degree)) > MOST:
        raise Refused(f"{whose}: degree={degree} gives a token {number:,} features, above {MOST:,}: take a lower one")
    if causal and query.shape[2] != keys.shape[2]:
        raise Refused(f"{whose}: {query.shape[2]} positions cannot see {keys.shape[2]} tokens causally: pass as many")
    wide = torch.promote_types(query.dtype, torch.float32)
    q, k, v = (x.to(wide) for x in (query, keys, values))
    shown = torch.ones_like(k[..., :1]) if seen is None else seen[:, None, :, None].to(wide).expand_as(k[..., :1])
    k = k * shown
    if not causal:
        k = (k - k.sum(2, keepdim=True) / shown.sum(2, keepdim=True).clamp_min(1)) * shown
    if not math.isfinite(bound := bound_of(q, k, scale)):
        raise Refused(f"{whose}: queries or keys are not finite")
    if bound > (most := allowed(tolerance, degree)):
        raise Refused(
            f"{whose}: scores may be as large as {bound:.3g} (the largest |q| times the largest |k|), and a polynomial "
            f"of degree {degree} is within tolerance={tolerance} up to {most:.3g} only: attend exactly, or raise the "
            "degree or the tolerance"
        )
    summed = _Sums.apply(  # type: ignore[no-untyped-call]
        (q * scale).flatten(0, 1), k.flatten(0, 1), (torch.cat([v, shown], -1) * shown).flatten(0, 1), degree, causal
    )
    total = summed[..., -1:]
    found: Tensor = summed[..., :-1] / total.where(total != 0, 1)  # a position that sees no token gets zeros
    return found.view(*query.shape[:2], *found.shape[1:]).to(query.dtype)
