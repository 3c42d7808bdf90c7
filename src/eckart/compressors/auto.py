"""Every family at once: the candidates of several methods for one matrix, their errors in one metric."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import accumulate
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
GROUPS = {"gptq": (64, 128, 256)}
"""Of a member that quantizes, how many inputs may share a scale; each is a family of candidates of its own."""


@dataclass(frozen=True)
class Offer:
    """A candidate of a member.

    Attributes:
        name: of the member.
        size: there.
        group: inputs that share a scale, where that is chosen too; None otherwise.
        cost: of the candidate and its bias.
        error: where the member knows that of all its candidates; None where each has to be measured.
        expected: what the error is about proportional to, where it has to be measured.
    """

    name: str
    size: int
    group: int | None
    cost: Cost
    error: float | None
    expected: float = 1.0


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
        self._families: dict[tuple[str, int | None], OneByOne | RescaledLazy] = {}
        offers = [offer for name in MEMBERS for offer in self._offered(name) if offer.cost.bytes < self._dense]
        self._offers = sorted(offers, key=lambda offer: offer.cost.bytes)
        self.members: Sequence[tuple[str, int]] = [(offer.name, offer.size) for offer in self._offers]
        self.costs: Sequence[Cost] = [offer.cost for offer in self._offers]
        self.sizes: Sequence[int] = range(len(self._offers))
        self.known = {i: offer.error for i, offer in enumerate(self._offers) if offer.error is not None}

    def _offered(self, name: str) -> list[Offer]:
        """The candidates of a member; of those to be measured each is expected to err less than all of fewer bytes."""
        columns, offers = self._weight.shape[1], list[Offer]()
        groups = dict.fromkeys(min(group, columns) for group in GROUPS[name]) if name in GROUPS else (None,)
        for group in groups:
            family = self._family(name, group)
            bias = bias_cost(self._weight, None if hasattr(family, "mean") else self._mean)
            costs = list(zip(family.sizes, family.costs, strict=True))
            if not isinstance(family, EACH):
                errors: list[float] = family.errors.tolist()
                return [Offer(name, s, group, c + bias, e) for (s, c), e in zip(costs, errors, strict=True)]
            assert family.expected is not None
            self._families[name, group] = family
            step, worse = max(1, -(-len(costs) // MOST)), 1.0 if group is None else math.log1p(group)
            offers += [
                Offer(name, s, group, c + bias, None, worse * family.expected(s)) for s, c in costs[step - 1 :: step]
            ]
        offers.sort(key=lambda offer: offer.cost.bytes)
        least = accumulate((offer.expected for offer in offers), min, initial=math.inf)
        return [offer for offer, before in zip(offers, least, strict=False) if offer.expected < before]

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

    def _family(self, name: str, group: int | None) -> Family:
        options = {} if group is None else {"group": group}
        known = self._families.get((name, group))
        return known or METHODS.find(name).taking(options).entry(self._weight, self._statistics)

    def candidate(self, size: int) -> StructuredMatrix:
        offer = self._offers[size]
        family = self._family(offer.name, offer.group)
        return family.candidate(offer.size) if isinstance(family, EACH) else family.build(offer.size).structure

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
        for name in dict.fromkeys(name for name, _ in self._families):
            own = [i for i, offer in enumerate(self._offers) if offer.name == name]
            if own and not any(i in self.known for i in own):
                self.measure(middle(own))
            known = {i: self.known[i] for i in own if i in self.known}
            found[own] = interpolated(own, lambda i: self._offers[i].expected, known)
        found[list(self.known)] = torch.tensor(list(self.known.values()), dtype=torch.float64)
        return found

    def build(self, size: int) -> Fitted:
        """Candidate number `size`."""
        if not 0 <= size < len(self.members):
            raise Refused(f"there are candidates 0 to {len(self.members) - 1}")
        offer = self._offers[size]
        if (offer.name, offer.group) not in self._families:
            return self._family(offer.name, offer.group).build(offer.size)
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
