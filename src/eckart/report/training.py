"""What `training.json` says: what training did to an adapter, and to the model around it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from eckart.report.schema import schema_of
from eckart.report.types import Amount, Count, Coverage, Name, Positive


@dataclass(frozen=True, kw_only=True)
class Course:
    """How it was trained.

    Attributes:
        steps: Steps of the optimizer.
        rate: Largest learning rate.
        batch: Examples in a step.
        decay: Weight decay.
        clip: Norm that gradients were cut to.
        every: Steps between judgements on validation data.
        seed: Seed of everything random.
    """

    steps: Positive
    rate: Amount
    batch: Positive
    decay: Amount
    clip: Amount
    every: Positive
    seed: int


@dataclass(frozen=True, kw_only=True)
class Examples:
    """Examples by what they were for.

    Attributes:
        learned: Those that were trained on.
        validation: Those that were judged by.
    """

    learned: Count
    validation: Count


@dataclass(frozen=True, kw_only=True)
class Beginning:
    """What making the adapter took, before any training.

    Attributes:
        seconds: Time, statistics included.
        peak_rss_bytes: Largest resident set of the process until then; null where the system does not tell.
        largest_error: The largest relative error of a matrix that the adapter's start brought.
    """

    seconds: Amount
    peak_rss_bytes: Count | None
    largest_error: Amount


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """One judgement on validation data.

    Attributes:
        step: Steps made until then.
        loss: Mean loss over validation tokens.
    """

    step: Count
    loss: float


@dataclass(frozen=True, kw_only=True)
class Perplexity:
    """A measured perplexity.

    Attributes:
        perplexity: Mean over the text.
        stderr: Its standard error; null where it cannot be told.
    """

    perplexity: Amount
    stderr: Amount | None


@dataclass(frozen=True, kw_only=True)
class Forgetting:
    """What the training took from the model on another text.

    Attributes:
        text: Name of the text.
        before: The model before training.
        after: The model with the trained adapter.
    """

    text: str
    before: Perplexity
    after: Perplexity


@dataclass(frozen=True, kw_only=True)
class TrainingSeconds:
    """Wall-clock time of each phase.

    Attributes:
        load: Reading the model and the data.
        start: Making the adapter, and measuring the model before it is trained.
        train: Training.
    """

    load: Amount
    start: Amount
    train: Amount


@dataclass(frozen=True, kw_only=True)
class AdaptedMatrix:
    """One matrix with an adapter beside it.

    Attributes:
        name: Dotted name of the module.
        rank: What the method's rank is for this matrix.
        error: Relative error that the adapter's start brought.
    """

    name: Name
    rank: Count
    error: Amount


@dataclass(frozen=True, kw_only=True)
class TrainingReport:
    """What eckart adapt trained.

    Attributes:
        eckart: Version of eckart that wrote the report.
        model: The model as it was named on the command line.
        data: The file that was learned.
        method: Name of the adapter's method.
        rank: Rank that was asked for.
        alpha: What the branches were scaled by, times the rank; null for no scale.
        name: Name of the adapter.
        include: Patterns of the matrices that were taken; all where there are none.
        exclude: Patterns of the matrices that were left out.
        length: Tokens of an example at most.
        text: On which the perplexity before and after was measured; empty for none.
        training: How it was trained.
        examples: Examples by what they were for.
        parameters: Numbers that were trained.
        start: What making the adapter took, before any training.
        loss: Mean loss of the examples of each step.
        validation: Judgements on validation data, from before the first step on.
        best_step: The step whose values were kept.
        forgetting: What the training took from the model on another text; null where that was not measured.
        seconds: Wall-clock time of each phase.
        matrices: Every matrix that has an adapter.
        command: Words of the command that repeats the run, but for --out.
        coverage: What share of the model's numbers an adapter stands beside, and what was left and why.
        warnings: What a reader of these numbers has to know.
    """

    eckart: Name
    model: Name
    data: str
    method: Name
    rank: Positive
    alpha: Amount | None
    name: Name
    include: Sequence[str]
    exclude: Sequence[str]
    length: Positive
    text: str
    training: Course
    examples: Examples
    parameters: Count
    start: Beginning
    loss: Sequence[float]
    validation: Sequence[Judgement]
    best_step: Count
    forgetting: Forgetting | None
    seconds: TrainingSeconds
    matrices: Sequence[AdaptedMatrix]
    command: Sequence[str] = ()
    coverage: Coverage | None = None
    warnings: Sequence[str] = ()


def training_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) that every `training.json` follows."""
    return schema_of(TrainingReport, "eckart training")
