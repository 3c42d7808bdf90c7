"""What is said of one matrix: a row of numbers, and notes on those that there cannot be."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from eckart.diagnostics.farms import PowerLaw, farms, fit_power_law, hill
from eckart.diagnostics.marchenko_pastur import bulk
from eckart.errors import Refused
from eckart.linalg.spectrum import Spectrum, spectral_numbers, spectrum

POINTS = 65
"""Positions at which a row keeps the spectrum and the energy curve."""

SHORT_TAIL = 10
"""Values below which the exponent of a tail says little."""


def matrix_row(weight: Tensor, kernel: Tensor, window: int | None, *, seed: int = 0) -> dict[str, Any]:
    """Everything that the spectrum of one matrix tells.

    Args:
        weight: W (out, in).
        kernel: the same, or the kernel of a convolution (out, in, height, width).
        window: side of the square windows of `farms`; None for none.
        seed: of the density of a spectrum that is too large.

    Returns:
        Numbers by column, None where there is none, and `notes`, which say why.
    """
    notes: list[str] = []
    row: dict[str, Any] = {"shape": list(weight.shape), "notes": notes}
    try:
        s = spectrum(weight, seed=seed)
    except Refused as error:
        notes.append(str(error))
        return row
    row |= spectral_numbers(s)
    if not s.largest > 0:
        notes.append("all entries are zero")
        return row
    try:
        noise = bulk(s)
        row |= {"mp_sigma": noise.sigma, "mp_edge": noise.edge, "mp_spikes": noise.spikes, "mp_energy": noise.energy}
    except Refused as error:
        notes.append(f"no Marchenko-Pastur bulk: {error}")
    if s.exact:
        try:
            law = fit_power_law(s.positive)
            row |= {**power_law_numbers(s, law), "alpha_hill": hill(s.positive)}
            if law.count < SHORT_TAIL:
                notes.append(f"alpha is of a tail of {law.count} values and says little")
        except Refused as error:
            notes.append(f"no power law: {error}")
    else:
        notes.append("too large for all singular values: columns of the density are estimates, others are left out")
    if window is not None:
        try:
            row["alpha_farms"] = farms(kernel, (window, window))
        except Refused as error:
            notes.append(f"no alpha_farms: {error}")
    at = torch.linspace(0, s.shorter - 1, min(POINTS, s.shorter)).round().long().to(s.values.device)
    row["curve_ranks"] = (at + 1).tolist()
    row["singular_values"] = s.at(at).clamp_min(0).sqrt().tolist()
    row["energy"] = s.energy()[at].tolist()
    return row


def power_law_numbers(s: Spectrum, law: PowerLaw) -> dict[str, float | int | str]:
    """The columns of a power law, named as WeightWatcher names them.

    `alpha_weighted` is alpha log10 lambda_max and `log_alpha_norm` log10 sum lambda^alpha; `warning` is `over-trained`
    below an alpha of 2 and `under-trained` above 6.
    """
    powers = law.alpha * s.positive.log()
    return {
        "alpha": law.alpha,
        "xmin": law.xmin,
        "xmax": s.largest,
        "D": law.distance,
        "sigma": law.sigma,
        "num_pl_spikes": law.count,
        "alpha_weighted": law.alpha * math.log10(s.largest),
        "log_alpha_norm": float(powers.logsumexp(0)) / math.log(10),
        "warning": "over-trained" if law.alpha < 2 else "under-trained" if law.alpha > 6 else "",
    }
