"""What was asked of a compression, as `report.json` says it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from eckart.report.schema import Rule
from eckart.report.types import Amount, Name, Positive

Share = Annotated[float, Rule(above=0, maximum=1)]
Currency = Literal["bytes", "parameters", "linear-parameters", "macs", "decode-time", "prefill-time"]


@dataclass(frozen=True, kw_only=True)
class Requested:
    """Options of the method.

    Attributes:
        group: Inputs that share a scale; the method's own where it is missing.
        symmetric: Whether no zero-points are stored; as the method does where it is missing.
    """

    group: Positive | None = None
    symmetric: bool | None = None


@dataclass(frozen=True, kw_only=True)
class RequestedSize(Requested):
    """A size.

    Attributes:
        keep: Fraction to keep.
        of: What it is a fraction of.
        group: Inputs that share a scale; the method's own where it is missing.
        symmetric: Whether no zero-points are stored; as the method does where it is missing.
    """

    keep: Share
    of: Currency


@dataclass(frozen=True, kw_only=True)
class RequestedLoss(Requested):
    """A loss.

    Attributes:
        max_loss: Largest loss of quality that was accepted.
        group: Inputs that share a scale; the method's own where it is missing.
        symmetric: Whether no zero-points are stored; as the method does where it is missing.
    """

    max_loss: Amount


@dataclass(frozen=True, kw_only=True)
class RequestedEach(Requested):
    """One size for every matrix.

    Attributes:
        counts: What the size counts, such as rank, bits or percent.
        each: The size.
        group: Inputs that share a scale; the method's own where it is missing.
        symmetric: Whether no zero-points are stored; as the method does where it is missing.
    """

    counts: Name
    each: Positive


Request = RequestedSize | RequestedLoss | RequestedEach
