"""The numbers that sum a spectrum up."""

from __future__ import annotations

import math

from eckart.diagnostics.contract import Column, Matrix, Numbers, diagnostic
from eckart.linalg.spectrum import Spectrum, entropy


def _doubt(matrix: Matrix, numbers: Numbers) -> str:
    if numbers["exact"]:
        return ""
    return "too large for all singular values: columns of the density are estimates, others are left out"


@diagnostic(
    "spectrum",
    paper="Roy and Vetterli 2007, EUSIPCO; Martin, Peng and Mahoney 2021, arXiv 2002.06716",
    of="matrix",
    gives={
        "N": Column("Longer side", kind="integer", place="file"),
        "M": Column("Shorter side", kind="integer", place="file"),
        "Q": Column("N / M", place="file"),
        "exact": Column(
            "Whether all singular values were computed; else columns are estimates from a density",
            kind="boolean",
            place="file",
        ),
        "num_evals": Column("Eigenvalues, M", kind="integer", place="file"),
        "sv_max": Column("Largest singular value", title="largest", place="table"),
        "sv_min": Column("Smallest singular value; null where not exact", title="smallest", place="file"),
        "lambda_max": Column("Largest eigenvalue, sv_max squared", place="file"),
        "norm": Column("Squared Frobenius norm", place="file"),
        "log_norm": Column("Its logarithm, base 10", place="file", mean=True),
        "spectral_norm": Column("Largest eigenvalue, as WeightWatcher calls it", place="file"),
        "log_spectral_norm": Column("Its logarithm, base 10", place="file", mean=True),
        "stable_rank": Column("norm / lambda_max", unit="rank", short="stable\nrank", mean=True, extremes=True),
        "matrix_rank": Column(
            "Singular values above N eps sv_max, eps that of float64",
            kind="integer",
            unit="rank",
            title="rank of the matrix",
            place="table",
        ),
        "rank_loss": Column("M - matrix_rank", kind="integer", place="file"),
        "entropy": Column("Entropy of the eigenvalues scaled to sum to 1, by ln matrix_rank", place="facts", mean=True),
        "effective_rank": Column(
            "exp of the entropy of the singular values scaled to sum to 1", unit="rank", short="effective\nrank"
        ),
        "rank_90": Column(
            "Least rank that holds 90 % of the squared norm",
            kind="integer",
            unit="rank",
            title="rank for 90 %",
            short="90 %",
        ),
        "rank_99": Column(
            "Least rank that holds 99 % of it", kind="integer", unit="rank", title="rank for 99 %", place="facts"
        ),
        "condition": Column("sv_max / sv_min; null where that is infinite or unknown", place="table"),
    },
    doubt=_doubt,
)
def spectrum_of(matrix: Matrix) -> Numbers:
    """Norms, ranks and entropies of the singular values, under WeightWatcher's names where it has them.

    `norm` is the squared Frobenius norm and `spectral_norm` the largest eigenvalue of W W^T, as there; `entropy` is
    -sum p ln p / ln rank with p = s^2 / sum s^2. `effective_rank` is exp(-sum p ln p) with p = s / sum s (Roy and
    Vetterli 2007), `rank_90` the least rank that holds 90 % of the squared norm, `condition` the ratio of the extreme
    singular values. None is what cannot be said: of a zero matrix, of a density, or a condition that is infinite.
    """
    return spectral_numbers(matrix.spectrum)


def spectral_numbers(s: Spectrum) -> dict[str, float | int | bool | None]:
    """What a spectrum comes to, by column of `spectrum_of`."""
    largest, norm, energy = s.largest, s.norm, s.energy()
    some = largest > 0
    smallest = float(s.values[-1]) if s.exact else None
    full = s.exact and some and s.rank == s.shorter
    count = s.rank if s.exact else s.shorter
    return {
        "N": s.longer,
        "M": s.shorter,
        "Q": s.longer / s.shorter,
        "exact": s.exact,
        "num_evals": s.shorter,
        "sv_max": math.sqrt(largest),
        "sv_min": None if smallest is None else math.sqrt(smallest),
        "lambda_max": largest,
        "norm": norm,
        "log_norm": math.log10(norm) if some else None,
        "spectral_norm": largest,
        "log_spectral_norm": math.log10(largest) if some else None,
        "stable_rank": norm / largest if some else None,
        "matrix_rank": s.rank if s.exact else None,
        "rank_loss": s.shorter - s.rank if s.exact else None,
        "entropy": (entropy(s.values, s.weights) / math.log(count) if count > 1 else 0.0) if some else None,
        "effective_rank": math.exp(entropy(s.values.sqrt(), s.weights)) if some else None,
        "rank_90": int((energy < 0.9).sum()) + 1 if some else None,
        "rank_99": int((energy < 0.99).sum()) + 1 if some else None,
        "condition": math.sqrt(largest / float(s.values[-1])) if full else None,
    }
