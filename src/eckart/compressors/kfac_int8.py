"""Low rank in the Kronecker-factored Fisher metric, stored in 8 bits."""

import torch
from torch import Tensor

from eckart.compressors._int8_low_rank import Int8LowRank, fit_int8_low_rank
from eckart.compressors.contract import compressor
from eckart.compressors.kfac import factored_fisher
from eckart.statistics.moments import bias_mean
from eckart.statistics.needs import Need, Statistics


@compressor(
    "kfac-int8",
    paper="eckart; the factored Fisher is Martens and Grosse 2015, arXiv 1503.05671",
    expression="Chain(Quantized, Quantized) + bias",
    needs=(Need.INPUT_SECOND_MOMENT, Need.INPUT_MEAN, Need.GRADIENT_SECOND_MOMENT),
    allocation="greedy",
    predicts_loss=True,
)
def kfac_int8(weight: Tensor, statistics: Statistics) -> Int8LowRank:
    """The matrices of `kfac` in two factors of 8 bits in groups of 64, and one solve for the ranks of all matrices.

    Half of the squared error, rounding included, is the rise of the loss in nats a token.
    """
    metric = factored_fisher(statistics, torch.promote_types(weight.dtype, torch.float32))
    return fit_int8_low_rank(weight, metric, bias_mean(statistics))
