"""Two sets of embeddings whose rows pair: what of the first set's diversity the second explains."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from eckart.diagnostics.contract import Numbers, Pairs, Value, columns_of, diagnostics_of, look
from eckart.diagnostics.schur_entropy import Schur, cosine_features, gaussian_features, nullify, split_covariance
from eckart.errors import Refused, check_type
from eckart.progress import Progress, shown
from eckart.report.numbers import shown_number
from eckart.report.shown import Glance, Shown, noted

KERNELS = ("cosine", "gaussian")
FREQUENCIES = 512
ROWS = 4096
"""Pairs at a time."""
DRAWN = 4096
"""Pairs of rows from which the median distance is taken."""

Features = Callable[[Tensor], Tensor]


@dataclass(frozen=True, repr=False)
class Embeddings(Shown):
    """What one set of embeddings explains of another, as `eckart.embeddings` found it.

    Attributes:
        pairs: the features of both sets.
        numbers: of every diagnostic of pairs, by column.
        warnings: what makes the numbers say less than they seem to.
        dimensions: of the embeddings of either set.
        kernel: cosine or gaussian.
        bandwidths: of the gaussian kernel on either set; None for cosine.
        frequencies: of its features; None for cosine.
        seed: of the frequencies and of the sample for the bandwidth.
    """

    pairs: Pairs
    numbers: Numbers
    warnings: list[str]
    dimensions: tuple[int, int]
    kernel: str
    bandwidths: tuple[float, float] | None
    frequencies: int | None
    seed: int

    def glance(self) -> Glance:
        """What was found of the pairs."""
        columns = columns_of("pairs")
        found = [(columns[name].heading(name), value) for name, value in self.numbers.items() if name in columns]
        rows = [(name, shown_number(float(value))) for name, value in found if isinstance(value, int | float)]
        title = f"Embeddings: {self.pairs.count} pairs of {self.dimensions[0]} and {self.dimensions[1]} dimensions"
        return Glance(title, rows, (), noted(self.warnings))

    @cached_property
    def split(self) -> Schur:
        """The covariance of the first set's features in two parts."""
        return split_covariance(self.pairs)

    def nullified(self, first: Any, prompt: Any) -> Tensor:
        """Embeddings of the first kind without the direction in which an embedding of the second kind shows.

        Args:
            first: (n, d), not scaled; the set that was looked at, or others of the kind.
            prompt: (e,) or (1, e).

        Returns:
            (n, d), float64 where `first` is, else float32.

        Raises:
            Refused: the kernel is not cosine, shapes that do not fit, NaN, or a prompt that is zero or lies outside
                of what the second set spans.
        """
        check_nullify(self.kernel)
        rows, prompt = _checked(first, "first set", False), torch.as_tensor(prompt)
        one = _checked(prompt[None] if prompt.ndim == 1 else prompt, "prompt", True)
        if len(one) != 1 or (rows.shape[1], one.shape[1]) != self.dimensions:
            raise Refused(
                f"embeddings {tuple(rows.shape)} and a prompt {tuple(prompt.shape)} do not fit sets of "
                f"{self.dimensions[0]} and {self.dimensions[1]} dimensions"
            )
        left = torch.empty_like(rows, dtype=torch.float64 if rows.dtype == torch.float64 else torch.float32)
        for i in range(0, len(rows), ROWS):
            left[i : i + ROWS] = nullify(rows[i : i + ROWS], cosine_features(one)[0], self.split)
        return left

    def to_dict(self) -> dict[str, Any]:
        """The numbers, for JSON; entropies in nats."""
        return {
            "pairs": self.pairs.count,
            "dimensions": list(self.dimensions),
            "kernel": self.kernel,
            "bandwidths": None if self.bandwidths is None else list(self.bandwidths),
            "frequencies": self.frequencies,
            "seed": self.seed,
            **nested(self.numbers),
            "warnings": self.warnings,
        }


def nested(numbers: Numbers) -> dict[str, Any]:
    """Numbers with a mapping in the place of those whose names have the same words before a dot.

    >>> nested({"entropy.first": 1.0, "entropy.explained": 0.5, "rank": 3})
    {'entropy': {'first': 1.0, 'explained': 0.5}, 'rank': 3}
    """
    found: dict[str, Any] = {}
    for name, value in numbers.items():
        group, _, last = name.rpartition(".")
        (found.setdefault(group, {}) if group else found)[last] = value
    return found


def embeddings(
    first: Any,
    second: Any,
    *,
    kernel: str = "cosine",
    bandwidth: float | None = None,
    frequencies: int = FREQUENCIES,
    seed: int = 0,
    progress: Progress = shown,
) -> Embeddings:
    """What of the first set's diversity the second explains, and what is left (Ospanov et al. 2024).

    Features of either set are made some thousand pairs at a time and only their joint covariance is kept.

    Args:
        first: (n, d), real numbers; a tensor or anything `torch.as_tensor` takes. Images, say.
        second: (n, e), whose rows belong to those of the first. Their captions, say.
        kernel: cosine, exact; or gaussian, by random Fourier features.
        bandwidth: of the gaussian kernel on both sets; None for each set's median distance between two rows, over 4096
            drawn pairs of them.
        frequencies: of the gaussian kernel; features are twice as many.
        seed: of the draws.
        progress: called with ("pairs", done, n).

    Raises:
        Refused: no matrices of finite numbers, counts that differ, a zero row (cosine), or a bandwidth that is not
            positive, cannot be found, or is given for cosine.

    >>> texts = torch.randn(3000, 8, generator=torch.Generator().manual_seed(0))
    >>> found = embeddings(torch.cat([texts, texts.flip(0)], 1), texts)
    >>> round(found.split.share, 1), round(found.split.shuffled, 1)
    (0.5, 1.0)
    """
    check_type("bandwidth", bandwidth, float | None)
    check_type("frequencies", frequencies, int)
    check_type("seed", seed, int)
    if kernel not in KERNELS:
        raise Refused(f"kernel={kernel!r} is none of {', '.join(KERNELS)}")
    if kernel == "cosine" and bandwidth is not None:
        raise Refused(f"bandwidth={bandwidth} is of kernel gaussian; with cosine there is none")
    x, y = (_checked(s, name, kernel == "cosine") for s, name in ((first, "first set"), (second, "second set")))
    if len(x) != len(y):
        raise Refused(f"{len(x)} rows of the first set do not pair with {len(y)} of the second")
    if kernel == "cosine":
        bandwidths = None
        features: tuple[Features, Features] = cosine_features, cosine_features
    else:
        one, two = (_bandwidth(s, n, bandwidth, seed) for s, n in ((x, "first set"), (y, "second set")))
        bandwidths = one, two
        features = _gaussian(one, frequencies, seed), _gaussian(two, frequencies, seed)
    pairs = Pairs.gathered(_features(x, y, features, progress))
    numbers: dict[str, Value] = {}
    warnings: list[str] = []
    for card in diagnostics_of("pairs"):
        given, notes = look(card, pairs)
        numbers |= given
        warnings += notes
    sizes = x.shape[1], y.shape[1]
    frequencies_used = None if bandwidths is None else frequencies
    return Embeddings(pairs, numbers, warnings, sizes, kernel, bandwidths, frequencies_used, seed)


def check_nullify(kernel: str) -> None:
    """Raises Refused for a kernel with which a direction of the features is none of the embeddings."""
    if kernel != "cosine":
        raise Refused(
            f"a prompt can be taken out of embeddings with kernel cosine only: with {kernel} its direction lies among "
            "the random features, and what is left there belongs to no embedding"
        )


def median_distance(rows: Tensor, *, seed: int = 0) -> float:
    """The median distance between two rows of (n, d), n > 1, over `DRAWN` pairs of different rows."""
    generator, n = torch.Generator().manual_seed(seed), len(rows)
    i = torch.randint(n, (DRAWN,), generator=generator)
    j = (i + torch.randint(1, n, (DRAWN,), generator=generator)) % n
    return float(torch.linalg.vector_norm(rows[i].double() - rows[j].double(), dim=1).median())


def _bandwidth(rows: Tensor, name: str, bandwidth: float | None, seed: int) -> float:
    if bandwidth is not None:
        return bandwidth
    found = median_distance(rows, seed=seed) if len(rows) > 1 else 0.0
    if not found > 0:
        raise Refused(f"the median distance of the {name} is {found}, no bandwidth; give one that is positive")
    return found


def _gaussian(bandwidth: float, frequencies: int, seed: int) -> Features:
    return partial(gaussian_features, bandwidth=bandwidth, frequencies=frequencies, seed=seed)


def _features(
    x: Tensor, y: Tensor, features: tuple[Features, Features], progress: Progress
) -> Iterator[tuple[Tensor, Tensor]]:
    for i in range(0, len(x), ROWS):
        yield features[0](x[i : i + ROWS]), features[1](y[i : i + ROWS])
        progress("pairs", min(i + ROWS, len(x)), len(x))


def _checked(given: Any, name: str, directed: bool) -> Tensor:
    """A matrix of finite real numbers, without zero rows where they need a direction; Refused says which is not."""
    rows = torch.as_tensor(given).detach()
    if rows.ndim != 2 or not rows.numel():
        raise Refused(f"the {name} has shape {tuple(rows.shape)}; embeddings are (rows, dimensions)")
    if rows.is_complex() or rows.dtype == torch.bool:
        raise Refused(f"the {name} holds {rows.dtype}, not real numbers")
    for i in range(0, len(rows), ROWS):
        part = rows[i : i + ROWS].double()
        bad = ~torch.isfinite(part)
        if bad.any():
            at, column = (int(k) for k in bad.nonzero()[0])
            raise Refused(f"row {i + at} of the {name} holds {float(part[at, column])}; leave such rows out")
        zero = (part == 0).all(1)
        if directed and zero.any():
            at = i + int(zero.nonzero()[0])
            raise Refused(f"row {at} of the {name} is zero and has no direction, which kernel cosine needs")
    return rows
