"""What each rank of a matrix holds of its squared norm."""

from __future__ import annotations

import torch

from eckart.diagnostics.contract import Column, Matrix, Numbers, diagnostic
from eckart.errors import Refused

POINTS = 65
"""Ranks at which the curve is kept."""


@diagnostic(
    "energy",
    paper="Eckart and Young 1936, Psychometrika",
    of="matrix",
    gives={
        "curve_ranks": Column("Ranks at which singular_values and energy are given", kind="integers"),
        "singular_values": Column("The singular value of each of those ranks", kind="numbers"),
        "energy": Column("Share of the squared norm that each of those ranks holds", kind="numbers"),
    },
    noun="energy",
    unmeasured="the singular values themselves; the tests compare them with numpy",
)
def energy_by_rank(matrix: Matrix) -> Numbers:
    """The singular values, and the share of the squared norm that the best approximation of each rank holds.

    One minus the share is the relative squared error of that approximation, the theorem of Eckart and Young. Both are
    kept at up to 65 ranks at even distances, the first and the last among them.

    Raises:
        Refused: a zero matrix has no norm to share out.
    """
    s = matrix.spectrum
    if not s.largest > 0:
        raise Refused("all entries are zero")
    at = torch.linspace(0, s.shorter - 1, min(POINTS, s.shorter)).round().long().to(s.values.device)
    return {
        "curve_ranks": (at + 1).tolist(),
        "singular_values": s.at(at).clamp_min(0).sqrt().tolist(),
        "energy": s.energy()[at].tolist(),
    }
