"""A density on a grid: points in bins, smoothed by a Gaussian, and its logarithm read between the nodes by splines."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy import ndimage

from eckart.arrays import Dense
from eckart.errors import Refused

FINE, REACH, LARGEST = 4.0, 6.0, 2**24
"""Nodes a width; widths of a kernel's reach and of the margin; nodes at most."""
DEEP, FLOOR = 12.0, 30.0
"""How far below the peak logarithms are read, and where they end."""


@dataclass(frozen=True)
class SmoothBins:
    """A Gaussian kernel density in up to three dimensions.

    A point is shared by the three nodes around it, in each dimension, by a B-spline of the second degree, which widens
    it by step^2 / 4 wherever it lies between them: the Gaussian is narrower by as much. Logarithms of a smooth density
    are near to parabolas, and cubic splines read them with the same relative error in the tails.

    Attributes:
        log_density: at the nodes, no lower than 30 below the peak.
        start: the first node, (d,).
        step: between nodes, in each dimension.
    """

    log_density: Dense
    start: Dense
    step: float

    @staticmethod
    def of(z: Dense, width: float) -> SmoothBins:
        """The density of points z (n, d) by kernels of that width.

        Raises:
            Refused: the grid has more than 2^24 nodes.
        """
        n, d = z.shape
        step = width / FINE
        start = z.min(0) - REACH * width
        size = [int(np.ceil(s)) + 2 for s in (z.max(0) + REACH * width - start) / step]
        if np.prod(size, dtype=float) > LARGEST:
            raise Refused(
                f"{' x '.join(map(str, size))} nodes for widths of {width:.3g} are too many: take a larger width, or "
                "binned=False"
            )
        place = (z - start) / step
        near = np.rint(place).astype(np.int64)
        off = place - near
        shares = np.stack([(0.5 - off) ** 2 / 2, 0.75 - off**2, (0.5 + off) ** 2 / 2])
        counts = np.zeros(int(np.prod(size)))
        for corner in product((-1, 0, 1), repeat=d):
            weight = np.prod([shares[at + 1, :, i] for i, at in enumerate(corner)], axis=0)
            node = np.ravel_multi_index(tuple((near + np.array(corner)).T), size)
            counts += np.bincount(node, weight, minlength=len(counts))
        sigma = np.sqrt(FINE**2 - 1 / 4)
        smooth = ndimage.gaussian_filter(counts.reshape(size), sigma, mode="constant", truncate=REACH)
        density = smooth / (n * step**d)
        return SmoothBins(np.log(np.maximum(density, density.max() * np.exp(-FLOOR))), start, step)

    def __call__(self, z: Dense) -> tuple[Dense, Dense]:
        """ln of the density (m,) at z (m, d), and which of them are too far out to be read, (m,) of bool."""
        place = (z - self.start) / self.step
        inside = ((place >= 0) & (place <= np.array(self.log_density.shape) - 1)).all(1)
        found = np.full(len(z), -np.inf)
        found[inside] = ndimage.map_coordinates(self.log_density, place[inside].T, order=3, mode="nearest")
        return found, ~(found > self.log_density.max() - DEEP)
