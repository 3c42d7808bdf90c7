"""What `diagnosis.json` says of a model, but for the columns of its diagnostics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from eckart.report.schema import Rule
from eckart.report.types import Amount, Coverage, Name, Positive

Share = Annotated[float, Rule(above=0, maximum=1)]
Perplexity = Annotated[float, Rule(minimum=1)]
Place = Literal["file", "facts", "table", "map"]
Unit = Literal["", "share", "ratio", "rank", "nats"]
Kind = Literal["number", "integer", "boolean", "string", "numbers", "integers"]


@dataclass(frozen=True, kw_only=True)
class Text:
    """The text for hidden states and curves.

    Attributes:
        name: Its name.
        tokens: Tokens read.
    """

    name: str
    tokens: Positive


@dataclass(frozen=True, kw_only=True)
class Size:
    """Of the whole model.

    Attributes:
        parameters: Stored values.
        linear_parameters: Those of the matrices that may be compressed.
        bytes: Bytes.
    """

    parameters: int
    linear_parameters: int
    bytes: int


@dataclass(frozen=True, kw_only=True)
class Description:
    """What a column is, for a reader that has never heard of it.

    Attributes:
        diagnostic: The diagnostic that gives it.
        title: What it is called in a heading.
        about: What it is.
        kind: Its type.
        unit: A share of a whole, a ratio to something of its kind, a rank out of the shorter side, nats, or none.
        place: How far it goes on the page.
        mean: Whether its mean is in the summary.
        extremes: Whether the matrices that have least and most of it are worth naming.
    """

    diagnostic: Name
    title: Name
    about: Name
    kind: Kind
    unit: Unit
    place: Place
    mean: bool
    extremes: bool


@dataclass(frozen=True, kw_only=True)
class Columns:
    """What the columns are that diagnostics give, by name.

    Attributes:
        matrices: Those of matrices.
        hidden_states: Those of hidden states.
    """

    matrices: Mapping[str, Description]
    hidden_states: Mapping[str, Description]


@dataclass(frozen=True, kw_only=True)
class Curve:
    """What lower ranks would cost, from the smallest to the dense matrix.

    Attributes:
        size: What each is: a rank, or dense.
        parameters: Stored values.
        bytes: Bytes.
        macs: Multiply-adds a token.
        predicted_kl: Rise of the loss to second order, nats a token.
    """

    size: Sequence[str]
    parameters: Sequence[int]
    bytes: Sequence[int]
    macs: Sequence[int]
    predicted_kl: Sequence[float]


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """One matrix, its columns beside what is named here. A number that there cannot be is missing or null.

    Attributes:
        name: Dotted name of the module.
        layer_type: What kind of module holds it.
        shape: (out, in); of an embedding (rows, dimension).
        notes: Why numbers are missing, or say little.
        curve: What lower ranks would cost.
    """

    name: Name
    layer_type: Literal["dense", "embedding", "conv2d"]
    shape: Annotated[Sequence[Positive], Rule(shortest=2, longest=2)]
    notes: Sequence[str]
    curve: Curve | None = None


@dataclass(frozen=True, kw_only=True)
class HiddenStates:
    """One layer, its columns beside what is named here, which are means over the sequences.

    Attributes:
        layer: 0 is the embedding.
        tokens: In a sequence.
        dimension: Of a state.
    """

    layer: Annotated[int, Rule(minimum=0)]
    tokens: int
    dimension: int


@dataclass(frozen=True, kw_only=True)
class PerplexityPair:
    """Perplexity on the text of a measurement.

    Attributes:
        before: Of the dense model.
        after: Of the compressed model.
    """

    before: Perplexity
    after: Perplexity


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One size that was measured.

    Attributes:
        keep: Fraction kept, of what of names.
        of: The currency.
        predicted_kl: Rise of the loss to second order, nats a token, of the sizes that the curves choose.
        kl: KL divergence of the compressed from the dense model on text that the curves have not seen, nats a token.
        perplexity: On the same text.
        tokens: Predicted tokens it was measured on.
    """

    keep: Share
    of: str
    predicted_kl: Amount
    kl: Amount
    perplexity: PerplexityPair
    tokens: Positive


@dataclass(frozen=True, kw_only=True)
class DiagnosisReport:
    """What eckart diagnose found in a model.

    Attributes:
        eckart: Version of eckart that wrote it.
        model: The model as it was named on the command line.
        against: The model it was compared with.
        text: The text for hidden states and curves.
        seed: Seed of everything random.
        window: Side of the windows that are laid over matrices; null where none is large enough.
        size: Of the whole model.
        summary: Means of columns over all matrices that have them.
        matrices: One entry for each matrix.
        hidden_states: One entry for each layer; empty without a text.
        warnings: What did not go as it should.
        seconds: Wall clock.
        measured: One entry for each size that --measure names, from the largest down.
        columns: What the columns are that diagnostics give.
        command: Words of the command that repeats the diagnosis, but for --out.
        coverage: What share of the model's numbers was looked at, and what was left and why.
        compress: Words of the command that compresses the model on the text of the curves, but for its budget and
            --out; missing where there are no curves, or where the model is an adapter.
    """

    eckart: Name
    model: Name
    against: str | None
    text: Text | None
    seed: int
    window: int | None
    size: Size
    summary: Mapping[str, float]
    matrices: Annotated[Sequence[Matrix], Rule(shortest=1)]
    hidden_states: Sequence[HiddenStates]
    warnings: Sequence[str]
    seconds: Amount
    measured: Sequence[Measured] = ()
    columns: Columns | None = None
    command: Sequence[str] = ()
    coverage: Coverage | None = None
    compress: Sequence[str] = ()
