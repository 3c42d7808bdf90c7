"""Atomic feature mimicking: principal components of what a matrix, or a table, puts out; ranks by sensitivity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from eckart.compressors._low_rank import LowRank, fit_low_rank
from eckart.compressors.contract import Fitted, compressor
from eckart.compressors.kfac import factored_fisher
from eckart.compressors.lord import lord
from eckart.linalg.low_rank import nested_errors
from eckart.metrics import Metric
from eckart.statistics.needs import Need, Statistics


@dataclass
class Mimicry(LowRank):
    """Principal components of the outputs, their errors those of the loss.

    Attributes:
        losses: squared error of rank 0, 1, ..., min(out, in) in the factored Fisher metric, float64.
    """

    losses: Tensor = field(kw_only=True)

    @property
    def sizes(self) -> Sequence[int]:
        """The ranks that pay, and err less in the loss than every smaller one of them, the first no more than none."""
        ranks = [rank for rank in super().sizes if self.losses[rank] <= self.losses[0]]
        losses = self.losses[ranks]
        before = torch.cat([losses.new_full((1,), torch.inf), losses.cummin(0).values])[:-1]
        return [rank for rank, better in zip(ranks, losses < before, strict=True) if better]

    @property
    def errors(self) -> Tensor:
        return self.losses[list(self.sizes)]

    @property
    def zero_error(self) -> float:
        return float(self.losses[0])

    def build(self, size: int) -> Fitted:
        fitted = super().build(size)
        return Fitted(fitted.structure, fitted.bias, float(self.losses[size]))


@compressor(
    "afm",
    paper="Yu and Wu 2023, AAAI; Yu et al. 2024, arXiv 2405.18146",
    expression="Chain(Dense, Dense) + bias",
    needs=(Need.INPUT_SECOND_MOMENT, Need.INPUT_MEAN, Need.GRADIENT_SECOND_MOMENT),
    allocation="greedy",
    predicts_loss=True,
)
def afm(weight: Tensor, statistics: Statistics) -> Mimicry:
    """Principal components of the outputs, of tables by how often each row is looked up; ranks by their sensitivity.

    A linear map gets the factors of `lord`: W ~ U_r U_r^T W and the bias (I - U_r U_r^T) mu, U_r the top eigenvectors
    of Sigma = E[y y^T] - mu mu^T. A table, whose outputs are its rows e_i with frequencies f_i, becomes E V_r V_r^T,
    V_r the top eigenvectors of E^T diag(f) E. It is not centred: without a place for a bias the mean row would take a
    column of ones, which costs what one more rank does, and the best uncentred table of that rank errs no more.

    How sensitive the model is to each rank of each matrix the first paper measures by running it; here it is the
    second-order rise of the loss, half of the error of these factors in the metric of `kfac`. The training that follows
    in both papers is the user's, as is the ReLU that the second puts between the factors of an MLP, another network.

    The published code departs from the formulas: `afm_mlp.py` and `afm_emb.py` overwrite and double the sums of a batch
    instead of adding to them, and return none; `afm_emb.py` subtracts the mean row along the wrong axis.
    """
    if statistics.lookup:
        family = fit_low_rank(weight, Metric(left=statistics.get(Need.GRADIENT_SECOND_MOMENT)))
    else:
        family = lord(weight, statistics)
    losses = _losses(family, factored_fisher(statistics, torch.float64))
    return Mimicry(weight, family.projection, mean=family.mean, losses=losses)


def _losses(family: LowRank, metric: Metric) -> Tensor:
    """Squared error in a metric of the nested factors of every rank, float64, (min(out, in) + 1,)."""
    weight, projection = family.weight.double(), family.projection
    a, s = projection.analysis, projection.synthesis
    left, right = (s, a.T @ weight) if projection.left else (weight @ a, s.T)
    losses = nested_errors(weight, left, right, metric)
    losses[-1] = 0  # the matrix itself, whatever the rounding
    return losses
