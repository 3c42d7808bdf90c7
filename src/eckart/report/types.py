"""What reports of several jobs have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from eckart.report.schema import Rule

Name = Annotated[str, Rule(shortest=1)]
Count = Annotated[int, Rule(minimum=0)]
Positive = Annotated[int, Rule(minimum=1)]
Amount = Annotated[float, Rule(minimum=0)]
Fraction = Annotated[float, Rule(minimum=0, maximum=1)]


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Memory of the process.

    Attributes:
        peak_rss_bytes: Largest resident set, mapped weights included; null where the system does not tell.
    """

    peak_rss_bytes: Count | None


@dataclass(frozen=True, kw_only=True)
class CountPair:
    """A whole number of the dense model and of the compressed one.

    Attributes:
        before: The dense model.
        after: The compressed model.
    """

    before: Count
    after: Count


@dataclass(frozen=True, kw_only=True)
class RatePair:
    """A rate of the dense model and of the compressed one.

    Attributes:
        before: The dense model.
        after: The compressed model.
    """

    before: Amount
    after: Amount


@dataclass(frozen=True, kw_only=True)
class Size:
    """Sizes, measured on what was written.

    Attributes:
        parameters: Stored values of the whole model.
        linear_parameters: Stored values of the matrices that may be compressed.
        bytes: Bytes of the weights on disk, without the names and places before them in a file.
        macs_per_token: Multiply-adds for one token.
    """

    parameters: CountPair
    linear_parameters: CountPair
    bytes: CountPair
    macs_per_token: CountPair


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A measured mean.

    Attributes:
        mean: Mean over the text.
        stderr: Standard error of the mean; null where it cannot be told.
    """

    mean: float
    stderr: Amount | None


@dataclass(frozen=True, kw_only=True)
class Quality:
    """Quality on held-out text.

    Attributes:
        metric: What was measured, such as perplexity.
        text: Name of the text.
        tokens: Tokens scored.
        before: The dense model; null where there was none to compare with.
        after: The compressed model.
        kl: Measured KL divergence from the dense model, nats a token.
        top1_agreement: Fraction of positions where both models rank the same token first.
        predicted_kl: KL divergence the metric predicted, nats a token.
    """

    metric: Name
    text: str
    tokens: Count
    before: Estimate | None
    after: Estimate
    kl: Amount | None
    top1_agreement: Fraction | None
    predicted_kl: Amount | None = None


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Speeds measured in turns; those of a phase are of the round whose ratio is the median.

    Attributes:
        prefill_tokens_per_second: Tokens a second read from a prompt.
        decode_tokens_per_second: Tokens a second written one by one.
        threads: Threads used.
        dtype: Type of the weights, such as float32.
        prefill_ratio: Ratio of the reading speeds, after over before.
        decode_ratio: Ratio of the writing speeds, after over before.
    """

    prefill_tokens_per_second: RatePair
    decode_tokens_per_second: RatePair
    threads: Positive
    dtype: str
    prefill_ratio: Amount | None = None
    decode_ratio: Amount | None = None


@dataclass(frozen=True, kw_only=True)
class Part:
    """Some of the numbers of a model, and all of them.

    Attributes:
        taken: Those that were looked at.
        total: All of them.
    """

    taken: Count
    total: Count


@dataclass(frozen=True, kw_only=True)
class CoveredMatrices:
    """Matrices whose names differ in numbers only, and which have one shape and one fate.

    Attributes:
        name: Name of them all, with * for a number.
        count: How many there are.
        shape: Shape of each, as its module stores it.
        parameters: Numbers in all of them.
        taken: Whether they were looked at.
        why: What leaves them as they are; empty where they were looked at.
    """

    name: Name
    count: Positive
    shape: Sequence[int]
    parameters: Count
    taken: bool
    why: str


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """What share of a model's numbers was looked at, and what was left and why.

    Attributes:
        sentence: The same in words.
        parameters: Of all numbers of the model.
        linear_parameters: Of those in linear maps that are neither embeddings nor the head.
        vectors: Numbers that are in no matrix, such as biases and norms, which are left as they are.
        matrices: Every matrix, those of one kind together; of tied ones the first.
    """

    sentence: str
    parameters: Part
    linear_parameters: Part
    vectors: Count
    matrices: Sequence[CoveredMatrices]
