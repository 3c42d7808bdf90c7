"""Points in groups."""

from __future__ import annotations

import torch
from torch import Tensor

RESTARTS = 10


def cosine_clusters(gram: Tensor, generator: torch.Generator) -> dict[int, Tensor]:
    """Clusters by cosine, (n,), for every number of them below n, of vectors known by their inner products.

    Args:
        gram: (n, n), float64, finite.
        generator: of the starts of k-means.
    """
    norm = gram.diagonal().sqrt().clamp_min(torch.finfo(gram.dtype).tiny)
    values, vectors = torch.linalg.eigh(gram / norm[:, None] / norm)
    # Points whose inner products are the cosines.
    points = vectors * values.clamp_min(0).sqrt()
    return {k: k_means(points, k, generator) for k in range(1, len(gram))}


def k_means(points: Tensor, k: int, generator: torch.Generator, restarts: int = RESTARTS) -> Tensor:
    """The best of some runs of Lloyd's algorithm from k-means++ starts: the cluster of each point, (n,), int64.

    Args:
        points: (n, d), float64.
        k: clusters, 1 <= k <= n; fewer where points coincide.
        generator: of the starts.
        restarts: runs.
    """
    best, least = torch.zeros(len(points), dtype=torch.long), float("inf")
    for _ in range(restarts):
        centres = points[torch.randint(len(points), (1,), generator=generator)]
        while len(centres) < k and (far := torch.cdist(points, centres).amin(1).square()).sum() > 0:
            centres = torch.cat([centres, points[torch.multinomial(far, 1, generator=generator)]])
        inertia = float("inf")
        while True:
            distance, label = torch.cdist(points, centres, compute_mode="donot_use_mm_for_euclid_dist").min(1)
            if not (now := float(distance.square().sum())) < inertia:
                break
            inertia = now
            if inertia < least:
                best, least = label, inertia
            member = torch.nn.functional.one_hot(label, len(centres)).double()
            count = member.sum(0)[:, None]
            centres = torch.where(count > 0, member.T @ points / count.clamp_min(1), centres)
    return best
