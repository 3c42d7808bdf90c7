"""Every family at once: the candidates of several methods for one matrix, their errors in one metric."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor

from eckart.compressors._lazy import Measured, interpolated, middle
from eckart.compressors._low_rank import bias_cost
from eckart.compressors._one_by_one import OneByOne
from eckart.compressors._rescaled import RescaledLazy
from eckart.compressors._shared_inputs import exact_dtype
from eckart.compressors.contract import METHODS, Family, Fitted, compressor
from eckart.compressors.kfac import factored_fisher
from eckart.errors import Refused
from eckart.metrics import Metric
from eckart.statistics.moments import bias_mean
from eckart.statistics.needs import Need, Statistics
from eckart.structures.base import Cost, StructuredMatrix

MEMBERS = ("kfac", "gptq", "sparsegpt", "wanda")
"""One method of each family of structures, the one that measured best."""
EACH = OneByOne, RescaledLazy
"""Families whose candidates have errors in a metric of their own, and are measured in that of all members."""
MOST = 10
"""Candidates of a method whose sizes are fitted one by one."""


class Rivals(Measured):
    """Candidates of all members; what a candidate adds to the mean output is taken back by its bias.

    A candidate that costs more of one thing and less of another may err more than the one before it.

    What was built last stays, up to the bytes of the dense matrix: trials build what was measured before. The metric
    and low-rank decompositions do not; those of all matrices together are several times the model.

    Attributes:
        members: of each candidate, its method and the size there.
        sizes: positions in `members`, in ascending order of bytes.
    """

    def __init__(self, weight: Tensor, statistics: Statistics) -> None:
        super().__init__(weight)
        self._statistics = statistics
        self._mean = bias_mean(statistics)
        self._shelf: OrderedDict[int, tuple[StructuredMatrix, float]] = OrderedDict()
        self._families: dict[str, Family] = {}
        offers: list[tuple[str, int, Cost]] = []
        nested: dict[tuple[str, int], float] = {}
        for name in MEMBERS:
            family = self._family(name)
            bias = bias_cost(weight, None if hasattr(family, "mean") else self._mean)
            step = max(1, -(-len(family.sizes) // MOST)) if isinstance(family, EACH) else 1
            costs = zip(family.sizes, family.costs, strict=True)
            offers += [(name, size, cost + bias) for size, cost in list(costs)[step - 1 :: step]]
            if isinstance(family, EACH):
                self._families[name] = family
            else:
                nested |= {(name, s): e for s, e in zip(family.sizes, family.errors.tolist(), strict=True)}
        offers = sorted((offer for offer in offers if offer[2].bytes < self._dense), key=lambda offer: offer[2].bytes)
        self.members: Sequence[tuple[str, int]] = [(name, size) for name, size, _ in offers]
        self.costs: Sequence[Cost] = [cost for _, _, cost in offers]
        self.sizes: Sequence[int] = range(len(offers))
        self.known = {i: nested[m] for i, m in enumerate(self.members) if m in nested}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_shelf": OrderedDict()}

    @property
    def metric(self) -> Metric:
        return factored_fisher(self._statistics, exact_dtype(self._weight))

    @property
    def _dense(self) -> int:
        """Bytes of the matrix as it is."""
        return self._weight.numel() * self._weight.element_size()

    @property
    def held_bytes(self) -> int:
        """What was built and stays, at most; the statistics are held anyway."""
        return self._dense

    def _family(self, name: str) -> Family:
        return self._families.get(name) or METHODS.find(name).entry(self._weight, self._statistics)

    def candidate(self, size: int) -> StructuredMatrix:
        name, own = self.members[size]
        family = self._family(name)
        return family.candidate(own) if isinstance(family, EACH) else family.build(own).structure

    def sound(self, size: int) -> tuple[StructuredMatrix, float]:
        if size in self._shelf:
            self._shelf.move_to_end(size)
            return deepcopy(self._shelf[size])
        structure, error = super().sound(size)
        self._shelf[size] = deepcopy(structure), error
        while sum(self.costs[other].bytes for other in self._shelf) > self._dense:
            self._shelf.popitem(last=False)
        return structure, error

    def estimates(self) -> Tensor:
        """As `errors`, but of the candidates that were not measured what `interpolated` says from others of the member.

        One of each member at least is measured.
        """
        found = torch.zeros(len(self.sizes), dtype=torch.float64)
        for name, family in self._families.items():
            if isinstance(family, EACH) and family.expected is not None:
                own = {size: i for i, (member, size) in enumerate(self.members) if member == name}
                sizes = sorted(own)
                if sizes and not any(i in self.known for i in own.values()):
                    self.measure(own[middle(sizes)])
                known = {s: self.known[i] for s, i in own.items() if i in self.known}
                found[[own[s] for s in sizes]] = interpolated(sizes, family.expected, known)
        found[list(self.known)] = torch.tensor(list(self.known.values()), dtype=torch.float64)
        return found

    def build(self, size: int) -> Fitted:
        """Candidate number `size`."""
        if not 0 <= size < len(self.members):
            raise Refused(f"there are candidates 0 to {len(self.members) - 1}")
        name, own = self.members[size]
        if name not in self._families:
            return self._family(name).build(own)
        structure, error = self.sound(size)
        bias = None
        if self._mean is not None:
            bias = (self._difference(structure).double() @ self._mean).to(self._weight.dtype)
        return Fitted(structure, bias, error)


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
    mixture is measured too, once as the metric weighs the matrices and once with all worth the same, and the best of
    all trials is returned.
    """
    return Rivals(weight, statistics)
