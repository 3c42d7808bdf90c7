"""A gate for each low-rank path, learned on other data than the path; then half of the paths of every layer stay."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from eckart.adapters.contract import Frozen, Layer, Paths, Start, adapter, check_rank
from eckart.errors import Refused
from eckart.structures.base import StructuredMatrix
from eckart.structures.compose import Chain
from eckart.structures.dense import Dense
from eckart.structures.kronecker import Kronecker

SEARCH = 0.4
"""Share of the steps that is spent on the choice."""
SHARE = 0.5
"""Of the paths of a layer that stay, rounded up."""
RATE = 0.1
"""Of Adam on the gates' logits."""
DECAYS = (0.5, 0.999)
"""Of its moving averages, as in DARTS."""


def layer_of(name: str) -> str:
    """The layer that a matrix belongs to, its name up to the first number; "" where it has none.

    >>> layer_of("model.layers.3.mlp.up_proj"), layer_of("head")
    ('model.layers.3', '')
    """
    parts = name.split(".")
    numbers = [i for i, part in enumerate(parts) if part.isdigit()]
    return ".".join(parts[: numbers[0] + 1]) if numbers else ""


def chosen(gates: Mapping[str, float], share: float = SHARE) -> set[str]:
    """The paths with the largest gates, that share of those of each layer, rounded up; the first of equal ones.

    >>> sorted(chosen({"0.q": 0.2, "0.k": 0.7, "0.v": 0.3, "1.q": 0.1}))
    ['0.k', '0.v', '1.q']
    """
    layers: dict[str, list[str]] = {}
    for name in gates:
        layers.setdefault(layer_of(name), []).append(name)
    kept: set[str] = set()
    for names in layers.values():
        kept |= set(sorted(names, key=lambda name: -gates[name])[: math.ceil(share * len(names))])
    return kept


class Search:
    """Steps in turn for the paths and for the gates, each with the other held; then the choice.

    A batch that a gate learns from moves no path, and the other way round (first-order DARTS: the paths are the inner
    problem, the gates the outer one); what else trains, such as a head, learns in every step. Gates are sigmoids of
    logits, which Adam moves here; what the optimizer did to what was not its turn is taken back. In the end the factors
    of the paths that stay take their gates in, and the other paths are zero for good. Paths whose gates are all 0 or 1,
    as in a file of a finished search, are not searched again.

    Attributes:
        state: logits and their moving averages, and the factors as they were after their last turn; then the gates.
    """

    def __init__(self, paths: Paths, steps: int, frozen: Frozen) -> None:
        self.end = max(1, round(SEARCH * steps))
        self.parts = {name: leaves(path) for name, path in paths.items()}
        self.state: dict[str, Tensor] = {}
        if all(float(gate.detach()) in (0.0, 1.0) for _, gate, _ in self.parts.values()):  # it was chosen before
            self.end = 0
            self.state = {f"{name}/gate": gate.detach().clone() for name, (_, gate, _) in self.parts.items()}
            return
        for name, (b, gate, a) in self.parts.items():
            self.state[f"{name}/b"], self.state[f"{name}/a"] = b.detach().clone(), a.detach().clone()
            for kind in ("logit", "mean", "square"):
                self.state[f"{name}/{kind}"] = torch.zeros_like(gate, dtype=torch.float64, requires_grad=False)

    @torch.no_grad()
    def step(self, done: int) -> None:
        if done <= self.end:
            self._turn(done)
        if done == self.end:
            self._choose()
        if done >= self.end:
            for name, (_, gate, _) in self.parts.items():
                gate.copy_(self.state[f"{name}/gate"])

    def _turn(self, done: int) -> None:
        for name, (b, gate, a) in self.parts.items():
            if done % 2:
                self.state[f"{name}/b"].copy_(b)
                self.state[f"{name}/a"].copy_(a)
            else:
                if gate.grad is None:
                    raise Refused("diffora found no gradient: call step() before gradients are set to zero")
                self._move(name, gate.grad.double(), done // 2)
                b.copy_(self.state[f"{name}/b"])
                a.copy_(self.state[f"{name}/a"])
            gate.copy_(self.state[f"{name}/logit"].sigmoid())

    def _move(self, name: str, gradient: Tensor, turn: int) -> None:
        """Adam on a logit: dloss/dlogit = g (1 - g) dloss/dg."""
        logit, mean, square = (self.state[f"{name}/{kind}"] for kind in ("logit", "mean", "square"))
        gate = logit.sigmoid()
        slope = gate * (1 - gate) * gradient
        mean.lerp_(slope, 1 - DECAYS[0])
        square.lerp_(slope.square(), 1 - DECAYS[1])
        size = (square / (1 - DECAYS[1] ** turn)).sqrt()
        logit.sub_(RATE * mean / (1 - DECAYS[0] ** turn) / size.clamp_min(1e-300))

    def _choose(self) -> None:
        gates = {name: float(self.state[f"{name}/logit"].sigmoid()) for name in self.parts}
        kept = chosen(gates)
        self.state = {}
        for name, (_, gate, a) in self.parts.items():
            self.state[f"{name}/gate"] = torch.full_like(gate, float(name in kept), requires_grad=False)
            a.mul_(gates[name])


def leaves(path: StructuredMatrix) -> tuple[Tensor, Tensor, Tensor]:
    """B (out, r), the gate (1, 1) and A (r, in) of a path, whatever it is scaled by."""
    b, gate, a = path.parameters()
    return b, gate, a


@adapter(
    "diffora",
    paper="Jiang 2025, arXiv 2502.08905",
    expression="Sum(Dense, Chain(Dense*, Kronecker*))",
    parameters=lambda out, columns, rank: rank * (out + columns) + 1,
    scaled=True,
    schedule=Search,
)
def diffora(layer: Layer) -> Start:
    """W + (alpha / r) B g A with a gate g for each matrix; training keeps half of the paths of every layer.

    For the first 40 % of the steps gates are between 0 and 1, and batches serve the paths and the gates in turn; then
    the paths with the larger gates stay, rounded up in each layer, with g = 1, and the others have g = 0. B = 0 and
    g = 1/2 at the start, A as for `lora`. A layer is what the name of a matrix says up to its first number.

    The paper's words on weight sharing leave open what is shared; here the paths keep what they learned in the search.
    """
    out, columns = layer.weight.shape
    rank = check_rank(layer)
    a = (2 * torch.rand(rank, columns, generator=layer.generator, dtype=layer.dtype) - 1) / columns**0.5
    return Start(Chain(Dense(a.new_zeros(out, rank)), Kronecker(a.new_full((1, 1), 0.5), a)))
