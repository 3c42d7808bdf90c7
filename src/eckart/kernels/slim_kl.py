"""Gaussian processes whose kernel is a sum of waves with weights, learned by one or by many who keep their data."""

from __future__ import annotations

from itertools import pairwise
from os import PathLike
from typing import Any, Literal

import numpy as np
from scipy.linalg import cho_solve, solve_triangular

from eckart.arrays import Dense, back
from eckart.errors import Refused
from eckart.kernels._agents import Here, OnWorkers, Traffic, fingerprint, resumed, written
from eckart.kernels._checks import not_negative, standing
from eckart.kernels._multiple import (
    FLOOR,
    Waves,
    grid,
    local_minimum,
    means_of,
    moments,
    part_of,
    terms,
    together,
    waves,
)
from eckart.kernels.contract import kernel_method
from eckart.linalg.solution import Solution
from eckart.scikit.base import Estimator, at_least_one, generator_from, positive
from eckart.scikit.door import RegressorMixin
from eckart.scikit.planted import Planted

NEGLIGIBLE = 1e-10
"""Of the largest weight: below it a weight is zero, and stays so."""


def mm_update(theta: Dense, above: Dense, below: Dense, sparsity: float = 0.0) -> Dense:
    """theta_a sqrt(y^T C^-1 K_a C^-1 y / tr C^-1 K_a): never raises y^T C^-1 y + logdet C.

    logdet C lies below its tangent, and y^T C^-1 y below sum_a theta_a^2 (y^T C^-1 K_a C^-1 y) / theta_a'; the sum of
    the two is least here. Over several data sets with one theta the numerators and the denominators add up. The prior
    theta^(-sparsity / 2) adds sparsity to theta times the denominators, its logarithm lying below its tangent too.

    Args:
        theta: (components + 1,).
        above: theta times the numerators.
        below: theta times the denominators.
        sparsity: 0 or more.
    """
    below = below + np.append(np.full(len(theta) - 1, sparsity), 0.0)
    found = theta * np.sqrt(np.divide(above, below, out=np.zeros_like(above), where=below > 0))
    found[:-1][found[:-1] <= NEGLIGIBLE * found[:-1].max(initial=0.0)] = 0.0
    found[-1] = max(found[-1], FLOOR)
    return found


def _planted(rng: np.random.Generator) -> Planted:
    t = np.arange(80.0)
    clean = np.cos(2 * np.pi * 6 * t / 79 + rng.uniform(0, 6)) + 0.5 * np.cos(2 * np.pi * 15 * t / 79)
    y = clean + 0.1 * rng.standard_normal(80)
    options = {"n_components": 40, "frequencies": "tensor", "width": 0.3}

    def error(fitted: Any) -> Any:
        return np.sqrt(np.square(fitted.predict(t[:, None]) - clean).mean())

    return Planted({"X": t[:, None], "y": y}, error, 0.1, options)


@kernel_method(
    "slim-kl",
    paper="Suwandi, Lin, Yin, Wang and Theodoridis 2023, arXiv 2309.08201",
    kind="regressor",
    gives="targets with standard deviations, and the weights of waves",
    takes="a client of Dask, whose workers keep their parts",
    planted=_planted,
    expression="Sum(Chain(Dense, Diagonal, Dense), Scaled(Identity))",
)
class LinearMultipleKernelGP(RegressorMixin, Estimator):
    """A Gaussian process whose kernel is a sum of waves with sparse weights, learned by a step that never goes wrong.

    k(x, x') = sum_a theta_a prod_p exp(-2 pi^2 w^2 t_p^2) cos(2 pi mu_ap t_p), t = x - x', theta >= 0 being all that
    is learned, with the noise. Each component has a few features (`waves`), so that the evidence needs only their
    moments. "mm" is `mm_update`, "admm" the paper's consensus, whose local problems take the same kind of step in
    place of cones and a commercial solver.

    Weights that only make the evidence greatest fit the noise: of a series of three waves with noise, 200 rows, 59 of
    200 are left, the noise comes out as zero, and errors are three times those of a prior theta^(-sparsity / 2), which
    leaves three.

    Of several agents, rows that follow each other, "mm" and "admm" maximise the sum of their evidences, and lose the
    covariance between them; "mm" sends two numbers a component and agent in each round, "admm" takes many times the
    rounds. "pooled" has each agent send its moments once, (2 features)^2 numbers, and loses nothing. Prediction takes
    the moments of what is left from each agent once. Sums of moments and gradients are not differentially private.

    The paper's grid has the same frequency in all dimensions ("diagonal"): it cannot represent a product of waves of
    different frequencies. "random" is the default.

    Args:
        n_components: a; the next power of a whole number below where "tensor" in more dimensions than one.
        frequencies: "random", uniform between -band and band in each dimension, a wave cos(2 pi mu . t) each; "tensor",
            all combinations of even ones from 0 to band; "diagonal", as published; or an array (components, d).
        band: the highest frequency, in cycles by the range of a feature; None for what the rows can tell in one
            dimension, (n - 1) / 2, and for 0.3 in more.
        width: w, in the same unit; above 0 with few dimensions only.
        sparsity: 0 for none, as published.
        solver: "pooled", "mm" or "admm".
        n_agents: parts of the rows.
        rho: of "admm", by the number of rows.
        quantize: of "admm", bits of what agents send, up to 16, rounded at random; None for float64.
        max_iter: rounds.
        tol: by which the evidence changes in a round, by row, or of "admm" the part by which agents differ.
        client: of `distributed`, on whose workers the agents are; None for this process.
        checkpoint: a file that is written after each round, and from which a fit goes on where it exists.
        random_state: of frequencies and of rounding.

    Attributes:
        weights_: theta (components,), by the variance of y.
        frequencies_: mu (components, d), in cycles by the range of a feature.
        noise_: nu, by the variance of y.
        bytes_: that went between agents and here, in all rounds.
        history_: the cost y^T C^-1 y + logdet C summed over agents, or of "admm" how far they are apart.
    """

    def __init__(
        self,
        n_components: int = 100,
        *,
        frequencies: Any = "random",
        band: float | None = None,
        width: float = 0.0,
        sparsity: float = 1.0,
        solver: Literal["pooled", "mm", "admm"] = "pooled",
        n_agents: int = 1,
        rho: float = 1.0,
        quantize: int | None = None,
        max_iter: int = 500,
        tol: float = 1e-4,
        client: Any = None,
        checkpoint: str | None = None,
        random_state: int | np.random.Generator | np.random.RandomState | None = None,
    ) -> None:
        self.n_components = n_components
        self.frequencies = frequencies
        self.band = band
        self.width = width
        self.sparsity = sparsity
        self.solver = solver
        self.n_agents = n_agents
        self.rho = rho
        self.quantize = quantize
        self.max_iter = max_iter
        self.tol = tol
        self.client = client
        self.checkpoint = checkpoint
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> LinearMultipleKernelGP:
        """Learns weights and noise of rows X (n, d) and targets y (n,); itself."""
        table, target = self._table(X, fit=True, y=y, y_numeric=True)
        n = len(table)
        at_least_one(n_components=self.n_components, n_agents=self.n_agents, max_iter=self.max_iter)
        positive(rho=self.rho, tol=self.tol)
        if self.solver not in ("pooled", "mm", "admm") or self.n_agents > n:
            raise Refused(f"solver={self.solver!r} is none of pooled, mm, admm; or {self.n_agents} agents of {n} rows")
        not_negative(width=self.width, sparsity=self.sparsity)
        if self.quantize is not None:
            at_least_one(quantize=self.quantize)
            if self.solver != "admm" or not 2 <= self.quantize <= 16:
                raise Refused(f"quantize={self.quantize!r} is of solver='admm', from 2 to 16 bits")
        if not isinstance(self.checkpoint, str | PathLike | None):
            raise Refused(f"checkpoint={self.checkpoint!r} is no path of a file")
        rng = generator_from(self.random_state)
        with np.errstate(over="ignore", invalid="ignore"):
            self._low, span = table.min(0), np.ptp(table, axis=0)
        self._mean, unit, u = standing(np.asarray(target, np.float64))
        deviation = float(u.std()) or 1.0
        self._spread = unit * deviation
        if not np.isfinite([*span, self._mean, self._spread]).all():
            raise Refused("X or y spans more than float64 holds: divide it by a power of two")
        self._span = np.where(span > 0, span, 1.0)
        x, u = (table - self._low) / self._span, u / deviation
        d = table.shape[1]
        band = ((n - 1) / 2 or 0.5 if d == 1 else 0.3) if self.band is None else positive(band=self.band)
        self.frequencies_ = grid(self.frequencies, self.n_components, d, band, self.width, rng)
        self._width = float(self.width)
        self._joint = not isinstance(self.frequencies, str) or self.frequencies == "random"
        spectrum = self._waves()
        groups = np.tile(spectrum.groups, 2)
        bounds = np.linspace(0, n, self.n_agents + 1).astype(int)
        parts = [(x[a:b], u[a:b]) for a, b in pairwise(bounds.tolist())]
        agents = Here(parts) if self.client is None else OnWorkers(self.client, parts)
        agents.keep(moments, spectrum)
        traffic = Traffic(agents)
        everyone, count = np.arange(len(groups)), self.n_agents
        if self.solver == "pooled":
            traffic.agents = Here([together(traffic(part_of, [(everyone,)] * count))])
        options = (self.solver, self.width, self.sparsity, self.rho, self.quantize, self.n_agents)
        of = fingerprint(table, target, spectrum.frequencies, spectrum.shares, *options)
        solution = self._rounds(traffic if self.solver != "pooled" else Traffic(traffic.agents), n, rng, of)
        theta = solution.value
        self.weights_, self.noise_ = theta[:-1], float(theta[-1])
        self._on = np.flatnonzero(theta[groups] > 0)
        here = self.solver == "pooled"
        held = together(
            [part_of(traffic.agents.parts[0], self._on)] if here else traffic(part_of, [(self._on,)] * count)
        )
        s = np.sqrt(theta[groups[self._on]])
        self._root = np.linalg.cholesky(s[:, None] * held.gram * s + self.noise_ * np.eye(len(s)))
        self._coefficients = s * cho_solve((self._root, True), s * held.moment) if len(s) else s
        self._scales, self.bytes_ = s, traffic.sent
        self._finished(solution)
        return self

    def predict(self, X: Any, *, return_std: bool = False) -> Any:
        """Targets (n,) of rows, and the standard deviations of what would be measured there, where asked for."""
        x = (self._table(X) - self._low) / self._span
        phi = self._waves().features(x)[:, self._on]
        with np.errstate(over="ignore"):
            means = self._mean + self._spread * (phi @ self._coefficients)
        if not np.isfinite(means).all():
            raise Refused("targets as large as come out are not held by float64: divide y by a power of two")
        if not return_std:
            return back(means, X)
        inner = np.zeros((1, len(phi)))
        if len(self._on):
            inner = solve_triangular(self._root, (phi * self._scales).T, lower=True)
        deviations = self._spread * np.sqrt(self.noise_ * (1 + np.square(inner).sum(0)))
        return back(means, X), back(deviations, X)

    def _waves(self) -> Waves:
        return waves(self.frequencies_, self._width, joint=self._joint)

    def _ended(self, history: list[float], n: int) -> bool:
        if self.solver == "admm":
            return bool(history) and history[-1] <= self.tol
        return len(history) > 1 and abs(history[-2] - history[-1]) <= self.tol * n

    def _rounds(self, traffic: Traffic, n: int, rng: np.random.Generator, of: str) -> Solution[Dense]:
        """theta and nu at the end of the rounds, of a fit with this fingerprint."""
        count, components, seed = len(traffic.agents.parts), len(self.frequencies_), int(rng.integers(2**31))
        theta = np.append(np.full(components, 0.5 / components), 0.5)
        state = {"theta": theta, "local": np.tile(theta, (count, 1)), "price": np.zeros((count, components + 1))}
        at, history = resumed(self.checkpoint, state, of)
        rho = self.rho * n
        while at < self.max_iter and not self._ended(history, n):
            at += 1
            theta = state["theta"]
            if self.solver != "admm":
                found = traffic(terms, [(theta,)] * count)
                above, below = (np.sum([each[i] for each in found], axis=0) for i in (0, 1))
                history.append(float(sum(each[2] for each in found)))
                state["theta"] = mm_update(theta, above, below, self.sparsity)
            else:
                asked = [
                    (
                        state["local"][j],
                        state["price"][j],
                        theta,
                        rho,
                        self.sparsity / count,
                        self.quantize,
                        seed + at * count + j,
                    )
                    for j in range(count)
                ]
                state["local"] = np.stack([means_of(each) for each in traffic(local_minimum, asked)])
                fresh = np.maximum((state["local"] + state["price"] / rho).mean(0), 0.0)
                fresh[-1] = max(fresh[-1], FLOOR)
                state["price"] = state["price"] + rho * (state["local"] - fresh)
                size = max(float(np.linalg.norm(fresh)), FLOOR)
                apart = max(np.linalg.norm(state["local"] - fresh, axis=1).max(), np.linalg.norm(fresh - theta)) / size
                history.append(float(apart))
                state["theta"] = fresh
            written(self.checkpoint, state, at, history, of)
        converged = self._ended(history, n)
        text = f"{len(history)} rounds; the last {'difference' if self.solver == 'admm' else 'gain'} was " + (
            "small enough" if converged else "not small enough: more rounds, or a larger tol"
        )
        theta = state["theta"].copy()
        theta[:-1][theta[:-1] <= 1e-6 * theta[:-1].max(initial=0.0)] = 0.0
        return Solution(theta, converged, at, history, text, traffic.sent)
