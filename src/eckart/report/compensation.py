"""What `compensation.json` says: what low-rank branches beside compressed matrices give back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from eckart.report.schema import schema_of
from eckart.report.types import Amount, Count, Fraction, Name, Positive


@dataclass(frozen=True, kw_only=True)
class CompensationText:
    """The text that the branches were fitted on.

    Attributes:
        text: Name of the text.
        tokens: Tokens read.
        fingerprint: Digest of the tokens.
    """

    text: str
    tokens: Count
    fingerprint: str


@dataclass(frozen=True, kw_only=True)
class Extent:
    """How large a model is.

    Attributes:
        parameters: Stored values of the whole model.
        bytes: Bytes of its weights.
    """

    parameters: Count
    bytes: Count


@dataclass(frozen=True, kw_only=True)
class Extents:
    """How large the models are.

    Attributes:
        dense: The model that was compressed.
        before: The compressed model.
        after: The compensated model.
    """

    dense: Extent
    before: Extent
    after: Extent


@dataclass(frozen=True, kw_only=True)
class Standing:
    """Quality of one model on held-out text.

    Attributes:
        perplexity: Mean over the text.
        stderr: Its standard error; null where it cannot be told.
        kl: KL divergence from the dense model, nats a token.
        top1_agreement: Fraction of positions where it ranks the same token first as the dense model.
    """

    perplexity: Amount
    stderr: Amount | None
    kl: Amount | None = None
    top1_agreement: Fraction | None = None


@dataclass(frozen=True, kw_only=True)
class Standings:
    """Quality of the models on held-out text.

    Attributes:
        text: Name of the text.
        tokens: Tokens scored.
        dense: The model that was compressed.
        before: The compressed model.
        after: The compensated model.
    """

    text: str
    tokens: Count
    dense: Standing
    before: Standing
    after: Standing


@dataclass(frozen=True, kw_only=True)
class CompensatedMatrix:
    """One compressed matrix.

    Attributes:
        name: Dotted name of the module.
        rank: Rank of the branch; 0 for none.
        before: Mean squared error of the layer's output over the calibration tokens, relative to that of the zero
            matrix, without the branch.
        after: The same with the branch.
        bias: Whether the layer's bias was fitted again.
    """

    name: Name
    rank: Count
    before: Amount
    after: Amount
    bias: bool


@dataclass(frozen=True, kw_only=True)
class CompensationSeconds:
    """Wall-clock time of each phase.

    Attributes:
        load: Reading both models.
        calibration: Reading the calibration text, or having the dense model write it.
        compensate: Measuring inputs and fitting the branches.
        evaluate: Measuring quality.
    """

    load: Amount
    calibration: Amount
    compensate: Amount
    evaluate: Amount


@dataclass(frozen=True, kw_only=True)
class CompensationReport:
    """What eckart compensate gave back to a compressed model.

    Attributes:
        eckart: Version of eckart that wrote the report.
        model: The compressed model as it was named on the command line.
        against: The model that was compressed.
        rank: Rank that was asked for.
        metric: In which the branches are the best.
        allocation: How ranks were shared out: uniform or greedy.
        seed: Seed of everything random.
        calibration: The text that the branches were fitted on.
        size: How large the models are.
        quality: Quality of the models on held-out text; null when no evaluation was asked for.
        matrices: Every matrix that was considered.
        seconds: Wall-clock time of each phase.
        warnings: What a reader of these numbers has to know.
        command: Words of the command that repeats the run, but for --out.
    """

    eckart: Name
    model: Name
    against: Name
    rank: Positive
    metric: Name
    allocation: Name
    seed: int
    calibration: CompensationText
    size: Extents
    quality: Standings | None
    matrices: Sequence[CompensatedMatrix]
    seconds: CompensationSeconds
    warnings: Sequence[str]
    command: Sequence[str] = ()


def compensation_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) that every `compensation.json` follows."""
    return schema_of(CompensationReport, "eckart compensation")
