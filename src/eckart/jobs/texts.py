"""The texts of a job: one to calibrate on, another to judge by."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from eckart.errors import Refused, check_types
from eckart.jobs.calibration import calibration_text, text_of
from eckart.report.command import changed, text_name
from eckart.texts.sequences import overlap, sequences
from eckart.texts.tokenizer import Tokenizer


@dataclass(frozen=True)
class Texts:
    """What the job reads.

    Attributes:
        calibration: see `eckart.jobs.calibration.calibration_tokens`.
        evaluation: a file or the name of a text in `CORPORA`; "" for no evaluation.
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


def read_texts(texts: Texts, calibrated: bool = True) -> tuple[str | dict[str, str] | None, str | None]:
    """Calibration and evaluation text, each None where there is to be none; Refused where they are the same."""
    text = calibration_text(texts.calibration) if calibrated else None
    evaluation_text = text_of(texts.evaluation) if texts.evaluation else None
    if evaluation_text and evaluation_text in (text.values() if isinstance(text, dict) else [text]):
        raise Refused(
            f"calibration text {texts.calibration!r} and evaluation text {texts.evaluation!r} are the same: what it "
            "would measure is memory, name another --eval"
        )
    return text, evaluation_text


def held_out_tokens(text: str | None, tokenizer: Tokenizer, texts: Texts, seed: int) -> Tensor | None:
    """Token sequences of the evaluation; None where there is to be none."""
    return None if text is None else sequences(tokenizer, text, texts.eval_length, texts.eval_samples, seed)


def check_overlap(calibration: Tensor | None, held_out: Tensor | None, texts: Texts) -> list[str]:
    """Warnings of how much the tokens share; Refused where that is most of the evaluation."""
    if calibration is None or held_out is None:
        return []
    shared = overlap(calibration, held_out)
    if shared > 0.5:
        raise Refused(
            f"calibration text {texts.calibration!r} and evaluation text {texts.evaluation!r} are the same "
            f"({shared:.0%} of the evaluation occurs in it): what it would measure is memory, name another --eval"
        )
    if shared > 0.01:
        return [f"{shared:.1%} of the evaluation text occurs in the calibration text"]
    return []
