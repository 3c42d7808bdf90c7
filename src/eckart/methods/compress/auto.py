"""Every family at once: the candidates of several methods for one matrix, their errors in one metric."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from eckart.methods.compress.kfac import factored_fisher
from eckart.methods.lowrank import bias_mean
from eckart.methods.onebyone import OneByOne
from eckart.methods.registry import Family, Fitted, compressor, find
from eckart.statistics.needs import Need, Statistics
from eckart.structures.base import Cost

MEMBERS = ("kfac", "gptq", "sparsegpt")
"""One method of each family of structures, the one that measured best."""
MOST = 10
"""Candidates of a method whose sizes are fitted one by one."""


class Rivals:
    """Candidates of all members; what a candidate adds to the mean output is taken back by its bias.

    Attributes:
        members: of each candidate, its method and the size there.
        sizes: positions in `members`, in ascending order of bytes.
        errors: squared error of each in the factored Fisher metric; a candidate that costs more of one thing and less
            of another may err more than the one before it.
    """

    def __init__(self, weight: Tensor, statistics: Statistics) -> None:
        self._weight = weight
        self._statistics = statistics
        self._mean = bias_mean(statistics)
        self._metric = factored_fisher(statistics, torch.promote_types(weight.dtype, torch.float32))
        self._families = {name: self._family(name) for name in MEMBERS}
        offers: list[tuple[str, int, Cost]] = []
        for name, family in self._families.items():
            bias = _no_cost if self._mean is None or hasattr(family, "mean") else _bias_cost(weight)
            step = max(1, -(-len(family.sizes) // MOST)) if isinstance(family, OneByOne) else 1
            costs = zip(family.sizes, family.costs, strict=True)
            offers += [(name, size, cost + bias) for size, cost in list(costs)[step - 1 :: step]]
        offers.sort(key=lambda offer: offer[2].bytes)
        self.members: Sequence[tuple[str, int]] = [(name, size) for name, size, _ in offers]
        self.costs: Sequence[Cost] = [cost for _, _, cost in offers]
        self.sizes: Sequence[int] = range(len(offers))

    def _family(self, name: str) -> Family:
        return find(name).fit(self._weight, self._statistics)

    @cached_property
    def errors(self) -> Tensor:
        """Float64, (len(sizes),); fits every candidate."""
        families, self._families = self._families, {}
        nested = families["kfac"]
        known = {("kfac", s): e for s, e in zip(nested.sizes, nested.errors.tolist(), strict=True)}
        errors = [known[m] if m in known else self._error(families[m[0]].build(m[1])) for m in self.members]
        return torch.tensor(errors, dtype=torch.float64)

    def _error(self, fitted: Fitted) -> float:
        return float(self._metric.error(self._difference(fitted)))

    def _difference(self, fitted: Fitted) -> Tensor:
        exact = torch.promote_types(self._weight.dtype, torch.float32)
        return self._weight.to(exact) - fitted.structure.to_dense().detach().to(exact)

    @property
    def zero_error(self) -> float:
        return float(self._metric.error(self._weight))

    def build(self, size: int) -> Fitted:
        """Candidate number `size`."""
        if not 0 <= size < len(self.members):
            raise ValueError(f"there are candidates 0 to {len(self.members) - 1}")
        name, own = self.members[size]
        fitted = self._family(name).build(own)
        bias = fitted.bias
        if bias is None and self._mean is not None:
            bias = (self._difference(fitted).double() @ self._mean).to(self._weight.dtype)
        return Fitted(fitted.structure, bias, self._error(fitted))


_no_cost = Cost(0, 0, 0)


def _bias_cost(weight: Tensor) -> Cost:
    return Cost(len(weight), len(weight) * weight.element_size(), 0)


@compressor(
    "auto",
    paper="eckart",
    expression="any",
    needs=(Need.INPUT_SECOND_MOMENT, Need.INPUT_MEAN, Need.GRADIENT_SECOND_MOMENT),
    size="candidate",
    allocation="greedy",
    predicts_loss=True,
)
def auto(weight: Tensor, statistics: Statistics) -> Rivals:
    """The candidates of low-rank, sparse and quantized methods, out of which one solve picks for all matrices.

    All errors are those of the factored Fisher metric of `kfac`. Half of them is the rise of the loss to second order
    for small changes, and changes of different kinds leave that range at different sizes, so in a model with logits the
    errors of each method are scaled by what one trial of it alone measures on calibration text that was held back; the
    mixture is measured too, and the best of all trials is returned.
    """
    return Rivals(weight, statistics)
