"""Unmixing with outlying bands, and images of many bands without noise.

    pip install scikit-learn scikit-image pillow chemotools pandas tifffile imagecodecs
    python -m benchmarks.estimators.spectra --landsat L7_ETMs.tif [--picture docs/images/denoised.png]

Spectra are halves of real ones, the mean of chemotools' coffees and a fermentation, resampled to 60 or 200 bands. No
hyperspectral image is in a package: mixtures are drawn, or are photographs of scikit-image as abundances. The Landsat
image of six bands is that of R's package stars (apt-get download r-cran-stars); without --landsat it is left out.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from scipy.optimize import linear_sum_assignment
from sklearn.decomposition import NMF

from benchmarks.common.rows import Rows, add_option
from benchmarks.common.seeds import Found, medians
from eckart.estimators.hsi_svd_rrqr import TV_WEIGHT, SpectralSubspaceDenoiser, coefficients_of
from eckart.estimators.unmixing_l21 import RobustUnmixing
from eckart.linalg.image_priors import non_local_means, total_variation
from eckart.linalg.simplex import corners, on_simplex, quadratic_programs


def inside(package: str, path: str) -> Path:
    spec = find_spec(package)
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0], path)


def spectra(bands: int) -> np.ndarray:
    """Four stretches of real spectra (4, bands) in 0..1, as if they were of the same bands."""
    coffee = pd.read_csv(inside("chemotools", "datasets/data/coffee_spectra.csv")).to_numpy(float).mean(0)
    wort = pd.read_csv(inside("chemotools", "datasets/data/fermentation_spectra.csv")).to_numpy(float)
    found = []
    for each in (*np.array_split(coffee, 2), *np.array_split(wort[0], 2)):
        resampled = np.interp(np.linspace(0, 1, bands), np.linspace(0, 1, len(each)), each)
        found.append((resampled - resampled.min()) / np.ptp(resampled) + 0.02)
    return np.array(found)


def angle(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Degrees between rows."""
    cosine = one @ other.T / np.outer(np.linalg.norm(one, axis=1), np.linalg.norm(other, axis=1))
    return np.degrees(np.arccos(np.clip(cosine, -1, 1)))


def unmixing(seeds: int) -> Iterator[Found]:
    """Spectral angles and errors of abundances, with and without bands that hold noise only."""
    bands, pixels, noise = 200, 1000, 0.01
    endmembers = spectra(bands)[:3]
    for share in (0.0, 0.05):
        for seed in range(seeds):
            rng = np.random.default_rng(seed)
            abundances = rng.dirichlet(np.full(3, 0.7), pixels)
            x = np.abs(abundances @ endmembers + noise * rng.standard_normal((pixels, bands)))
            spoilt = rng.choice(bands, round(share * bands), replace=False)
            x[:, spoilt] = rng.uniform(0, 2, (pixels, len(spoilt)))
            sound = np.setdiff1d(np.arange(bands), spoilt)

            def with_corners(x: np.ndarray = x) -> tuple[np.ndarray, np.ndarray]:
                m = x[corners(x, 3)]
                a = quadratic_programs(m @ m.T, x @ m.T, on_simplex, np.full((len(x), 3), 1 / 3))
                return m, a

            def factorized(x: np.ndarray = x, seed: int = seed) -> tuple[np.ndarray, np.ndarray]:
                model = NMF(3, init="nndsvda", random_state=seed, max_iter=1000)
                a = model.fit_transform(x)
                total = a.sum(axis=1, keepdims=True)
                return model.components_ * total.mean(), a / np.where(total > 0, total, 1)

            def ours(x: np.ndarray = x, **options: Any) -> tuple[np.ndarray, np.ndarray]:
                fitted = RobustUnmixing(3, **options).fit(x)
                return fitted.components_, fitted.transform(x)

            arms: dict[str, Callable[[], tuple[np.ndarray, np.ndarray]]] = {
                "norms of bands": ours,
                "norms of bands, sparsity 0.01": lambda ours=ours: ours(sparsity=0.01),
                "squares": lambda ours=ours: ours(robust=False),
                "corners alone": with_corners,
                "scikit-learn's NMF": factorized,
            }
            for arm, made in arms.items():
                m, a = made()
                angles = angle(endmembers[:, sound], m[:, sound])
                rows, columns = linear_sum_assignment(angles)
                what = {"part": "unmixing", "method": "unmixing-l21", "arm": arm, "spoilt": share, "seed": seed}
                what |= {"bands": bands, "pixels": pixels}
                error = float(np.sqrt(np.square(a[:, columns] - abundances).mean()))
                yield what, {"angle": float(angles[rows, columns].mean()), "rmse": error}


def images(landsat: Path | None) -> Iterator[tuple[str, np.ndarray]]:
    """Clean images (height, width, bands) in 0..1."""
    channels = []
    for name, row, column in (("camera.png", 100, 180), ("coins.png", 60, 60), ("moon.png", 200, 200)):
        picture = np.asarray(Image.open(inside("skimage", f"data/{name}")), np.float64)
        channels.append(picture[row : row + 128, column : column + 128] / 255)
    abundances = np.stack([*channels, np.full((128, 128), 0.3)], axis=-1)
    abundances /= abundances.sum(axis=-1, keepdims=True)
    image = abundances @ spectra(60)
    yield "photographs as abundances of 4 spectra, 128 x 128 x 60", image / image.max()
    if landsat is not None:
        from tifffile import imread

        image = np.asarray(imread(landsat), np.float64)
        image = image if image.shape[-1] < 20 else np.moveaxis(image, 0, -1)
        yield "Landsat 7, 128 x 128 x 6", image[100:228, 100:228] / 255


def denoising(seeds: int, landsat: Path | None) -> Iterator[Found]:
    """PSNR with white noise of 50/255 and 20/255; the same weights of priors everywhere."""
    for name, clean in images(landsat):
        for sigma in (20, 50):
            for seed in range(seeds):
                noise = sigma / 255
                noisy = clean + noise * np.random.default_rng(seed).standard_normal(clean.shape)
                what = {"part": "denoising", "method": "hsi-svd-rrqr", "image": name, "sigma": sigma, "seed": seed}

                def psnr(near: np.ndarray, clean: np.ndarray = clean) -> dict[str, float]:
                    return {"psnr": float(-10 * np.log10(np.square(near - clean).mean()))}

                yield what | {"arm": "noisy"}, psnr(noisy)
                fitted = SpectralSubspaceDenoiser(prior=None).fit(noisy)
                yield (
                    what | {"arm": "subspace alone"},
                    psnr(fitted.transform(noisy)) | {"rank": fitted.rank_, "noise": fitted.noise_ * 255},
                )
                for prior in ("tv", "nlm"):
                    for channels in ("principal", "bands"):
                        fitted = SpectralSubspaceDenoiser(prior=prior, channels=channels).fit(noisy)
                        yield what | {"arm": f"{prior}, {channels}"}, psnr(fitted.transform(noisy))
                    # The bands that rank-revealing QR picked, against as many at equal distances.
                    bands = np.linspace(0, clean.shape[2] - 1, fitted.rank_ + 2)[1:-1].round().astype(int)
                    if len(set(bands.tolist())) == len(bands):
                        fitted.bands_, fitted.coefficients_ = bands, coefficients_of(fitted.components_.T, bands)
                        yield what | {"arm": f"{prior}, equispaced bands"}, psnr(fitted.transform(noisy))
                one = np.stack([total_variation(band, TV_WEIGHT * noise) for band in noisy.transpose(2, 0, 1)], -1)
                yield what | {"arm": "tv, band by band"}, psnr(one)
                one = np.stack([non_local_means(band, noise) for band in noisy.transpose(2, 0, 1)], -1)
                yield what | {"arm": "nlm, band by band"}, psnr(one)


def picture(landsat: Path | None, sigma: int = 50) -> Image.Image:
    """A band of each image, a row: noisy, by total variation on principal components, and clean."""
    rows = []
    for _, clean in images(landsat):
        noisy = clean + sigma / 255 * np.random.default_rng(0).standard_normal(clean.shape)
        near = SpectralSubspaceDenoiser().fit(noisy).transform(noisy)
        band = clean.shape[2] // 2
        low, high = np.quantile(clean[..., band], (0.002, 0.998))
        panels = [np.clip((each[..., band] - low) / (high - low), 0, 1) for each in (noisy, near, clean)]
        rows.append(np.hstack([np.pad(panel, 2, constant_values=1) for panel in panels]))
    grey = np.kron(np.vstack(rows), np.ones((2, 2)))
    return Image.fromarray((255 * grey).round().astype(np.uint8))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--landsat", type=Path, metavar="FILE")
    parser.add_argument("--only", action="append", metavar="PART", help="of the parts; all where it is left out")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draws this one of the denoised images, no more")
    add_option(parser)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    if options.picture:
        picture(options.landsat).save(options.picture, optimize=True)
        return
    rows = Rows("estimators.spectra", options.json)
    parts = {"unmixing": unmixing, "denoising": lambda seeds: denoising(min(seeds, 2), options.landsat)}
    for name in options.only or parts:
        for what, found in medians(parts[name](options.seeds)):
            rows.add(what, found)


if __name__ == "__main__":
    main()
