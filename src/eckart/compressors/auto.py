"""Every family at once: the candidates of several methods for one matrix, their errors in one metric."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from eckart.compressors._foreseen import conditional_variances, cut_off, rounded
from eckart.compressors._lazy import Measured, interpolated
from eckart.compressors._low_rank import bias_cost, rank_costs
from eckart.compressors._one_by_one import ROUNDING, OneByOne
from eckart.compressors._rescaled import RescaledLazy
from eckart.compressors._shared_inputs import exact_dtype, input_metric, input_side, made_of
from eckart.compressors.contract import METHODS, Family, Fitted, compressor
from eckart.compressors.kfac import factored_fisher
from eckart.errors import Refused
from eckart.linalg.low_rank import least_errors, project
from eckart.metrics import Metric
from eckart.statistics.moments import bias_mean
from eckart.statistics.needs import Need, Statistics
from eckart.structures.base import Cost, StructuredMatrix

MEMBERS = ("kfac", "gptq", "sparsegpt", "wanda")
"""One method of each family of structures, the one that measured best."""
EACH = OneByOne, RescaledLazy
"""Families whose candidates have errors in a metric of their own, and are measured in that of all members."""
NESTED = "kfac"
"""The member all of whose candidates come from one decomposition."""
MOST = 10
"""Candidates of a method whose sizes are fitted one by one."""
NEGLIGIBLE = 2e-3
"""A thousandth of a nat: a tenth of a percent of the perplexity, which 8 bits cost where others cost nothing."""
LEAST = 1e-300
"""An error that is expected is no less, so that what was measured may be divided by it."""
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
        expected: about its error.
    """

    name: str
    size: int
    group: int | None
    cost: Cost
    expected: float


class Rivals(Measured):
    """Candidates of all members; what a candidate adds to the mean output is taken back by its bias.

    Nothing is fitted before it is asked for: of every candidate it is known beforehand what its error is about. A
    candidate that costs more of one thing and less of another may err more than the one before it.

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
        self._least = least_errors(self._weight, self.metric)
        offers = [offer for name in MEMBERS for offer in self._offered(name) if offer.cost.bytes < self._dense]
        self._offers = sorted(offers, key=lambda offer: offer.cost.bytes)
        self.members: Sequence[tuple[str, int]] = [(offer.name, offer.size) for offer in self._offers]
        self.costs: Sequence[Cost] = [offer.cost for offer in self._offers]
        self.sizes: Sequence[int] = range(len(self._offers))

    def _offered(self, name: str) -> list[Offer]:
        """The candidates of a member; each is expected to err less than all of fewer bytes."""
        if name == NESTED:
            costs, errors = rank_costs(self._weight, True, self._mean), self._least.tolist()
            return self._falling(Offer(name, rank, None, cost, errors[rank]) for rank, cost in costs.items())
        columns, offers, bias = self._weight.shape[1], list[Offer](), bias_cost(self._weight, self._mean)
        for group in dict.fromkeys(min(group, columns) for group in GROUPS[name]) if name in GROUPS else (None,):
            family = self._family(name, group)
            assert isinstance(family, EACH)
            self._families[name, group] = family
            step = max(1, -(-len(family.sizes) // MOST))
            costs = dict(list(zip(family.sizes, family.costs, strict=True))[step - 1 :: step])
            expected = self._foreseen(name, group, list(costs))
            offers += [Offer(name, size, group, cost + bias, expected[size]) for size, cost in costs.items()]
        return self._falling(offers)

    def _foreseen(self, name: str, group: int | None, sizes: Sequence[int]) -> dict[int, float]:
        """About the errors of candidates that are fitted one by one; see `_foreseen`."""
        moment, sides = input_side(input_metric(self._weight, self._statistics)), self.metric
        assert sides.left is not None
        assert sides.right is not None
        left, inputs = (s.double() if s.ndim == 1 else s.diagonal().double() for s in (sides.left, sides.right))
        if name == "wanda":
            return cut_off(self._weight, left, moment.diagonal().double(), inputs, sizes, by_row=True)
        alone = made_of(moment, "variances", lambda: conditional_variances(moment))
        if group is None:
            return cut_off(self._weight, left, alone, alone, sizes, by_row=False)
        return rounded(self._weight, left, alone, sizes, group)

    def _falling(self, offers: Iterable[Offer]) -> list[Offer]:
        """In ascending order of bytes those that are expected to err less than all before, none less than rounding."""
        least, found = math.inf, list[Offer]()
        for offer in sorted(offers, key=lambda offer: offer.cost.bytes):
            expected = max(offer.expected, ROUNDING * self.zero_error, LEAST)
            if expected < least:
                least = expected
                found.append(replace(offer, expected=expected))
        return found

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_shelf": OrderedDict()}

    @property
    def metric(self) -> Metric:
        return factored_fisher(self._statistics, exact_dtype(self._weight))

    @property
    def zero_error(self) -> float:
        """Squared error of the zero matrix."""
        return float(self._least[0])

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

    def measure(self, size: int) -> None:
        """Fits a size to learn its error; of ranks those of all, which come from one decomposition."""
        if self._offers[size].name != NESTED:
            return super().measure(size)
        errors = project(self._weight, self.metric).errors
        self.known |= {i: float(errors[own]) for i, (name, own) in enumerate(self.members) if name == NESTED}
        return None

    def estimates(self) -> Tensor:
        """As `errors`, but of the candidates that were not measured what `interpolated` says from others of the member.

        Of a member none of which was measured it is what is expected.
        """
        found = torch.tensor([offer.expected for offer in self._offers], dtype=torch.float64)
        for name in MEMBERS:
            own = [i for i, offer in enumerate(self._offers) if offer.name == name]
            if known := {i: self.known[i] for i in own if i in self.known}:
                found[own] = interpolated(own, lambda i: self._offers[i].expected, known)
        found[list(self.known)] = torch.tensor(list(self.known.values()), dtype=torch.float64)
        return found

    def build(self, size: int) -> Fitted:
        """Candidate number `size`."""
        if not 0 <= size < len(self.members):
            raise Refused(f"there are candidates 0 to {len(self.members) - 1}")
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
    negligible=NEGLIGIBLE,
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
