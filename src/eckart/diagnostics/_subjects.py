"""What diagnostics are given that is no matrix: examples, the curvature of a loss, a pool to choose from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from eckart.errors import Refused
from eckart.linalg.spectrum import check


@dataclass(frozen=True)
class Examples:
    """Points, and perhaps their classes.

    Attributes:
        points: x (n, d), finite.
        labels: of each, (n,), integers; None where there are no classes.
        seed: of whatever is drawn.

    Raises:
        Refused: no matrix of finite numbers, or labels that do not go with it.
    """

    points: Tensor
    labels: Tensor | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check(self.points)
        labels = self.labels
        if labels is not None and (labels.shape != self.points.shape[:1] or labels.is_floating_point()):
            raise Refused(
                f"labels of shape {tuple(labels.shape)} and {labels.dtype} do not go with {len(self.points)} points; "
                "one integer a point is needed"
            )


Product = Callable[[Tensor], Tensor]
"""v (P,) -> a matrix times it, (P,)."""


@dataclass(frozen=True)
class Curvature:
    """The Hessian of a loss at one point, batch by batch.

    Attributes:
        products: of each batch, v -> H_j v with H_j the second derivatives of the mean loss of its examples.
        batch: examples in each; no example is in two.
        size: parameters P.
        seed: of the vectors.

    Raises:
        Refused: fewer than two batches, which have no variance, or a bad size.
    """

    products: Sequence[Product]
    batch: int
    size: int
    seed: int = 0

    def __post_init__(self) -> None:
        if len(self.products) < 2 or self.batch < 1 or self.size < 1:
            raise Refused(
                f"{len(self.products)} batches of {self.batch} examples and {self.size} parameters: two batches are "
                "needed to tell how batches differ"
            )

    @classmethod
    def of(
        cls, loss: Callable[[int], Tensor], parameters: Sequence[Tensor], batches: int, batch: int, seed: int = 0
    ) -> Curvature:
        """By differentiating twice.

        Args:
            loss: j -> the mean loss of batch j, a function of `parameters` that gives the same each time.
            parameters: leaves that require gradients.
            batches: how many.
            batch: examples in each.
            seed: of the vectors.
        """
        sizes = [p.numel() for p in parameters]

        def product(j: int) -> Product:
            def times(v: Tensor) -> Tensor:
                parts = [part.view_as(p).to(p.dtype) for part, p in zip(torch.split(v, sizes), parameters, strict=True)]
                first = torch.autograd.grad(loss(j), parameters, create_graph=True)
                along = torch.stack([(g * part).sum() for g, part in zip(first, parts, strict=True)]).sum()
                second = torch.autograd.grad(along, parameters, materialize_grads=True)
                return torch.cat([g.detach().double().flatten() for g in second])

            return times

        return cls([product(j) for j in range(batches)], batch, sum(sizes), seed)


@dataclass(frozen=True)
class Pool:
    """Examples without labels, some of which are to be chosen, by their inner products.

    Attributes:
        diagonal: of the kernel K, (n,), not negative.
        column: i -> K[:, i], (n,).
        picks: how many are to be chosen.
        entropy: of what is predicted for each, in nats, (n,); None where nothing is.
        labelled: those that have labels already.
        seed: of the random choices that the numbers are held against.

    Raises:
        Refused: a kernel of zeros, or numbers that do not fit.
    """

    diagonal: Tensor
    column: Callable[[int], Tensor]
    picks: int
    entropy: Tensor | None = None
    labelled: Sequence[int] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        n = len(self.diagonal)
        if self.diagonal.ndim != 1 or not float(self.diagonal.double().sum()) > 0:
            raise Refused(f"a kernel whose diagonal, of shape {tuple(self.diagonal.shape)}, has no positive sum")
        if self.entropy is not None and self.entropy.shape != self.diagonal.shape:
            raise Refused(f"entropies of shape {tuple(self.entropy.shape)} do not go with {n} examples")
        known = set(self.labelled)
        if len(known) < len(self.labelled) or not known <= set(range(n)):
            raise Refused(f"labelled must be different numbers below {n}")
        if not 1 <= self.picks <= n - len(known):
            raise Refused(f"picks={self.picks}: there are {n - len(known)} examples without labels to choose from")
