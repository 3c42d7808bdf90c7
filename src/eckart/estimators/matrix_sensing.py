"""A matrix of low rank from few linear measurements of it, by descent on its factors."""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np

from eckart.arrays import Array, Dense, Seed, back, dense, generator_of, power_of_two
from eckart.errors import Refused
from eckart.estimators.contract import estimator
from eckart.linalg.measurements import DenseMeasurements, Measurements, ScaledMeasurements
from eckart.linalg.solution import Solution
from eckart.linalg.thresholded_svd import ThinSVD, leading_svd, spectral_norm
from eckart.scikit.planted import Planted

Method = Literal["preconditioned", "rescaled", "gd"]
METHODS = ", ".join(get_args(Method))


def rescaled_factors(f: Dense, g: Dense, beta: float) -> tuple[Dense, Dense]:
    """beta U and G V S / beta of the singular value decomposition F = U S V^T: of the same product, and balanced F."""
    u, s, vt = np.linalg.svd(f, full_matrices=False)
    return beta * u, (g @ vt.T) * (s / beta)


def best_step(residual: Dense, linear: Dense, quadratic: Dense) -> float:
    """The t > 0 that minimises |residual - t linear + t^2 quadratic|^2, a root of a cubic; 0 where there is none."""
    slopes = [
        2 * quadratic @ quadratic,
        -3 * linear @ quadratic,
        linear @ linear + 2 * residual @ quadratic,
        -residual @ linear,
    ]
    roots = np.roots(slopes)
    steps = roots.real[(abs(roots.imag) <= 1e-9 * abs(roots)) & (roots.real > 0)]
    values = [float(np.linalg.norm(residual - t * linear + t**2 * quadratic)) for t in steps]
    return float(steps[int(np.argmin(values))]) if values else 0.0


def _planted(rng: np.random.Generator) -> Planted:
    truth = rng.standard_normal((9, 2)) @ rng.standard_normal((2, 8))
    a = rng.standard_normal((150, 9, 8))
    return Planted(
        {"measurements": a, "y": np.einsum("mij,ij->m", a, truth), "rank": 3},
        lambda found: np.linalg.norm(found.value.dense() - truth) / np.linalg.norm(truth),
        1e-5,
    )


@estimator(
    "matrix-sensing",
    paper="Xiong, Ding and Du 2023, arXiv 2310.01769; Zhang, Fattahi and Zhang 2021, arXiv 2111.09872",
    kind="solver",
    gives="the matrix by its singular values and vectors",
    takes="matrices, pairs of vectors or places of entries as measurements",
    planted=_planted,
    expression="Chain(Dense, Dense)",
)
def sense_matrix(
    measurements: Array | Measurements,
    y: Array,
    rank: int,
    *,
    method: Method = "preconditioned",
    symmetric: bool = False,
    step: float | None = None,
    start: float | None = None,
    beta: float = 0.7,
    basin: float = 0.1,
    tolerance: float = 1e-7,
    max_iter: int = 1000,
    generator: Seed = None,
) -> Solution[ThinSVD]:
    """The matrix M of a rank that is only bounded with <A_i, M> = y_i: min |A(F G^T) - y|^2 over its factors.

    With E = A*(A(F G^T) - y) the gradient at the product, a step of length t is

        F -= t E G,  G -= t E^T F                                        "gd", as the paper does;
        F -= t E G (G^T G + lam I)^-1,  G -= t E^T F (F^T F + lam I)^-1  "preconditioned",

    lam being |M|_2 |A(F G^T) - y| / |y|.

    More columns than the rank of M make "gd" slow: sublinear from symmetric factors (F = G), and with a rate that
    falls with the start's scale from others. "rescaled" mends the latter by one step, as the paper does: once
    |E|_2 <= `basin` |A*(y)|_2, `rescaled_factors` are taken. "preconditioned" needs neither, and is the default.

    Args:
        measurements: A_i (m, n1, n2); or `RankOneMeasurements`, `EntryMeasurements`, or anything with their methods.
        y: (m,).
        rank: k, columns of F and G; at least the rank of M.
        method: "preconditioned", "rescaled" or "gd".
        symmetric: whether M is positive semi-definite, F = G; not for "rescaled".
        step: t by 1 / |A*(y)|_2; for "preconditioned" by |M|^2 / |A(M)|^2 near the start. None for 1/4, or for the best
            t of each step where "preconditioned".
        start: scale of Gaussian factors to begin with, by the root of |M|_2, G at a third of F's; None for the
            singular vectors of A*(y), or for 1/2 where not "preconditioned".
        beta: of "rescaled", by the root of |M|_2.
        basin: of "rescaled".
        tolerance: of |A(F G^T) - y| / |y|; or of what ten steps take off it, where noise leaves a rest.
        max_iter: steps at most.
        generator: of the start.

    Returns:
        M, k singular triplets in the kind of y; `history` has |A(F G^T) - y| / |y|, `error` the last one's best.

    Raises:
        Refused: shapes do not go together, rank is none, or "rescaled" for symmetric factors.
    """
    a, scale_of_a = _scaled(measurements)
    b = dense(y, "y", ndim=1)
    m, n1, n2 = a.shape
    if len(b) != m or not 1 <= rank <= min(n1, n2) or (symmetric and n1 != n2):
        raise Refused(f"{m} measurements of {n1} x {n2}, y of {len(b)}, rank={rank}, symmetric={symmetric}")
    if method not in get_args(Method) or (symmetric and method == "rescaled"):
        raise Refused(f"method={method!r} of {METHODS}; symmetric={symmetric}, and rescaled takes two factors")
    if not basin > 0 or not beta > 0 or not (step is None or step > 0) or not (start is None or start > 0):
        raise Refused(f"basin={basin}, beta={beta}, step={step} and start={start} must be positive")
    rng, unit = generator_of(generator), power_of_two(b)
    b = b / unit
    size = float(np.linalg.norm(b))
    if size == 0:
        zero = ThinSVD(np.zeros((n1, rank)), np.zeros(rank), np.zeros((n2, rank)))
        return Solution(ThinSVD(*(back(each, y) for each in zero)), True, 0, (), "every measurement is zero")
    a, unit_of_a = _near_one(a, b)
    scale_of_a *= unit_of_a
    preconditioned = method == "preconditioned"
    correlated = a.adjoint(b)
    top = _start(correlated, rank, symmetric, rng)
    seen = a.of(top.left * top.values, top.right)
    if not np.linalg.norm(seen) > 0 or not np.isfinite(seen).all():
        raise Refused("A A*(y) is zero or beyond floating point: scale the measurements, or drop what measures nothing")
    gain = float(abs(seen @ b)) / float(seen @ seen)  # 1 / |A(M)|^2 for |M| = 1, near enough
    largest = gain * float(top.values[0])
    if start is None and preconditioned:
        # A column of zeros would stay one.
        roots = np.sqrt(gain * np.maximum(top.values, 1e-3 * top.values[0]))
        f, g = top.left * roots, top.right * roots
    else:
        scale = (0.5 if start is None else start) * np.sqrt(largest / max(n1, n2))
        f = scale * rng.standard_normal((n1, rank))
        g = f if symmetric else scale / 3 * rng.standard_normal((n2, rank))
    g = f if symmetric else g
    far, inside = float(top.values[0]), method != "rescaled"
    best, least, history = (f, g), np.inf, list[float]()
    moved, still, message = np.inf, False, ""
    residual = a.of(f, g) - b
    while True:
        history.append(float(np.linalg.norm(residual)) / size)
        if history[-1] < least:
            best, least = (f, g), history[-1]
        # Far from anything, near the saddle at zero, the residual stands still too, but not the factors.
        still = moved <= 1e-2 and len(history) > 10 and history[-11] - history[-1] <= tolerance * history[-1]
        if least <= tolerance or still or len(history) > max_iter or not np.isfinite(history[-1]):
            break
        e = a.adjoint(residual)
        if not inside and spectral_norm(e, rng) <= basin * far:
            f, g = rescaled_factors(f, g, beta * np.sqrt(largest))
            inside, message = True, f", rescaled at step {len(history)}"
        df, dg = e @ g, e.T @ f
        if symmetric:
            df = dg = (df + dg) / 2
        if preconditioned:
            damping = largest * history[-1] * np.eye(rank)
            df, dg = np.linalg.solve(g.T @ g + damping, df.T).T, np.linalg.solve(f.T @ f + damping, dg.T).T
        exact = preconditioned and step is None
        if exact:
            linear, quadratic = a.of(np.hstack([df, f]), np.hstack([g, dg])), a.of(df, dg)
            t = best_step(residual, linear, quadratic)
        else:
            t = (0.25 if step is None else step) * (gain if preconditioned else gain / largest)
        moved = t * np.hypot(np.linalg.norm(df), np.linalg.norm(dg)) / np.hypot(np.linalg.norm(f), np.linalg.norm(g))
        f, g = f - t * df, g - t * dg
        residual = residual - t * linear + t**2 * quadratic if exact else a.of(f, g) - b
    message = f"|A(M) - y| is {least:.1e} of |y| after {len(history) - 1} steps" + message
    if not inside:
        message += f"; never near enough to be rescaled (basin={basin})"
    found = _thin(*best)
    value = ThinSVD(found.left, found.values * (unit / scale_of_a), found.right)
    done = least <= tolerance or bool(still)
    return Solution(
        ThinSVD(*(back(each, y) for each in value)), done, len(history) - 1, tuple(history), message, error=least
    )


def _scaled(measurements: Array | Measurements) -> tuple[Any, float]:
    """Measurements, and the power of two that those given as an array were divided by."""
    if isinstance(measurements, Measurements):
        return measurements, 1.0
    table = dense(measurements, "the measurements", ndim=3)
    unit = power_of_two(table)
    return DenseMeasurements(table / unit), unit


def _near_one(a: Measurements, b: Dense) -> tuple[Measurements, float]:
    """A by a power of two, so that A*(y) is of the size of y, and that power."""
    with np.errstate(over="ignore", invalid="ignore"):
        seen = np.asarray(a.adjoint(b) @ np.cos(np.arange(a.shape[2])))
    if not np.isfinite(seen).all():
        raise Refused("A*(y) is beyond floating point: scale the measurements")
    unit = power_of_two(seen)
    return ScaledMeasurements(a, unit), unit


def _start(correlated: Any, rank: int, symmetric: bool, rng: np.random.Generator) -> ThinSVD:
    """The largest singular triplets of A*(y); or eigenvalues of its symmetric part, those below zero as zero."""
    top = leading_svd(correlated, rank, rng)
    if not symmetric:
        return top
    basis = np.linalg.qr(top.left)[0]
    inner = basis.T @ (correlated @ basis)
    values, vectors = np.linalg.eigh((inner + inner.T) / 2)
    vectors = basis @ vectors[:, ::-1]
    return ThinSVD(vectors, np.maximum(values[::-1], 0.0), vectors)


def _thin(f: Dense, g: Dense) -> ThinSVD:
    """The singular value decomposition of F G^T."""
    qf, rf = np.linalg.qr(f)
    qg, rg = np.linalg.qr(g)
    u, s, vt = np.linalg.svd(rf @ rg.T)
    return ThinSVD(qf @ u, s, qg @ vt.T)
