"""Whether functions of data stay as near to their means as those of Gaussian data do."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from eckart.diagnostics.contract import Column, Examples, Numbers, diagnostic
from eckart.errors import Refused

LEAST = 64
"""Points; fewer have no tails."""
PARTS = 8
"""Of the points, on which the norm's tail is looked at by itself."""
PROJECTIONS = 64
PLACES = 8
"""Points from which distances are measured."""
DRAWS = 3
"""Over which errors are averaged."""
RIDGE, EPOCHS, BATCH, RATE = 1e-4, 5, 32, 1.0
NEGLIGIBLE = 1e-6
"""Eigenvalues of the covariance below this share of the largest are no directions."""
EXCESS, GROWTH = 2.0, 1.5
"""Tails up to this multiple of the Gaussian ones, and of those of an eighth of the points, are taken to concentrate."""


@dataclass(frozen=True)
class Gaussian:
    """The normal law of some points in the directions in which they vary.

    Attributes:
        mean: (d,).
        root: (d, k), with root root^T their covariance up to what was left out.
        left: share of the variance that was.
    """

    mean: Tensor
    root: Tensor
    left: float

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """n points of it, (n, d)."""
        z = torch.randn(n, self.root.shape[1], generator=generator, dtype=torch.float64)
        return self.mean + z @ self.root.T


def gaussian(points: Tensor, negligible: float = NEGLIGIBLE) -> Gaussian:
    """The law with the mean and covariance of points (n, d), without directions below a share of the largest."""
    mean = points.mean(0)
    _, s, v = torch.linalg.svd(points - mean, full_matrices=False)
    values = s.square() / len(points)
    k = int((values > max(negligible, values.numel() * torch.finfo(torch.float64).eps) * values[0]).sum())
    left = float(values[k:].sum() / values.sum()) if k else 0.0
    return Gaussian(mean, v[:k].T * values[:k].sqrt(), left)


def sub_gaussian_norm(values: Tensor) -> Tensor:
    """inf {t: mean exp(x^2 / t^2) <= 2} of each column of (n, m) by bisection; sqrt(8 / 3) for a standard normal x."""
    largest = values.abs().amax(0)
    unit = values / torch.where(largest > 0, largest, 1.0)
    low = torch.full_like(largest, math.log(2 * len(values)) ** -0.5)
    high = torch.full_like(largest, math.log(2) ** -0.5)
    for _ in range(50):
        middle = (low + high) / 2
        fits = (unit / middle).square().exp().mean(0) <= 2
        low, high = torch.where(fits, low, middle), torch.where(fits, middle, high)
    return high * largest


def lipschitz(points: Tensor, centre: Tensor, directions: Tensor, places: Tensor) -> Tensor:
    """Functions of slope at most one: norm, largest entry, projections, distances; each less its mean, (n, m)."""
    x = points - centre
    norms = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    found = torch.cat([norms, x.abs().amax(1, keepdim=True), x @ directions, torch.cdist(points, places)], 1)
    return found - found.mean(0)


Halves = tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Points (n, k) and classes to learn from, and others to be judged on."""


def linear_errors(halves: Halves, seed: int) -> tuple[float, float]:
    """Test errors of two linear classifiers: by ridge, and by stochastic gradient descent on the logistic loss.

    Args:
        halves: of points whose mean square length is about 1; classes 0, 1, ...
        seed: of the order of the steps, whose last pass is averaged.
    """
    (x, y), (x_test, y_test) = halves
    x, x_test = (torch.cat([part, torch.ones(len(part), 1, dtype=part.dtype)], 1) for part in (x, x_test))
    targets = torch.nn.functional.one_hot(y, int(torch.cat([y, y_test]).max()) + 1).to(x)
    identity = torch.eye(x.shape[1], dtype=x.dtype)
    ridge = torch.linalg.solve(x.T @ x + RIDGE * len(x) * identity, x.T @ targets)
    generator, logistic, mean = torch.Generator().manual_seed(seed), torch.zeros_like(ridge), torch.zeros_like(ridge)
    for epoch in range(EPOCHS):
        for index in torch.split(torch.randperm(len(x), generator=generator), BATCH):
            residual = (x[index] @ logistic).softmax(1) - targets[index]
            logistic -= RATE / len(index) * (x[index].T @ residual)
            mean += logistic if epoch == EPOCHS - 1 else 0.0
    of_ridge, of_logistic = (float(((x_test @ w).argmax(1) != y_test).double().mean()) for w in (ridge, mean))
    return of_ridge, of_logistic


def halved(points: Tensor, labels: Tensor, generator: torch.Generator) -> Halves:
    """Two random halves."""
    first, second = torch.randperm(len(points), generator=generator).tensor_split(2)
    return (points[first], labels[first]), (points[second], labels[second])


def universality(points: Tensor, labels: Tensor, seed: int = 0) -> tuple[tuple[float, float], tuple[float, float]]:
    """Test errors on data, and on Gaussian classes of the same sizes, means and covariances.

    Args:
        points: (n, d), float64.
        labels: (n,), any integers.
        seed: of halves, draws and steps; both errors are means over three.

    Returns:
        those of ridge and of the logistic loss, for the data and for the Gaussians.

    Raises:
        Refused: a single class, or one of fewer than two points.
    """
    names, classes, counts = torch.unique(labels, return_inverse=True, return_counts=True)
    if len(names) < 2 or int(counts.min()) < 2:
        raise Refused(f"{len(names)} classes of {int(counts.min())} points or more: two of two points are needed")
    whole = gaussian(points)
    # In the directions in which the points vary, whose lengths are the singular values of the root.
    basis, lengths, _ = torch.linalg.svd(whole.root, full_matrices=False)
    x = (points - whole.mean) @ basis / lengths.square().sum().sqrt()
    laws = [gaussian(x[classes == c]) for c in range(len(names))]
    found = []
    for draw in range(DRAWS):
        generator = torch.Generator().manual_seed(seed + draw)
        drawn = torch.cat([law.draw(int(n), generator) for law, n in zip(laws, counts, strict=True)])
        own = torch.arange(len(names)).repeat_interleave(counts)
        sides = halved(x, classes, generator), halved(drawn, own, generator)
        found.append([linear_errors(side, seed + draw) for side in sides])
    mean = torch.tensor(found, dtype=torch.float64).mean(0).tolist()
    return tuple(mean[0]), tuple(mean[1])


def _doubt(examples: Examples, numbers: Numbers) -> str:
    n, directions = len(examples.points), numbers["directions"]
    assert isinstance(directions, int)
    few = n if examples.labels is None else int(torch.unique(examples.labels, return_counts=True)[1].min())
    if few > 2 * directions:
        return ""
    what = "points" if examples.labels is None else "points in the smallest class"
    return (
        f"{few} {what} vary in {directions} directions, and Gaussian points with their moments in no more: "
        "take more points, or fewer dimensions"
    )


@diagnostic(
    "concentration",
    paper="Ghane, Bao, Akhtiamov and Hassibi 2025, arXiv 2501.07741",
    of="examples",
    gives={
        "directions": Column("Directions in which the points vary, others being left out", kind="integer"),
        "variance_left_out": Column("Share of the variance that is left out with them", unit="share"),
        "tail_norm": Column("Sub-Gaussian norm of the distance to the mean, by that of Gaussian points", unit="ratio"),
        "tail_largest": Column("The largest such ratio over all functions", unit="ratio"),
        "tail_median": Column("The median over projections", unit="ratio"),
        "tail_growth": Column("Sub-Gaussian norm of the distance, by that of an eighth of the points", unit="ratio"),
        "concentrates": Column("Whether tails are no more than twice the Gaussian ones, and settle", kind="boolean"),
        "error_ridge": Column("Test error of a linear classifier, by ridge; of data with classes", unit="share"),
        "error_ridge_gaussian": Column("The same for Gaussian classes of equal moments", unit="share"),
        "error_logistic": Column("Test error by descent on the logistic loss", unit="share"),
        "error_logistic_gaussian": Column("The same for Gaussian classes of equal moments", unit="share"),
    },
    noun="concentration",
    doubt=_doubt,
)
def concentration(examples: Examples) -> Numbers:
    """Whether functions of data stay near their means as those of Gaussian data do, and linear classifiers err alike.

    Functions of slope at most one (the distance to the mean, its largest coordinate, projections, distances to some of
    the points) are compared with the same of Gaussian points of equal mean and covariance, by their sub-Gaussian norms
    inf {t: E exp(f^2 / t^2) <= 2}. A sample has such a norm whatever its law: where there is none, it grows with the
    points. Where there are classes, two linear classifiers are learned from half of the points and judged on the
    other, and likewise from Gaussian classes of the same moments. Directions with less than a millionth of the largest
    variance are left out.

    Args:
        examples: 64 points at least, with classes or without. Below some 256 chance decides where directions are few:
            of 64 normal points in one direction the tails look heavy half of the time.

    Raises:
        Refused: fewer points, points that are all the same, or a class of one point.
    """
    x = _scaled(examples.points)
    generator = torch.Generator().manual_seed(examples.seed)
    order = torch.randperm(len(x), generator=generator)
    places, x = x[order[:PLACES]], x[order[PLACES:]]
    law = gaussian(x)
    if not law.root.numel():
        raise Refused("the points are all the same, so nothing varies")
    directions = torch.randn(x.shape[1], PROJECTIONS, generator=generator, dtype=torch.float64)
    directions /= torch.linalg.vector_norm(directions, dim=0)
    of_data, of_law = (
        sub_gaussian_norm(lipschitz(part, law.mean, directions, places)) for part in (x, law.draw(len(x), generator))
    )
    ratio = of_data / of_law
    parts = torch.stack([sub_gaussian_norm(lipschitz(p, law.mean, directions, places))[0] for p in x.chunk(PARTS)])
    growth = float(of_data[0] / parts.median()) if parts.median() > 0 else None
    largest = float(ratio.max())
    error: list[float | None] = [None] * 4
    if examples.labels is not None:
        own, normal = universality(_scaled(examples.points), examples.labels, examples.seed)
        error = [own[0], normal[0], own[1], normal[1]]
    names = ("error_ridge", "error_ridge_gaussian", "error_logistic", "error_logistic_gaussian")
    return {
        "directions": law.root.shape[1],
        "variance_left_out": law.left,
        "tail_norm": float(ratio[0]),
        "tail_largest": largest,
        "tail_median": float(ratio[2 : 2 + PROJECTIONS].median()),
        "tail_growth": growth,
        "concentrates": largest <= EXCESS and growth is not None and growth <= GROWTH,
        **dict(zip(names, error, strict=True)),
    }


def _scaled(points: Tensor) -> Tensor:
    """The points in float64, scaled by a power of two so that squares neither overflow nor vanish."""
    if len(points) < LEAST:
        raise Refused(f"{len(points)} points have no tails; {LEAST} are needed")
    x = points.detach().double()
    return x * math.ldexp(1.0, -max(-1000, min(1000, math.frexp(float(x.abs().max()))[1])))
