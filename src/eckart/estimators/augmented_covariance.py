"""Trials of many channels by the covariance of channels and their delays, as vectors that a linear model can use."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from eckart.arrays import Dense, dense, number, power_of_two
from eckart.errors import Refused
from eckart.estimators.contract import estimator
from eckart.linalg.spd import affine_mean, checked_definite, from_tangent, tangent_vectors
from eckart.scikit.base import Estimator, at_least_one, same_kind
from eckart.scikit.door import TransformerMixin, check_is_fitted
from eckart.scikit.planted import Planted


def delay_embedding(x: Dense, order: int, lag: int, *, circular: bool = False) -> Dense:
    """x(t), x(t - lag), ..., x(t - (order - 1) lag) above each other: (n, C, T) -> (n, order C, T - (order - 1) lag).

    Args:
        x: trials (n, C, T).
        order: blocks.
        lag: samples from one to the next.
        circular: whether time wraps around, so that all T samples are kept.
    """
    if circular:
        return np.concatenate([np.roll(x, i * lag, axis=-1) for i in range(order)], axis=1)
    past = (order - 1) * lag
    length = x.shape[-1] - past
    return np.concatenate([x[..., past - i * lag : past - i * lag + length] for i in range(order)], axis=1)


def covariances(x: Dense) -> Dense:
    """X X^T / T of trials (n, p, T), each signal without its mean."""
    centred = x - x.mean(axis=-1, keepdims=True)
    found: Dense = centred @ np.swapaxes(centred, -1, -2) / x.shape[-1]
    return found


def shrunk(covariance: Dense, samples: int, shrinkage: float | Literal["oas"]) -> Dense:
    """(1 - r) S + r tr(S)/p I of each S (n, p, p); "oas" takes the r of Chen, Wiesel, Eldar and Hero 2010, equation 23.

    Args:
        covariance: S.
        samples: each S is from; the r of "oas" hangs on them.
        shrinkage: r in 0..1, or "oas".
    """
    p = covariance.shape[-1]
    middle = np.trace(covariance, axis1=-2, axis2=-1) / p
    if shrinkage == "oas":
        square = np.square(covariance).mean(axis=(-2, -1))
        spread = (samples + 1) * (square - middle**2 / p)
        r = np.clip(np.where(spread > 0, (square + middle**2) / np.where(spread > 0, spread, 1), 1.0), 0, 1)
    else:
        r = np.full(len(covariance), float(shrinkage))
    found: Dense = (1 - r)[:, None, None] * covariance + (r * middle)[:, None, None] * np.eye(p)
    return found


def _planted(rng: np.random.Generator) -> Planted:
    mixing = np.array([[1.0, 0.5], [0.0, 1.0]])
    white = rng.standard_normal((20, 2, 401))
    # x(t) = A (w(t) + w(t - 1)): the covariance is A A^T times 2 at no delay and 1 at one.
    x = mixing @ (white[..., 1:] + white[..., :-1])
    truth = np.kron([[2.0, 1.0], [1.0, 2.0]], mixing @ mixing.T)
    return Planted({"X": x}, lambda fitted: np.linalg.norm(fitted.mean_ - truth) / np.linalg.norm(truth), 0.1)


@estimator(
    "augmented-covariance",
    paper="Carrara and Papadopoulo 2023, arXiv 2302.04508; Lemm et al. 2005",
    kind="trials",
    gives="tangent vectors, or covariances of channels and delays",
    takes="trials (trials, channels, samples)",
    planted=_planted,
)
class AugmentedCovariance(TransformerMixin, Estimator):
    """Covariances of channels and their delays, in the tangent space at their mean where a linear classifier works.

    With order 1 these are the usual covariances. More delays bring the spectrum in: it is the matrix of the Yule-Walker
    equations. `order` times the channels is soon more than a trial has samples; then the covariance has not full rank,
    and what shrinkage fills in decides: what is singular is refused.

    Args:
        order: blocks: 1 and order - 1 delays.
        lag: samples of a delay.
        shrinkage: towards the identity, "oas" or a share in 0..1.
        output: "tangent", (trials, p (p + 1) / 2) for p = order times channels, or "covariance", (trials, p, p).
        circular: whether delays wrap around the ends of a trial, as those of pyriemann's TimeDelayCovariances do,
            instead of shortening it.

    Attributes:
        mean_: affine-invariant mean of the covariances, (p, p).
        n_iter_, converged_, history_: of the mean.
    """

    def __init__(
        self,
        order: int = 2,
        lag: int = 1,
        *,
        shrinkage: float | Literal["oas"] = "oas",
        output: Literal["tangent", "covariance"] = "tangent",
        circular: bool = False,
    ) -> None:
        self.order = order
        self.lag = lag
        self.shrinkage = shrinkage
        self.output = output
        self.circular = circular

    def fit(self, X: Any, y: Any = None) -> AugmentedCovariance:
        """Finds the mean of trials X (trials, channels, samples); itself."""
        trials = dense(X, "the trials", ndim=3)
        at_least_one(order=self.order, lag=self.lag)
        if self.output not in ("tangent", "covariance"):
            raise Refused(f"output={self.output!r} is neither tangent nor covariance")
        named = isinstance(self.shrinkage, str) and self.shrinkage == "oas"
        if not named and not 0 <= number(self.shrinkage) <= 1:
            raise Refused(f"shrinkage={self.shrinkage!r:.40}: 'oas' or a share in 0..1")
        self.n_channels_, self.unit_ = trials.shape[1], power_of_two(trials)
        if not 2.0**-510 < self.unit_ < 2.0**510:
            raise Refused(f"the covariance of trials as large as {self.unit_:.1e} is beyond floating point: scale them")
        mean = affine_mean(checked_definite(self._covariances(trials), "the covariance of trial"))
        self.mean_ = mean.value * self.unit_**2
        self._finished(mean)
        return self

    @same_kind
    def transform(self, X: Any) -> Any:
        """Vectors (trials, p (p + 1) / 2), or matrices (trials, p, p), of trials (trials, channels, samples)."""
        check_is_fitted(self)
        found = self._covariances(dense(X, "the trials", ndim=3))
        if self.output == "covariance":
            return found * self.unit_**2
        return tangent_vectors(checked_definite(found, "the covariance of trial"), self.mean_ / self.unit_**2)

    @same_kind
    def inverse_transform(self, X: Any) -> Any:
        """Covariances (trials, p, p) of tangent vectors."""
        return from_tangent(np.asarray(X, np.float64), self.mean_ / self.unit_**2) * self.unit_**2

    def _covariances(self, trials: Dense) -> Dense:
        past = (self.order - 1) * self.lag
        if not len(trials) or trials.shape[1] != self.n_channels_ or trials.shape[2] <= past:
            raise Refused(
                f"trials of shape {trials.shape} where {self.n_channels_} channels and more than {past} samples are "
                "needed, (order - 1) lag of them for the delays"
            )
        embedded = delay_embedding(trials / self.unit_, self.order, self.lag, circular=self.circular)
        return shrunk(covariances(embedded), embedded.shape[-1], self.shrinkage)
