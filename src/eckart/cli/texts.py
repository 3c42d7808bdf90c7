"""Options of the texts that a model is calibrated on and judged by."""

from __future__ import annotations

from cyclopts import Parameter

from eckart.cli import options as o
from eckart.jobs.texts import Texts

TEXTS = o.options_of(
    Texts,
    {o.DATA: "calibration evaluation eval_samples eval_length"},
    calibration=o.CALIBRATION,
    evaluation=o.EVALUATION,
    eval_samples=o.EVALUATION_SAMPLES,
    eval_length=Parameter(parse=False),
)
"""`Texts` as options; the length of both kinds of sequences is one option, which the commands hand on."""
