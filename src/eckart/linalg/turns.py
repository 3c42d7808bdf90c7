"""Bases of factors that fit alike: which of them a variational posterior should be in."""

from __future__ import annotations

import numpy as np

from eckart.arrays import Dense


def best_turn(functions: Dense, core: Dense, n: int, m: int) -> Dense:
    """T (r, r) for u <- T u and G <- G x T^-T, which change no fit, that raises the bound most.

    argmin tr(T P T^T)/2 - n log|T| + tr(T^-T F T^-1)/2 + m log|T|, after Luttinen and Ilin 2010: with X = S T^T T S,
    S = P^1/2, it is the positive root of X^2 - (n - m) X = S F S.

    Args:
        functions: P, E u K^-1 u^T.
        core: F, E of the core's unfolding times its transpose.
        n: times.
        m: the core's entries by r.
    """
    values, vectors = np.linalg.eigh(functions)
    values = np.maximum(values, values[-1] * np.finfo(float).eps)
    root, inverse = (vectors * np.sqrt(values)) @ vectors.T, (vectors / np.sqrt(values)) @ vectors.T
    sizes, ways = np.linalg.eigh(root @ core @ root)
    x = ((n - m) + np.sqrt((n - m) ** 2 + 4 * np.maximum(sizes, 0.0))) / 2
    least = float(x.max(initial=0.0)) * 1e-12
    found: Dense = (np.sqrt(np.maximum(x, least))[:, None] * ways.T) @ inverse if least > 0 else np.eye(len(core))
    return found
