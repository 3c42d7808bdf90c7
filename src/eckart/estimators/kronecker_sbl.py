"""Sparse Bayesian learning where the dictionary and the variances are Kronecker products."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np

from eckart.arrays import Array, Dense, back, dense, power_of_two
from eckart.errors import Refused
from eckart.estimators.contract import estimator
from eckart.linalg.mode_products import mode_products, outer, unfold
from eckart.linalg.solution import Solution
from eckart.scikit.planted import Planted

MStep = Literal["svd", "am"]
LEAST = 1e-15
"""Of the largest variance of a mode, below which one is zero to double precision."""
QUIET = 1e-14
"""Of the mean power of y, the least variance of the noise: what rounding leaves."""


class KroneckerPosterior(NamedTuple):
    """x ~ N(mean, .), of variances g_1 x g_2 x ... before y was seen.

    mean and variance (n_1, ..., n_K), scales g_k (n_k,) each, noise the variance that y was given around H x.
    """

    mean: Array
    variance: Array
    scales: tuple[Array, ...]
    noise: float


class _Expectation(NamedTuple):
    mean: Dense
    shrink: Dense
    whitened: Dense
    noise: float


def posterior(factors: Sequence[Dense], y: Dense, scales: Sequence[Dense], noise: float) -> _Expectation:
    """The E step, by mode products alone.

    With A_k diag(sqrt g_k) = U_k S_k V_k^H, s = S_1 x S_2 x ..., V the Kronecker product of the V_k, and G that of g_k,

        w = V s / (s^2 + noise) U^H y,   mean = sqrt(G) w,   d = |V|^2 noise / (s^2 + noise),   variances = G d.

    Args:
        factors: A_k (m_k, n_k).
        y: (m_1, ..., m_K).
        scales: g_k (n_k,).
        noise: the variance of the noise.

    Returns:
        The mean, d, w and what the noise's variance becomes, E |y - H x|^2 / m.
    """
    roots = [np.sqrt(g) for g in scales]
    us, ss, vs = [], [], []
    for a, root in zip(factors, roots, strict=True):
        u, s, vh = np.linalg.svd(a * root)
        us.append(u.conj().T)
        ss.append(s)
        vs.append(vh.conj().T)
    seen = mode_products(y, us)
    of_y = np.square(outer([_padded(s, len(a)) for s, a in zip(ss, factors, strict=True)]))
    of_x = np.square(outer([_padded(s, a.shape[1]) for s, a in zip(ss, factors, strict=True)]))
    held = tuple(slice(len(s)) for s in ss)
    inner = outer(ss)
    w = mode_products(
        inner / (np.square(inner) + noise) * seen[held], [v[:, : len(s)] for v, s in zip(vs, ss, strict=True)]
    )
    d = mode_products(noise / (of_x + noise), [np.square(np.abs(v)) for v in vs])
    left = np.square(np.abs(seen * (noise / (of_y + noise)))).sum() + (noise * of_y / (of_y + noise)).sum()
    return _Expectation(outer(roots) * w, d, w, float(left) / y.size)


def rank_one(energy: Dense) -> list[Dense]:
    """g_1 x g_2 x ... near a tensor that is not negative: its leading singular vectors, mode after mode ("svd")."""
    found, rest = list[Dense](), energy
    for _ in range(energy.ndim - 1):
        flat = unfold(rest, 0)
        leading = np.abs(np.linalg.eigh(flat @ flat.T)[1][:, -1])
        found.append(leading)
        rest = (leading @ flat).reshape(rest.shape[1:])
    return [*found, rest]


def alternating(ratio: Dense, scales: Sequence[Dense], *, rounds: int = 50, tolerance: float = 1e-5) -> list[Dense]:
    """argmin over g of sum log(G) + E/G, G = g_1 x g_2 x ..., going round the modes ("am").

    Args:
        ratio: E/G at the present scales, which are where 0/0 would stand otherwise.
        scales: g_k to begin with, which stay zero where they are.
    """
    moves = [np.ones(len(g)) for g in scales]  # new by old
    for _ in range(rounds):
        before = [m.copy() for m in moves]
        for k in range(len(moves)):
            weights = [(g > 0) / m for g, m in zip(scales, moves, strict=True)]
            weights[k] = np.ones(len(moves[k]))
            others = np.prod([(g > 0).sum() for j, g in enumerate(scales) if j != k])
            rows = [None if j == k else w[None] for j, w in enumerate(weights)]
            moves[k] = np.maximum(mode_products(ratio, rows).ravel() / others, LEAST)
        if max(np.abs(m / b - 1).max() for m, b in zip(moves, before, strict=True)) < tolerance:
            break
    return [g * m for g, m in zip(scales, moves, strict=True)]


def _padded(s: Dense, size: int) -> Dense:
    return np.pad(s, (0, size - len(s)))


def _normalised(scales: Sequence[Dense], prune: float) -> list[Dense]:
    """The same product with a largest entry of 1 in all modes but the last, and what is negligible at zero."""
    kept, total = [], 1.0
    for g in scales:
        largest = float(g.max())
        total *= largest
        kept.append(np.where(g < max(prune, LEAST) * largest, 0.0, g / (largest if largest > 0 else 1.0)))
    kept[-1] = kept[-1] * total
    return kept


def _planted(rng: np.random.Generator) -> Planted:
    factors = [rng.standard_normal((6, 8)), rng.standard_normal((7, 9))]
    x = np.zeros((8, 9))
    x[np.ix_(rng.choice(8, 2, replace=False), rng.choice(9, 2, replace=False))] = rng.standard_normal((2, 2))
    return Planted(
        {"factors": factors, "y": mode_products(x, factors) + 1e-3 * rng.standard_normal((6, 7))},
        lambda found: np.linalg.norm(found.value.mean - x) / np.linalg.norm(x),
        5e-3,
    )


@estimator(
    "kronecker-sbl",
    paper="He and Joseph 2023, arXiv 2307.14719",
    kind="solver",
    gives="the sparse tensor, its variances and the noise's",
    takes="complex data",
    planted=_planted,
    expression="Kronecker",
)
def kronecker_bayes(
    factors: Sequence[Array],
    y: Array,
    *,
    m_step: MStep = "svd",
    noise: float | None = None,
    prune: float = 0.0,
    tolerance: float = 1e-4,
    max_iter: int = 150,
) -> Solution[KroneckerPosterior]:
    """A sparse x from y = (A_1 kron A_2 kron ...) x + noise, whose variances are g_1 kron g_2 kron ... before.

    Expectation maximization: the E step is `posterior`, of m n^(1/K) work instead of m n^2; the M step either minimises
    the expected cost mode by mode (`alternating`, "am", which never goes up) or takes the best product of vectors near
    E |x|^2 (`rank_one`, "svd", which needs fewer steps and was nearer the truth in the paper and here).

    Args:
        factors: A_k (m_k, n_k), one for each mode, real or complex.
        y: (m_1, ..., m_K), or that as a vector, the last mode fastest.
        m_step: "svd" or "am".
        noise: the variance of the noise, of both parts together where complex; None to estimate it too.
        prune: scales below this share of the largest of their mode are taken for zero.
        tolerance: of the change of the scales in a step.
        max_iter: steps at most.

    Returns:
        The posterior in the kind of y; `history` has the changes that `tolerance` is about.

    Raises:
        Refused: shapes do not go together, or a factor is zero.
    """
    if m_step not in get_args(MStep) or not factors:
        raise Refused(
            f"m_step={m_step!r} of {', '.join(get_args(MStep))}, and {len(factors)} factors: one or more needed"
        )
    if (noise is not None and not noise > 0) or not 0 <= prune < 1:
        raise Refused(f"noise={noise} must be positive, or None to estimate it; and prune={prune} in [0, 1)")
    held, unit = [dense(a, f"factor {k}", complex_too=True) for k, a in enumerate(factors)], 1.0
    for k, a in enumerate(held):
        size = power_of_two(a)
        if not a.any():
            raise Refused(f"factor {k} of {a.shape} is zero")
        held[k], unit = a / size, unit * size
    seen, shape = dense(y, "y", ndim=None, complex_too=True), tuple(len(a) for a in held)
    if seen.shape not in (shape, (int(np.prod(shape)),)):
        raise Refused(
            f"y of {seen.shape} for factors of {[a.shape for a in held]}: {shape} or a vector of that is needed"
        )
    size = power_of_two(seen)
    seen = seen.reshape(shape) / size
    if not 0 < unit < np.inf:
        raise Refused(f"the factors' product is of the order of {unit}: scale them")
    power = float(np.square(np.abs(seen)).mean()) or 1.0
    fixed = noise is not None
    level = noise / size**2 if noise is not None else 0.1 * power
    scales = [np.ones(a.shape[1]) for a in held]
    scales[-1] *= power * seen.size / float(np.prod([np.square(np.abs(a)).sum() for a in held]))
    now, history = posterior(held, seen, scales, level), list[float]()
    while len(history) < max_iter and seen.any():
        old, ratio = scales, now.shrink + np.square(np.abs(now.whitened))
        scales = rank_one(outer(old) * ratio) if m_step == "svd" else alternating(ratio, old)
        scales = _normalised(scales, prune)
        level = level if fixed else max(now.noise, QUIET * power)
        now = posterior(held, seen, scales, level)
        history.append(max(float(np.linalg.norm(g - o) / np.linalg.norm(g)) for g, o in zip(scales, old, strict=True)))
        if history[-1] <= tolerance:
            break
    done = not seen.any() or history[-1] <= tolerance
    message = f"the scales changed by {history[-1]:.1e} in step {len(history)}" if history else "y is zero"
    scales[-1] = scales[-1] * size / unit * size / unit
    value = KroneckerPosterior(
        back(now.mean * (size / unit), y),
        back(outer(scales) * now.shrink, y),
        tuple(back(g, y) for g in scales),
        level * size**2,
    )
    return Solution(value, bool(done), len(history), tuple(history), message)
