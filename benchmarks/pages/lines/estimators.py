"""The lines on the cards of estimators and solvers."""

from __future__ import annotations

from typing import Any

from benchmarks.pages.cards import Lines


def _planted(where: str, conditions: str, select: dict[str, Any], line: str) -> Lines:
    chosen = {"benchmark": "estimators.planted"} | select
    return Lines("estimators", where, conditions, chosen, line, together="; ")


ESTIMATORS: list[Lines] = [
    Lines(
        "estimators",
        "ratings",
        "MovieLens-100K, {folds} folds, clipped to 1..5: root mean squared error and processor seconds; "
        "Surprise's SVD has 0.934 in 0.8 s, cmfrec with 50 factors 0.915 in 0.6 s",
        {"benchmark": "estimators.ratings", "part": "folds", "method": ("completion-altmin", "soft-impute")},
        "{arm} {rmse:.4f} in {seconds:.2f} s",
        together="; ",
    ),
    Lines(
        "estimators",
        "sweep",
        "a sweep over MovieLens-100K, processor seconds for 10 to 160 factors",
        {"benchmark": "estimators.ratings", "part": "sweeps"},
        "{solver} {k10:.3f} s to {k160:.3f} s, as k^{slope:.2f}",
        together="; ",
    ),
    Lines(
        "estimators",
        "film",
        "{frames} frames of {pixels} pixels, whole and with 4 % of them black or saturated: ratio of signal to noise "
        "of the background, and processor seconds",
        {"benchmark": "estimators.film", "method": ("rsvddpd", "godec", "rpca-ialm")},
        "{arm}: {clean_psnr:.1f} dB in {clean_seconds:.1f} s, {tampered_psnr:.1f} dB in {tampered_seconds:.1f} s",
        together="; ",
    ),
    _planted(
        "sensing",
        "{n} x {n} of rank {true rank} from {measurements} Gaussian measurements, {rank} columns, condition "
        "{kappa:.1f}, {seeds} seeds: steps to a residual of 1e-6",
        {"part": "sensing", "rank": 4, "kappa": 1.5},
        "{arm}: {steps}",
    ),
    _planted(
        "gains",
        "{p} snapshots of {m} sensors, {n} unknowns, gains within {rho} of 1: relative errors of gains and signal",
        {"part": "gains", "rho": 0.5, "noise": ("30 dB", "10 dB")},
        "{noise}, {arm}: {gains:.3f}, {signal:.3f}",
    ),
    _planted(
        "kronecker",
        "27 of 15^3 entries, a dictionary of {dictionary}: squared error, steps",
        {"part": "kronecker", "noise": ("10 dB", "20 dB", "30 dB"), "dictionary": "10 x 12 x 15 of 15^3"},
        "{noise}, {arm}: {nmse:short}, {steps:.0f}",
    ),
    _planted(
        "paths",
        "{paths} paths in {shape}, {seeds} seeds: how often all are found, and errors by the Cramér-Rao bound",
        {"part": "paths", "snr": (-20, 0, 20)},
        "{snr} dB, {arm}: {detected:%}[, {rmse:.2f}]",
    ),
    _planted(
        "spectra",
        "four microphones, {bins} bins that combine so many signals, white noise, {seeds} seeds: degrees off",
        {"part": "spectra", "snr": -10},
        "{signals} signals, {arm} {angle:.1f}",
    ),
    _planted(
        "transfer",
        "four microphones, 80 to 2000 Hz, a second, white noise, {seeds} seeds: degrees between transfer functions",
        {"part": "transfer", "noise": "white", "arm": ("cw", "svd-direct")},
        "{source}, {snr} dB, {arm}: {angle:.1f}",
    ),
    Lines(
        "estimators",
        "ranks",
        "rank {rank} of 200 x 100, {draws} draws: how often it is found, by the size of the signal over noise",
        {"benchmark": "estimators.ranks", "part": "ranks", "size": (1.0, 3.0)},
        "{noise} noise, {size:.0f}, {arm}: {exact:%}",
        together="; ",
    ),
    Lines(
        "estimators",
        "columns",
        "digits, 1797 x 64, {draws} draws: the error by that of the SVD of the same rank, median",
        {"benchmark": "estimators.ranks", "part": "columns"},
        "{k} columns and rows, {arm} {median:.2f}",
        together="; ",
    ),
    Lines(
        "estimators",
        "unmixing",
        "{pixels} pixels of {bands} bands, three real spectra, median of {seeds} draws: angle to the spectra and error "
        "of abundances, without and with 5 % of the bands spoilt",
        {"benchmark": "estimators.spectra", "part": "unmixing", "arm": ("norms of bands", "squares")},
        "{arm}, {spoilt:%} spoilt {angle:.2f}°, {rmse:.4f}",
        together="; ",
    ),
    Lines(
        "estimators",
        "fermentation",
        "{spectra} spectra of a fermentation, {bands} bands, as mixtures of two: correlation of a share with sugar",
        {"benchmark": "estimators.fermentation"},
        "{arm}, sound bands {sound}: {glucose:.2f}",
        together="; ",
    ),
    Lines(
        "estimators",
        "parts",
        "seconds to one error from the same start, median of {seeds} starts",
        {"benchmark": "estimators.parts", "part": "speed"},
        "{data}, {arm} {seconds:.2f}",
        together="; ",
    ),
    Lines(
        "estimators",
        "parts",
        "seconds to one error from the same start, median of {seeds} starts",
        {"benchmark": "estimators.parts", "part": "speed", "seconds": None},
        "{data}, {arm}",
        together="; ",
        words="not reached: ",
    ),
    Lines(
        "estimators",
        "parts-missing",
        "relative error of entries that were held out, {parts} parts, median of {seeds} draws",
        {"benchmark": "estimators.parts", "part": "missing"},
        "{data}, {missing:%} missing, {arm} {error:.3f}",
        together="; ",
    ),
    Lines(
        "estimators",
        "objects",
        "{frames} frames of {pixels} pixels, people and three squares that move, second half: intersection over union, "
        "medians of {seeds} draws",
        {"benchmark": "estimators.objects", "method": ("rsvddpd", "godec", "rpca-ialm", "rpca-unfolded")},
        "{arm} {overlap:.3f}",
        together="; ",
    ),
    Lines(
        "estimators",
        "denoising",
        "PSNR in dB of images with white noise",
        {
            "benchmark": "estimators.spectra",
            "part": "denoising",
            "arm": ("noisy", "subspace alone", "tv, principal", "tv, bands", "tv, band by band"),
        },
        "{image}, {sigma}/255: {arm} {psnr:.1f}",
        together="; ",
    ),
    Lines(
        "estimators",
        "private",
        "10 features, 3 of them used, coefficients of norm 1.73, median of {seeds} draws: error of the coefficients",
        {
            "benchmark": "estimators.private",
            "part": "errors",
            "arm": ("lasso", "closed form"),
            "epsilon": (10, 100),
            "rows": (10**4, 10**6),
        },
        "epsilon {epsilon}, {rows:,} rows, {arm} {error:.3f}",
        together="; ",
    ),
    Lines(
        "estimators",
        "flights",
        "{rows:,} flights, delay at arrival: share of the variance that is told of others, median of {seeds} splits",
        {"benchmark": "estimators.private", "part": "flights"},
        "epsilon {epsilon}, {arm} {r2:.3f}",
        together="; ",
    ),
    Lines(
        "estimators",
        "audit",
        "lower bound (95 %) of epsilon from {draws:,} reports of the two rows that are easiest to tell apart",
        {"benchmark": "estimators.private", "part": "audit"},
        "epsilon {epsilon}: at least {at least:.2f}",
        together="; ",
    ),
    Lines(
        "estimators",
        "pyriemann",
        "largest difference from pyriemann's TimeDelayCovariances, by the largest entry",
        {"benchmark": "estimators.trials", "part": "pyriemann"},
        "{estimator} {covariances:short}, mean {mean:short}",
        together="; ",
    ),
    Lines(
        "estimators",
        "trials",
        "accuracy on EEG with the split it comes with, order and lag chosen in the training trials; without delays",
        {"benchmark": "estimators.trials", "part": "accuracy", "arm": "augmented-covariance"},
        "{task} ({trials} test trials) {chosen:.3f}, {plain:.3f}",
        together="; ",
    ),
    Lines(
        "estimators",
        "codes",
        "whitened patches of {side} x {side} pixels that were held out, {atoms} atoms, median of {seeds} draws: signal "
        "to noise in dB where 5 % of the code is not zero",
        {"benchmark": "estimators.coding", "part": "codes"},
        "{arm} {5%:.1f}",
        together="; ",
    ),
    Lines(
        "estimators",
        "dictionary-streams",
        "an orthogonal dictionary of {features} atoms planted in rows of which a fifth is not zero, batches of "
        "{batch}, median of {seeds} draws: 1 - the mean cosine of the atoms",
        {"benchmark": "estimators.coding", "part": "stream", "batches": (100, 1000)},
        "{batches:,} batches: stream {stream:short}, whole table {whole table:short}",
        together="; ",
    ),
    Lines(
        "estimators",
        "dictionary-terms",
        "patches of {side} x {side} pixels of photographs by {terms} terms, median of {seeds} draws: PSNR in dB",
        {"benchmark": "estimators.coding", "part": "terms", "arm": ("DCT", "whole table", "stream")},
        "{arm} {psnr:.2f}",
        together="; ",
    ),
    Lines(
        "estimators",
        "forests",
        "{trees} trees, median of {seeds} splits: kappa",
        {
            "benchmark": "estimators.forests",
            "part": "kappa",
            "arm": ("pca", "sparse", "haar", "scikit-learn's RandomForest"),
        },
        "{data}, {arm} {kappa:.4f}",
        together="; ",
    ),
    Lines(
        "estimators",
        "tensor-sweeps",
        "five sweeps of rank {rank} from the same factors, median of {seeds} draws: processor seconds, tensorly's",
        {"benchmark": "estimators.tensors", "part": "sweeps"},
        "{shape} {seconds:.2f}, {tensorly:.2f}",
        together="; ",
    ),
    Lines(
        "estimators",
        "tensor-bases",
        "relative error and processor seconds, tensorly's, median of {seeds} draws",
        {"benchmark": "estimators.tensors", "part": "bases"},
        "{shape}, rank {rank}, noise {noise}: {error:.5f} in {seconds:.3f} s, {theirs:.5f} in {tensorly:.3f} s",
        together="; ",
    ),
    Lines(
        "estimators",
        "tensor-missing",
        "{shape} of rank {rank}, noise of a tenth, median of {seeds} draws: relative error of what was missing",
        {"benchmark": "estimators.tensors", "part": "missing"},
        "{share:%} missing, {arm} {error:.4f} in {sweeps:.0f} sweeps",
        together="; ",
    ),
    Lines(
        "estimators",
        "tensor-functions",
        "demand for electricity by day, half-hour and temperature, {train:,} half-hours to fit and as many to tell, by "
        "its standard deviation, median of {seeds} splits",
        {"benchmark": "estimators.tensors", "part": "functional"},
        "{arm} {rmse:.3f}[, {coverage:%} within 95 %]",
        together="; ",
    ),
    Lines(
        "estimators",
        "covariances",
        "accuracy on EEG, {splits} splits, logistic regression on vectors, covariances not shrunk, and the difference "
        "from affine-invariant vectors of the same splits",
        {
            "benchmark": "estimators.learned",
            "part": "splits",
            "shrinkage": "0.0",
            "arm": ("Bures-Wasserstein", "affine invariant"),
        },
        "{task}, {arm} {accuracy:.3f}[ ({by affine:+.3f} ± {error:.3f})]",
        together="; ",
    ),
    Lines(
        "estimators",
        "clusters",
        "{samples:,} pictures of ten classes, median of {seeds} draws: accuracy of clusters",
        {"benchmark": "estimators.learned", "part": "clusters"},
        "{data}, {arm} {accuracy:.3f}",
        together="; ",
    ),
    Lines(
        "estimators",
        "values",
        "liked or not, {rows:,} ratings of films: area under the curve, and share of values that is kept",
        {"benchmark": "estimators.learned", "part": "values"},
        "{arm} {auc:.4f} with {kept:%}",
        together="; ",
    ),
]
