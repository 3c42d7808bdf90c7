"""Sums of complex exponentials in several dimensions, sum_p c_p a(w_p1) x a(w_p2) x ..., by products along modes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from eckart.arrays import Dense


def exponentials(frequencies: Dense, size: int) -> Dense:
    """exp(i w j) (size, P)."""
    found: Dense = np.exp(1j * np.arange(size)[:, None] * frequencies)
    return found


def correlations(tensor: Dense, waves: Sequence[Dense]) -> Dense:
    """conj(a_1 x a_2 x ...) . tensor for term after term (P,), of waves (n_m, P)."""
    found = np.tensordot(waves[0].conj().T, tensor, (1, 0))
    for a in waves[1:]:
        found = np.einsum("pn...,np->p...", found, a.conj())
    return found


def fit_exponentials(tensor: Dense, frequencies: Dense, *, steps: int = 30) -> tuple[Dense, Dense, Dense, float]:
    """Least squares over all frequencies and amplitudes at once, by Gauss-Newton steps that are halved where too long.

    The normal equations are products of small Gram matrices of the waves and their derivatives, mode by mode.

    Args:
        tensor: (n_1, ..., n_M), complex.
        frequencies: (P, M), to begin with; distinct.
        steps: at most; 0 fits the amplitudes alone.

    Returns:
        Frequencies (P, M), amplitudes (P,), standard errors of the frequencies (P, M), and what is left, |rest|^2.
    """
    n, (count, modes) = tensor.size, frequencies.shape
    total = float(np.square(np.abs(tensor)).sum())
    centres = [(size - 1) / 2 for size in tensor.shape]

    def at(w: Dense) -> tuple[Dense, float, Dense, Dense]:
        waves = [exponentials(w[:, m], size) for m, size in enumerate(tensor.shape)]
        slopes = [
            1j * (np.arange(size) - c)[:, None] * a for size, c, a in zip(tensor.shape, centres, waves, strict=True)
        ]
        sides = [waves] + [[slopes[m] if k == m else waves[k] for k in range(modes)] for m in range(modes)]
        seen = np.stack([correlations(tensor, side) for side in sides])  # (1 + M, P)
        grams = np.stack(
            [
                np.stack(
                    [np.prod([a.conj().T @ b for a, b in zip(one, other, strict=True)], axis=0) for other in sides]
                )
                for one in sides
            ]
        )  # (1 + M, 1 + M, P, P)
        c = np.linalg.lstsq(grams[0, 0], seen[0], rcond=1e-12)[0]
        rest = max(total - float((c.conj() @ seen[0]).real), 0.0)
        # Columns of the Jacobian: the waves times 1 and i, and c_p times the slopes, for real unknowns.
        factor = np.concatenate([np.ones(count), 1j * np.ones(count), np.tile(c, modes)])
        which = np.concatenate([np.zeros(2 * count, int), np.repeat(np.arange(modes) + 1, count)])
        term = np.tile(np.arange(count), 2 + modes)
        big = grams[which[:, None], which, term[:, None], term]
        hessian = (factor.conj()[:, None] * big * factor).real
        moment = seen[which, term] - grams[which, 0, term] @ c
        return c, rest, hessian, (factor.conj() * moment).real

    w = frequencies
    c, rest, hessian, gradient = at(w)
    for _ in range(steps):
        move = np.linalg.lstsq(hessian, gradient, rcond=1e-13)[0][2 * count :].reshape(modes, count).T
        length = 1.0
        while length > 1e-3:
            trial = at(w + length * move)
            if trial[1] < rest:
                break
            length /= 2
        else:
            break
        gained, w = rest - trial[1], w + length * move
        c, rest, hessian, gradient = trial
        if gained <= 1e-10 * rest or rest <= 1e-24 * total:
            break
    noise = rest / max(2 * n - hessian.shape[0], 1)  # of the real and of the imaginary part
    deviations = np.sqrt(noise * np.diag(np.linalg.pinv(hessian, rcond=1e-13, hermitian=True)).clip(0))
    return w, c, deviations[2 * count :].reshape(modes, count).T, rest


def strongest_left(tensor: Dense, frequencies: Dense, amplitudes: Dense) -> tuple[Dense, float]:
    """Where the rest's periodogram is largest, (M,) in radians, and by how much above its mean."""
    waves = [exponentials(frequencies[:, m], size) for m, size in enumerate(tensor.shape)]
    letters = "abcdefgh"[: tensor.ndim]
    model = np.einsum(",".join(f"{each}z" for each in letters) + f",z->{letters}", *waves, amplitudes, optimize=True)
    power = np.square(np.abs(np.fft.fftn(tensor - model)))
    at = np.unravel_index(int(np.argmax(power)), power.shape)
    w = np.array([2 * np.pi * i / size for i, size in zip(at, power.shape, strict=True)])
    return np.angle(np.exp(1j * w)), float(power.max() / (power.mean() or 1.0))
