"""The texts of a job: one to calibrate on, another to judge by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from eckart.errors import Refused, check_types
from eckart.jobs.calibration import Body, body_of, calibration_body
from eckart.jobs.material import Material, shared
from eckart.report.command import changed, text_name


@dataclass(frozen=True)
class Texts:
    """What the job reads.

    Attributes:
        calibration: see `eckart.jobs.material.calibration_of`.
        evaluation: a file, a folder, or the name of a text in `CORPORA`; "" for no evaluation.
        eval_samples: sequences of the evaluation.
        eval_length: tokens in each.
    """

    calibration: str = "mixture"
    evaluation: str = "news"
    eval_samples: int = 16
    eval_length: int = 256

    def __post_init__(self) -> None:
        check_types(self)
        if self.evaluation and (self.eval_samples < 1 or self.eval_length < 2):
            raise Refused(
                f"eval_samples={self.eval_samples} and eval_length={self.eval_length} must be at least 1 and 2"
            )


def options_of(texts: Texts) -> dict[str, object]:
    """What the command line was told of texts, but for defaults; the length of the sequences is no option of theirs."""
    told = changed(texts)
    told.pop("eval_length", None)
    if "evaluation" in told:
        told["eval"] = text_name(texts.evaluation)
        del told["evaluation"]
    return told


def read_texts(texts: Texts, calibrated: bool = True) -> tuple[Body | None, Body | None]:
    """What to calibrate on and what to judge by, each None where there is none; Refused where both are the same."""
    body = calibration_body(texts.calibration) if calibrated else None
    evaluation = body_of(texts.evaluation) if texts.evaluation else None
    if evaluation and evaluation in (body.values() if isinstance(body, Mapping) else [body]):
        raise Refused(
            f"calibration text {texts.calibration!r} and evaluation text {texts.evaluation!r} are the same: what it "
            "would measure is memory, name another --eval"
        )
    return body, evaluation


def check_overlap(calibration: Material | None, held_out: Material | None, texts: Texts) -> list[str]:
    """Warnings of how much both share; Refused where that is most of the evaluation."""
    if calibration is None or held_out is None:
        return []
    share = shared(calibration, held_out)
    if share > 0.5:
        raise Refused(
            f"calibration text {texts.calibration!r} and evaluation text {texts.evaluation!r} are the same "
            f"({share:.0%} of the evaluation occurs in it): what it would measure is memory, name another --eval"
        )
    if share > 0.01:
        return [f"{share:.1%} of the evaluation text occurs in the calibration text"]
    return []
