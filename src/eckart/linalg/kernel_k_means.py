"""k-means of what is known by its inner products alone, and how well its clusters stand apart."""

from __future__ import annotations

import numpy as np

from eckart.arrays import Dense, Seed, generator_of
from eckart.errors import Refused
from eckart.linalg.solution import Solution


def kernel_distances(gram: Dense) -> Dense:
    """max(k_ii + k_jj - 2 k_ij, 0) (n, n), zero on the diagonal: squared distances of a positive semi-definite k."""
    diagonal = gram.diagonal()
    found: Dense = np.maximum(diagonal[:, None] + diagonal - 2 * gram, 0.0)
    np.fill_diagonal(found, 0.0)
    return found


def to_centres(gram: Dense, labels: Dense, k: int) -> tuple[Dense, Dense, Dense]:
    """Means of the kernel over clusters, of which squared distances are k(x, x) - 2 `across` + `within`.

    Args:
        gram: K (n, n) of the members.
        labels: (n,), below k.
        k: clusters.

    Returns:
        member (n, k), 1 / size of the cluster that a row belongs to, else 0; across (n, k), the mean of K over the
        clusters; within (k,), its mean over pairs of a cluster, Inf where a cluster is empty.
    """
    member = np.eye(k)[labels]
    count = member.sum(0)
    member = member / np.where(count > 0, count, 1.0)
    across = gram @ member
    return member, across, np.where(count > 0, (member * across).sum(0), np.inf)


def kernel_k_means(
    gram: Dense, k: int, *, generator: Seed = None, restarts: int = 10, max_iter: int = 300
) -> Solution[Dense]:
    """Labels (n,) of least sum of squared distances from the means of their clusters, by runs of Lloyd's iteration.

    Starts are by k-means++ (Arthur and Vassilvitskii 2007) in the kernel's distances. With a matrix that is not
    positive semi-definite the sum may grow again; the best of what was passed is kept.

    Args:
        gram: K (n, n), symmetric.
        k: clusters; fewer come where points coincide.
        generator: of the starts.
        restarts: runs.
        max_iter: steps of a run at most.

    Returns:
        Labels; `error` is their sum of squared distances.

    Raises:
        Refused: k is not between 1 and n, or K is not square or has NaN or Inf entries.
    """
    if gram.ndim != 2 or gram.shape[0] != gram.shape[1] or not np.isfinite(gram).all():
        raise Refused(f"K of shape {gram.shape} is not square, or has NaN or Inf entries")
    n = len(gram)
    if not 1 <= k <= n:
        raise Refused(f"{k} clusters of {n} points: between 1 and {n} are possible")
    rng = generator_of(generator)
    diagonal, far = gram.diagonal(), kernel_distances(gram)
    best, least, taken, ended = np.zeros(n, np.int64), np.inf, 0, True
    history = []
    for _ in range(restarts):
        labels = _start(far, k, rng)
        inertia, done = np.inf, False
        for _ in range(max_iter):
            taken += 1
            _, across, within = to_centres(gram, labels, k)
            distance = diagonal[:, None] - 2 * across + within
            now = float(distance[np.arange(n), labels].sum())
            if now < least:
                best, least = labels, now
            if not now < inertia - 1e-12 * abs(inertia if np.isfinite(inertia) else 0.0):
                done = True
                break
            inertia, labels = now, distance.argmin(1)
        ended &= done
        history.append(inertia)
    message = "no step lowers the sum" if ended else f"some of the {restarts} runs took {max_iter} steps"
    return Solution(best, ended, taken, history, message, error=least)


def _start(far: Dense, k: int, rng: np.random.Generator) -> Dense:
    """Labels by the nearest of k points, each drawn in proportion to its squared distance from those before."""
    chosen = [int(rng.integers(len(far)))]
    nearest = far[:, chosen[0]].copy()
    while len(chosen) < k and (total := nearest.sum()) > 0:
        chosen.append(int(rng.choice(len(far), p=nearest / total)))
        nearest = np.minimum(nearest, far[:, chosen[-1]])
    found: Dense = far[:, chosen].argmin(1)
    return found


def silhouette(distances: Dense, labels: Dense) -> float:
    """The mean of (b - a) / max(a, b) over points (Rousseeuw 1987); 0 where there is one cluster.

    a is the mean distance from the other points of the cluster, b the least mean distance from another cluster's; a
    point alone in its cluster counts 0.

    Args:
        distances: (n, n), zero on the diagonal.
        labels: (n,).
    """
    codes = np.unique(labels, return_inverse=True)[1]
    count = np.bincount(codes)
    if len(count) < 2:
        return 0.0
    sums = distances @ np.eye(len(count))[codes]
    rows = np.arange(len(codes))
    own = sums[rows, codes] / np.maximum(count[codes] - 1, 1)
    means = sums / count
    means[rows, codes] = np.inf
    other = means.min(1)
    larger = np.maximum(own, other)
    score = np.where((count[codes] > 1) & (larger > 0), (other - own) / np.where(larger > 0, larger, 1.0), 0.0)
    return float(score.mean())
