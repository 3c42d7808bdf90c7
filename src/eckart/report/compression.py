"""What `report.json` says: what a compression did to a model, and what it cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from eckart.report.requests import Request, Share
from eckart.report.schema import Rule, schema_of
from eckart.report.types import Amount, Count, Coverage, Memory, Name, Positive, Quality, Size, Speed


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """The text the statistics were collected on.

    Attributes:
        text: Name of the text.
        tokens: Tokens read.
        fingerprint: Digest of the tokens.
        sequential: Whether the already compressed blocks stood in front.
        passes: Passes over the text.
        gradient_checkpointing: Whether activations were computed anew in the backward pass.
        mixed_precision: Whether the model computed in bfloat16 while it was measured.
    """

    text: str
    tokens: Count
    fingerprint: str
    sequential: bool
    passes: Count
    gradient_checkpointing: bool
    mixed_precision: bool = False


@dataclass(frozen=True, kw_only=True)
class Seconds:
    """Wall-clock time of each phase.

    Attributes:
        load: Reading the dense model.
        calibration: Reading the calibration text, or having the model write it.
        statistics: The calibration pass.
        fit: Fitting candidates.
        solve: Choosing under the budget.
        build: Building what was chosen.
        sequential: Fitting again with compressed blocks in front.
        heal: Training the compressed blocks.
        rotate: Rotating the residual stream.
        distill: Training the factors end to end.
        write: Writing the model.
        evaluate: Measuring quality and speed.
    """

    load: Amount
    calibration: Amount | None = None
    statistics: Amount
    fit: Amount
    solve: Amount
    build: Amount | None = None
    sequential: Amount | None = None
    heal: Amount | None = None
    rotate: Amount | None = None
    distill: Amount | None = None
    write: Amount
    evaluate: Amount


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Nested error curve, decimated: the error this matrix would have at other sizes.

    Attributes:
        parameters: Stored values, rising.
        bytes: Bytes at each of them, as long as parameters; the size that tells where only the bits for a value vary.
        error: Error at each of them, as long as parameters.
        size: What each of them is, such as `rank 12` or `dense`.
        predicted_kl: KL divergence in nats a token that the metric predicts at each of them, where it predicts one.
    """

    parameters: Annotated[Sequence[Count], Rule(longest=33)]
    bytes: Annotated[Sequence[Count], Rule(longest=33)] | None = None
    error: Annotated[Sequence[Amount], Rule(longest=33)]
    size: Annotated[Sequence[str], Rule(longest=33)] | None = None
    predicted_kl: Annotated[Sequence[Amount], Rule(longest=33)] | None = None


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """One matrix, or matrices that were fitted together.

    Attributes:
        name: Dotted name of the module.
        structure: How it is stored, as a text expression such as Chain(Dense, Dense).
        shape: Extents of the dense matrix, (out, in); leading extents count matrices fitted together.
        parameters: Stored values after compression.
        bytes: Bytes on disk after compression, indices, scales and padding included.
        group: First of the matrices that were fitted together with this one; its error is a share of theirs.
        dense_bytes: Bytes on disk before compression.
        error: Squared error in the metric divided by the squared error of the zero matrix: 0 is exact, 1 is no better
            than nothing. A method that fits another metric can exceed 1.
        predicted_kl: KL divergence in nats a token that the metric predicts for this matrix alone.
        method: Method of the candidate that was chosen.
        rank: Rank, where the structure has one.
        bits: Bits for each stored value, where it is quantized.
        percent: Share of the entries that are stored, in percent.
        ranks: Ranks of the two channel modes of filters, added up.
        kept: Entries stored of every four neighbours in a row.
        terms: Terms of the sum, or of the sum for each column.
        blocks: Blocks on the diagonal.
        experts: Experts that are left of a mixture.
        input_bits: Bits that its inputs are rounded to, token by token, whenever the model runs; null for none.
        dense: Whether the matrix was left dense.
        reason: Why it was left dense where that was not the budget's choice, such as a failed fit.
        curve: Nested error curve, decimated: the error this matrix would have at other sizes.
        spectrum: Singular values in the metric, falling; where there are more than 64, those at evenly spaced
            positions, the first and the last included.
    """

    name: Name
    structure: Name
    shape: Annotated[Sequence[Positive], Rule(shortest=2)]
    parameters: Count
    bytes: Count
    group: str | None = None
    dense_bytes: Positive | None = None
    error: Amount
    predicted_kl: Amount | None = None
    method: str | None = None
    rank: Count | None = None
    bits: Amount | None = None
    percent: Count | None = None
    ranks: Count | None = None
    kept: Count | None = None
    terms: Count | None = None
    blocks: Count | None = None
    experts: Count | None = None
    input_bits: Count | None = None
    dense: bool
    reason: str | None = None
    curve: Curve | None = None
    spectrum: Annotated[Sequence[Amount], Rule(longest=64)] | None = None


@dataclass(frozen=True, kw_only=True)
class Continuations:
    """A text continued by both models.

    Attributes:
        prompt: The prompt.
        before: Continuation by the dense model.
        after: Continuation by the compressed model.
    """

    prompt: str
    before: str
    after: str


@dataclass(frozen=True, kw_only=True)
class Distilled:
    """Training of the factors end to end towards the predictions of the dense model.

    Attributes:
        steps: Steps for each side of the factors.
        kl: KL divergence from the dense model on held-back calibration text, nats a token: before, and after each
            round; never rising.
    """

    steps: Positive
    kl: Sequence[Amount]


@dataclass(frozen=True, kw_only=True)
class Healed:
    """Training of the compressed blocks towards the outputs of the dense ones.

    Attributes:
        steps: Steps for each block.
        loss_before: Squared error of the output of each block, relative to the output, on held-back calibration text,
            before its training and behind the healed blocks.
        loss_after: The same after its training; never more.
    """

    steps: Positive
    loss_before: Sequence[Amount]
    loss_after: Sequence[Amount]


@dataclass(frozen=True, kw_only=True)
class MeasuredSize:
    """One size.

    Attributes:
        keep: Fraction kept, of what requested.of names.
        parameters: Stored values of the whole model.
        perplexity: Perplexity.
    """

    keep: Share
    parameters: Count
    perplexity: Amount


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One trial at the asked size.

    Attributes:
        method: The method, or `mixture`.
        predicted_kl: KL divergence that the metric predicts.
        kl: KL divergence from the dense model, nats a token.
        even: Whether all matrices counted the same for each number they have, instead of as the metric says.
        uniform: Whether every matrix kept the same share.
    """

    method: str
    predicted_kl: Amount
    kl: Amount
    even: bool = False
    uniform: bool = False


@dataclass(frozen=True, kw_only=True)
class CompressionReport:
    """What eckart compress did to a model and what it cost.

    Attributes:
        eckart: Version of eckart that wrote the report.
        model: The model as it was named on the command line.
        method: Name of the method, or auto.
        allocation: How the budget was shared out: uniform, greedy, exact, threshold, farms or influence; null where
            nothing was shared out.
        seed: Seed of everything random.
        requested: What was asked for.
        calibration: The text the statistics were collected on; null for a method that needs none.
        size: Sizes, measured on what was written.
        quality: Quality on held-out text; null when no evaluation was asked for.
        speed: Speeds measured in turns; null when speed was not measured.
        memory: Memory of the process.
        seconds: Wall-clock time of each phase.
        sites: Every matrix that was considered, in the order of the model.
        warnings: What a reader of these numbers has to know.
        samples: A text continued by both models.
        distill: Training of the factors end to end towards the predictions of the dense model.
        heal: Training of the compressed blocks towards the outputs of the dense ones.
        history: Perplexities measured at other sizes on the same text.
        trials: What methods measured alone, and together, on calibration text that was held back.
        command: Words of the command that repeats the run, but for --out.
        coverage: What share of the model's numbers was looked at, and what was left and why.
    """

    eckart: Name
    model: Name
    method: Name
    allocation: str | None
    seed: int
    requested: Request
    calibration: Calibration | None
    size: Size
    quality: Quality | None
    speed: Speed | None
    memory: Memory
    seconds: Seconds
    sites: Sequence[Matrix]
    warnings: Sequence[str]
    samples: Continuations | None = None
    distill: Distilled | None = None
    heal: Healed | None = None
    history: Sequence[MeasuredSize] = ()
    trials: Sequence[Trial] = ()
    command: Sequence[str] = ()
    coverage: Coverage | None = None


def schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) that every `report.json` follows."""
    return schema_of(CompressionReport, "eckart report")
