"""What `train.json` says: how a model was trained, and what it lost on the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eckart.report.schema import schema_of
from eckart.report.training import Course, Examples, Judgement, TrainingSeconds
from eckart.report.types import Amount, Count, Coverage, Name, Positive


@dataclass(frozen=True, kw_only=True)
class Spectra:
    """Spectra of the matrices at one judgement, in the mean over up to sixteen of them.

    Attributes:
        step: Steps made until then.
        norm: Largest singular value.
        stable_rank: Squared Frobenius norm over the squared largest singular value.
    """

    step: Count
    norm: Amount
    stable_rank: Amount


@dataclass(frozen=True, kw_only=True)
class LearningReport:
    """What eckart train trained.

    Attributes:
        eckart: Version of eckart that wrote the report.
        model: The model as it was named on the command line.
        scratch: Whether its weights were drawn anew.
        data: The file that was learned.
        optimizer: Name and options of the optimizer of the matrices.
        parametrization: Name and options of what trained in the places of matrices; empty for the matrices.
        length: Tokens of an example at most.
        training: How it was trained.
        examples: Examples by what they were for.
        parameters: Numbers that were trained.
        moved_by: Numbers by the rule that moved them.
        optimizer_bytes: What the optimizer remembered in the end.
        peak_rss_bytes: Largest resident set of the process; null where the system does not tell.
        loss: Mean loss of the examples of each step.
        rate: Learning rate of each step.
        validation: Judgements on validation data, from before the first step on.
        spectra: Of the matrices, at the judgements.
        best_step: The step whose values were kept.
        seconds: Wall-clock time of each phase.
        command: Words of the command that repeats the run, but for --out.
        coverage: What share of the model's numbers the parametrization stands for, and what was left and why; null
            where there is none.
        warnings: What a reader of these numbers has to know.
    """

    eckart: Name
    model: Name
    scratch: bool
    data: str
    optimizer: Name
    parametrization: str
    length: Positive
    training: Course
    examples: Examples
    parameters: Count
    moved_by: Mapping[str, int]
    optimizer_bytes: Count
    peak_rss_bytes: Count | None
    loss: Sequence[float]
    rate: Sequence[float]
    validation: Sequence[Judgement]
    spectra: Sequence[Spectra]
    best_step: Count
    seconds: TrainingSeconds
    command: Sequence[str] = ()
    coverage: Coverage | None = None
    warnings: Sequence[str] = ()


def learning_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) that every `train.json` follows."""
    return schema_of(LearningReport, "eckart train")
