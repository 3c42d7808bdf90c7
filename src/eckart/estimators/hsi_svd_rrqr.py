"""Images of many bands without noise: few of their own bands carry the rest, and only these see an image prior."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from eckart.arrays import Dense, dense, power_of_two
from eckart.errors import Refused
from eckart.estimators.contract import estimator
from eckart.linalg.image_priors import non_local_means, total_variation
from eckart.linalg.pivoted_qr import strong_rrqr
from eckart.linalg.singular_value_threshold import optimal_threshold, threshold
from eckart.scikit.base import Estimator, same_kind
from eckart.scikit.door import OneToOneFeatureMixin, TransformerMixin, check_is_fitted
from eckart.scikit.planted import Planted

Prior = Callable[[Dense, float], Dense]
TV_WEIGHT = 0.7
"""Of total variation by the standard deviation of the noise."""
PRIORS: dict[str, Prior] = {
    "tv": lambda image, noise: total_variation(image, TV_WEIGHT * noise),
    "nlm": non_local_means,
}


def right_factors(y: Dense) -> tuple[Dense, Dense]:
    """All singular values (k,) and right singular vectors (bands, k) of Y (pixels, bands), by its triangular factor."""
    small = np.linalg.qr(y, mode="r") if len(y) > y.shape[1] else y
    _, values, vh = np.linalg.svd(small, full_matrices=False)
    return values, vh.T


def carrying_bands(basis: Dense, *, bound: float = 1.2) -> Dense:
    """Indices (r,) of the bands whose rows of V (bands, r) are the least dependent, by strong rank-revealing QR."""
    return np.sort(strong_rrqr(basis.T, basis.shape[1], bound=bound).order[: basis.shape[1]])


def coefficients_of(basis: Dense, bands: Dense) -> Dense:
    """E = V V[bands]^-1 (bands, r): an image A E^T in the span of V has A as its bands of these indices."""
    found: Dense = np.linalg.solve(basis[bands].T, basis.T).T
    return found


def _planted(rng: np.random.Generator) -> Planted:
    spectra = rng.uniform(0, 1, (3, 20))
    clean = rng.uniform(0, 1, (200, 3)) @ spectra
    noisy = clean + 0.05 * rng.standard_normal(clean.shape)

    def error(fitted: Any) -> Any:
        # What is left of the noise, by the share of its directions that a subspace of rank 3 has.
        return np.square(fitted.transform(noisy) - clean).mean() / (0.05**2 * 3 / 20) - 1

    return Planted({"X": noisy}, error, 0.2)


@estimator(
    "hsi-svd-rrqr",
    paper="Pang et al. 2024, arXiv 2402.15865",
    kind="transformer",
    gives="the image or table without noise",
    takes="images (height, width, bands)",
    planted=_planted,
    expression="Chain(Dense, Dense)",
)
class SpectralSubspaceDenoiser(OneToOneFeatureMixin, TransformerMixin, Estimator):
    """Pixels of many bands on the few directions that noise does not explain, and images smoothed in these alone.

    A table (pixels, bands) is put on `rank` right singular vectors. Of an image (height, width, bands) the channels
    that carry it are smoothed besides, by a prior of grey images, and the others follow from them: the paper takes as
    channels the bands that strong rank-revealing QR picks, and as a prior a diffusion model; here the prior is total
    variation, non-local means, or one of yours. The noise is taken to be white and the same in all bands.

    Args:
        rank: of the subspace; "gavish-donoho" for what rises above white noise.
        prior: "tv", "nlm", a function of an image (height, width) and the standard deviation of its noise, or None.
        channels: what the prior sees: the picked "bands" of the projected image, or its "principal" components, whose
            noise is independent.
        noise: standard deviation of an entry; None for what the median singular value says.

    Attributes:
        components_: right singular vectors, (rank, bands).
        singular_values_: all of them.
        bands_: which bands carry the image, (rank,).
        coefficients_: E (bands, rank), all bands from these.
        noise_: standard deviation of an entry.
        rank_: how many directions were kept.
    """

    def __init__(
        self,
        rank: int | Literal["gavish-donoho"] = "gavish-donoho",
        *,
        prior: Literal["tv", "nlm"] | Prior | None = "tv",
        channels: Literal["bands", "principal"] = "principal",
        noise: float | None = None,
    ) -> None:
        self.rank = rank
        self.prior = prior
        self.channels = channels
        self.noise = noise

    def fit(self, X: Any, y: Any = None) -> SpectralSubspaceDenoiser:
        """Finds the subspace of a table (pixels, bands), or of an image (height, width, bands); itself."""
        if self.channels not in ("bands", "principal") or not (
            self.prior is None or callable(self.prior) or self.prior in PRIORS
        ):
            raise Refused(
                f"prior={self.prior!r} and channels={self.channels!r}: a prior is 'tv', 'nlm', a function or None, "
                "channels are 'bands' or 'principal'"
            )
        table, _ = self._pixels(X, fit=True)
        unit = power_of_two(table)
        values, vectors = right_factors(table / unit)
        least = threshold(values, table.shape, None if self.noise is None else self.noise / unit)
        short, long = sorted(table.shape)
        self.noise_ = least * unit / (optimal_threshold(short / long) * np.sqrt(long))
        if self.rank == "gavish-donoho":
            self.rank_ = max(1, int((values > least).sum()))
        elif isinstance(self.rank, int | np.integer) and 1 <= self.rank <= len(values):
            self.rank_ = int(self.rank)
        else:
            raise Refused(f"rank={self.rank!r} of a table of shape {table.shape}: 1..{len(values)}, or gavish-donoho")
        self.singular_values_ = values * unit
        self.components_ = np.ascontiguousarray(vectors[:, : self.rank_].T)
        self.bands_ = carrying_bands(vectors[:, : self.rank_])
        self.coefficients_ = coefficients_of(vectors[:, : self.rank_], self.bands_)
        return self

    @same_kind
    def transform(self, X: Any) -> Any:
        """What came, without noise: a table (pixels, bands) or an image (height, width, bands)."""
        table, image = self._pixels(X)
        basis = self.components_.T
        channels = table @ basis
        if image is None:
            return channels @ basis.T
        mixing = basis
        noises = np.full(self.rank_, self.noise_)
        if self.channels == "bands":
            channels, mixing = channels @ basis[self.bands_].T, self.coefficients_
            noises = self.noise_ * np.linalg.norm(basis[self.bands_], axis=1)
        if self.prior is not None:
            prior = PRIORS[self.prior] if isinstance(self.prior, str) else self.prior
            smooth = [prior(c.reshape(image), float(s)).ravel() for c, s in zip(channels.T, noises, strict=True)]
            channels = np.stack(smooth, axis=1)
        return (channels @ mixing.T).reshape(*image, -1)

    def _pixels(self, X: Any, *, fit: bool = False) -> tuple[Dense, tuple[int, int] | None]:
        """A table (pixels, bands), and (height, width) where it was an image."""
        if getattr(X, "ndim", 2) != 3:
            return self._table(X, fit=fit), None
        if not fit:
            check_is_fitted(self)
        image = dense(X, "the image", ndim=3)
        return self._table(image.reshape(-1, image.shape[2]), fit=fit), (image.shape[0], image.shape[1])

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
