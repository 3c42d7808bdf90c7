"""Low rank in the Kronecker-factored Fisher metric, the ranks of all matrices chosen together."""

import torch
from torch import Tensor

from eckart.compressors._low_rank import LowRank, fit_low_rank
from eckart.compressors._shared_inputs import exact_dtype, made_of
from eckart.compressors.contract import compressor
from eckart.linalg.low_rank import damped
from eckart.metrics import Metric
from eckart.statistics.moments import bias_mean, covariance
from eckart.statistics.needs import Need, Statistics


@compressor(
    "kfac",
    paper="eckart; the factored Fisher is Martens and Grosse 2015, arXiv 1503.05671; "
    "the storage is Zhao et al. 2025, arXiv 2501.19090",
    expression="Interpolative + bias",
    needs=(Need.INPUT_SECOND_MOMENT, Need.INPUT_MEAN, Need.GRADIENT_SECOND_MOMENT),
    allocation="greedy",
    predicts_loss=True,
)
def kfac(weight: Tensor, statistics: Statistics) -> LowRank:
    """Low rank that raises the loss least to second order, and one solve for the ranks of all matrices.

    Half of the squared error in Metric(E[g g^T], Cov(x)) is the rise of the loss in nats a token, so the errors of
    different matrices can be added; that of a matrix used several times for a label counts as often. Both sides are
    damped by 1e-2 of their mean eigenvalue. A matrix of rank r is stored in r (out + in - r) numbers: r of its rows,
    and the others as combinations of them.
    """
    metric = factored_fisher(statistics, exact_dtype(weight))
    return fit_low_rank(weight, metric, interpolative=True, mean=bias_mean(statistics))


def factored_fisher(statistics: Statistics, dtype: torch.dtype) -> Metric:
    """Metric(u E[g g^T], Cov(x)), both sides damped, which bounds their condition: a short `dtype` will do.

    u is how often the matrix is used for a label, so that half of an error is the rise of the loss of one label.
    """
    gradient = statistics.gradient_second_moment
    moment, mean = statistics.input_second_moment, statistics.input_mean

    def left() -> Tensor:
        return (statistics.uses * damped(statistics.get(Need.GRADIENT_SECOND_MOMENT))).to(dtype)

    def right() -> tuple[Tensor, Tensor | None]:
        return damped(covariance(statistics)).to(dtype), mean  # which the key needs to stay where it is

    if gradient is None or moment is None:
        return Metric.measured(left(), right()[0])  # which refuse
    return Metric.measured(
        made_of(gradient, ("kfac left", statistics.uses, dtype), left),
        made_of(moment, ("kfac right", id(mean), dtype), right)[0],
    )
