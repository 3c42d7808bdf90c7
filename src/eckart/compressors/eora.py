"""A low-rank branch beside a compressed matrix, fitted in the eigenspace of the inputs."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from eckart.compressors._low_rank import LowRank, fit_low_rank
from eckart.compressors.contract import compressor
from eckart.errors import Refused
from eckart.linalg.low_rank import damped
from eckart.metrics import Metric
from eckart.statistics.moments import centred
from eckart.statistics.needs import Need, Statistics


@compressor(
    "eora",
    paper="Liu et al. 2024, arXiv 2410.21271",
    expression="Sum(<any compressed>, Chain(Dense, Dense))",
    needs=(Need.INPUT_SECOND_MOMENT,),
)
def eora(weight: Tensor, statistics: Statistics) -> LowRank:
    """The best low rank for the error of the outputs: of W itself, or of what a compression left of it.

    B A minimizes E||(W - B A) x||^2 over the calibration tokens, by the eigendecomposition of E[x x^T], and not at the
    inputs' mean alone: nothing is added to a bias. `eckart.compensate` and `eckart compensate` put such a branch beside
    every matrix of a compressed model, with W - What in the place of W, and fit it in other metrics too. The authors'
    code adds its sequences up with weights that fall off by a factor of e, and is 0.1 to 0.6 % above this optimum on
    the calibration text itself (`benchmarks/peers/authors.py`).
    """
    return branches(weight, statistics)


def branches(lost: Tensor, statistics: Statistics, metric: str = "eigen", *, rebiased: bool = False) -> LowRank:
    """The best branches of all ranks: `B A` that minimizes `||L^1/2 (W - What - B A) R^1/2||`.

    Args:
        lost: W - What (out, in).
        statistics: of the inputs that reach What and, for `kfac`, of the gradients of the outputs of W.
        metric: what L and R are; a name in `METRICS`.
        rebiased: whether the bias is fitted too: `(W - What - B A) E[x]` is added to it, and R is centred.

    Raises:
        Refused: there is no such metric, or a statistic it is made of is missing.
    """
    if metric not in METRICS:
        raise Refused(f"unknown metric {metric!r}; there are {', '.join(METRICS)}")
    mean = statistics.get(Need.INPUT_MEAN) if rebiased else None
    return fit_low_rank(lost, METRICS[metric](statistics, mean), mean=mean)


def _moment(statistics: Statistics, mean: Tensor | None) -> Tensor:
    """E[x x^T], (in, in) or its diagonal (in,), without what a bias takes care of."""
    moment = statistics.get(Need.INPUT_SECOND_MOMENT)
    return moment if mean is None else centred(moment, mean)


def _eigen(statistics: Statistics, mean: Tensor | None) -> Metric:
    return Metric.measured(right=_moment(statistics, mean))


def _diagonal(statistics: Statistics, mean: Tensor | None) -> Metric:
    moment = _moment(statistics, mean)
    return Metric.measured(right=moment.diagonal() if moment.ndim == 2 else moment)


def _identity(statistics: Statistics, mean: Tensor | None) -> Metric:
    return Metric()


def _kfac(statistics: Statistics, mean: Tensor | None) -> Metric:
    return Metric.measured(damped(statistics.get(Need.GRADIENT_SECOND_MOMENT)), damped(_moment(statistics, mean)))


METRICS: dict[str, Callable[[Statistics, Tensor | None], Metric]] = {
    "eigen": _eigen,
    "diagonal": _diagonal,
    "svd": _identity,
    "kfac": _kfac,
}
"""What a branch is the best in, by name: the error of the outputs as published, the same with inputs taken for
uncorrelated, the error of the matrix, and that of the loss to second order."""
