"""The lines on the cards of estimators and solvers."""

from __future__ import annotations

from benchmarks.pages.cards import Lines

ESTIMATORS: list[Lines] = [
    Lines(
        "estimators",
        "ratings",
        "MovieLens-100K, {folds} folds, clipped to 1..5: root mean squared error and processor seconds; "
        "Surprise's SVD has 0.934 in 1.1 s",
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
]
