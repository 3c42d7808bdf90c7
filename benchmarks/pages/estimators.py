"""The tables of estimators and solvers."""

from __future__ import annotations

from benchmarks.pages.tables import Table

TABLES: dict[str, Table] = {
    "ratings": Table(
        "estimators",
        {"benchmark": "estimators.ratings", "part": "folds"},
        [
            ("", "{arm}"),
            ("root mean square", "{rmse:.4f}"),
            ("standard deviation over folds", "{spread:.4f}"),
            ("mean absolute", "{mae:.4f}"),
            ("seconds", "{seconds:.2f}"),
            ("Surprise's seconds by these", "{times:.1f}"),
        ],
    ),
    "ratings-sweeps": Table(
        "estimators",
        {"benchmark": "estimators.ratings", "part": "sweeps"},
        [
            ("regressions by", "{solver}"),
            ("k = 10", "{k10:.3f} s"),
            ("20", "{k20:.3f} s"),
            ("40", "{k40:.3f} s"),
            ("80", "{k80:.3f} s"),
            ("160", "{k160:.3f} s"),
            ("exponent of k", "{slope:.2f}"),
        ],
    ),
    "film": Table(
        "estimators",
        {"benchmark": "estimators.film"},
        [
            ("", "{arm}"),
            ("dB, whole", "{clean_psnr:.1f}"),
            ("under squares", "{clean_under:.1f}"),
            ("seconds", "{clean_seconds:.1f}"),
            ("dB, tampered", "{tampered_psnr:.1f}"),
            ("under squares", "{tampered_under:.1f}"),
            ("seconds", "{tampered_seconds:.1f}"),
        ],
    ),
}
