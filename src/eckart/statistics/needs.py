"""What a method may ask to know about the data around one matrix."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from enum import Enum

import torch
from torch import Tensor

from eckart.errors import Refused


class Need(str, Enum):
    """Names of the statistics; a member's value is the attribute of `Statistics` that holds it.

    What each is stands there: `INPUT_SECOND_MOMENT` is `Statistics.input_second_moment`, and so on.
    """

    INPUT_SECOND_MOMENT = "input_second_moment"
    INPUT_MEAN = "input_mean"
    INPUT_ABS_MEAN = "input_abs_mean"
    INPUT_ABS_MAX = "input_abs_max"
    GRADIENT_SECOND_MOMENT = "gradient_second_moment"
    FISHER_ROWS = "fisher_rows"
    FISHER_COLUMNS = "fisher_columns"
    INPUT_SAMPLE = "input_sample"
    GRADIENT_PAIRS = "gradient_pairs"


@dataclass
class Statistics:
    """What was measured around one matrix W (out, in) with inputs x and output gradients g, one of each a token.

    Attributes:
        tokens: number of tokens seen.
        input_second_moment: E[x x^T], (in, in).
        input_mean: E[x], (in,).
        input_abs_mean: E|x|, (in,).
        input_abs_max: max |x| over the tokens, (in,); of no table of look-ups.
        gradient_second_moment: E[g g^T], (out, out), g the gradient of the summed loss of a sequence by the output at
            one token, labels sampled from the model itself (the true Fisher).
        fisher_rows: sum over inputs of E[(dloss/dW)^2], (out,), a sequence being one sample, all uses of W in it added
            up.
        fisher_columns: sum over outputs of the same, (in,).
        uses: how often W is used for each label that the loss is about: 1 in a language model; more for a table in
            which one sample looks up several rows. The loss of a label rises by so many times what one token adds. 1
            for a convolution and an expert, whose gradient moments count their uses.
        lookup: W is a table whose rows are looked up, and the roles of inputs and gradients are turned; see `collect`.
        patch: height and width of the patches that x are, channel by channel and row by row; None where x are not.
        input_sample: inputs of tokens at even distances, (at most 256, in); of no table of look-ups.
        takes_bias: whether what a candidate adds to the mean output may be taken back by a bias; see `without_bias`.
        gradient_pairs: x and g of tokens at even distances side by side, (at most 512, in + out): g x^T is what one
            token adds to the gradient of a sequence by W. Of a look-up g, and a one at the row that it is of.

    Around a convolution a token is an output position, x its patch, and a sequence is an image. The gradient moment is
    the sum over the positions of an image, not their mean: then half of an error in Metric(E[g g^T], E[x x^T]) is the
    rise of the loss of an image, also next to a layer with fewer positions (Grosse and Martens 2016, arXiv 1602.01407).

    Tensors are in float64 or float32; a statistic that was not asked for is None.
    """

    tokens: int = 0
    input_second_moment: Tensor | None = None
    input_mean: Tensor | None = None
    input_abs_mean: Tensor | None = None
    input_abs_max: Tensor | None = None
    gradient_second_moment: Tensor | None = None
    fisher_rows: Tensor | None = None
    fisher_columns: Tensor | None = None
    uses: float = 1.0
    lookup: bool = False
    patch: tuple[int, int] | None = None
    input_sample: Tensor | None = None
    takes_bias: bool = True
    gradient_pairs: Tensor | None = None

    def get(self, need: Need) -> Tensor:
        """The statistic in float64; Refused that names it where it was not collected or is not finite."""
        value: Tensor | None = getattr(self, need.value)
        if value is None:
            have = [f.name for f in fields(self) if isinstance(getattr(self, f.name), Tensor)]
            nothing = (
                f"nothing: hand in statistics=Statistics({need.value}=...), or calibration data that reach this matrix"
            )
            raise Refused(f"statistics lack {need.value!r}; they hold {', '.join(have) or nothing}")
        # A finite sum proves finite entries in one pass; only an infinite one can be due to overflow.
        if not (torch.isfinite(value.sum()) or torch.isfinite(value).all()):
            raise Refused(f"statistic {need.value!r} has NaN or Inf entries")
        return value.double()

    def input_moment(self, weight: Tensor) -> Tensor:
        """E[x x^T] (in, in), float64, for a weight (out, in); Refused where it does not fit it, and as for `get`."""
        moment, columns = self.get(Need.INPUT_SECOND_MOMENT), weight.shape[-1]
        if tuple(moment.shape) != (columns, columns):
            raise Refused(
                f"second moment of shape {tuple(moment.shape)} does not fit a weight of shape {tuple(weight.shape)}"
            )
        return moment


def needed(needs: Iterable[Need], other: str = "") -> str:
    """What a method asks to know, in words; `other` is what else it asks for."""
    return ", ".join([*(need.value for need in needs), *([other] if other else [])]) or "nothing"
