"""What is known of the modules behind some batches: accumulators and counts, which are added up in any order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from eckart.errors import Refused
from eckart.layouts.patches import patch_of
from eckart.statistics.accumulators import OF_FISHER, OF_INPUTS, Accumulator
from eckart.statistics.needs import Need, Statistics


@dataclass
class Tally:
    """What was measured on some batches, without the model.

    Attributes:
        kept: accumulators, by the name of the module and what it keeps.
        leader: of each module that was called, the one whose accumulators of inputs are its own too.
        tokens, images: by the name of the module.
        samples, labels: of all batches.
    """

    kept: dict[tuple[str, Need], Accumulator] = field(default_factory=dict)
    leader: dict[str, str] = field(default_factory=dict)
    tokens: dict[str, int] = field(default_factory=dict)
    images: dict[str, int] = field(default_factory=dict)
    samples: int = 0
    labels: int = 0

    def __sizeof__(self) -> int:
        """Bytes with all sums, by which a scheduler knows what it moves and keeps."""
        return object.__sizeof__(self) + sum(_tensor_bytes(vars(accumulator)) for accumulator in self.kept.values())

    def settle(self) -> None:
        """Moves what was added up in float32 to float64."""
        for accumulator in self.kept.values():
            accumulator.settle()

    def join(self, other: Tally) -> Tally:
        """Adds what was measured on the batches behind these; the other is used up."""
        for name, leader in other.leader.items():
            if self.leader.setdefault(name, leader) != leader:
                raise shared_at_times(name, leader)
        for key, accumulator in other.kept.items():
            if key in self.kept:
                self.kept[key].join(accumulator)
            else:
                self.kept[key] = accumulator
        for mine, theirs in ((self.tokens, other.tokens), (self.images, other.images)):
            for name, count in theirs.items():
                mine[name] = mine.get(name, 0) + count
        self.samples += other.samples
        self.labels += other.labels
        return self

    def results(self, modules: Mapping[str, nn.Module]) -> dict[str, Statistics]:
        """The statistics of each module; one that never ran has `tokens == 0`. Nothing can be added afterwards."""
        self.settle()
        done: dict[tuple[str, Need], Tensor] = {}
        for name, need in list(self.kept):
            count = self.tokens[name] if need not in OF_FISHER else self.samples
            if need is Need.GRADIENT_SECOND_MOMENT and name in self.images:
                count = self.images[name]
            done[name, need] = self.kept.pop((name, need)).result(count)
        results = {}
        for name, module in modules.items():
            leader = self.leader.get(name, name)
            values = {}
            for need in Need:
                value = done.get((leader if need in OF_INPUTS else name, need))
                if value is not None:
                    values[need.value] = value
            tokens, patch = self.tokens.get(name, 0), patch_of(module)
            results[name] = Statistics(
                tokens=tokens,
                uses=tokens / self.labels if tokens and self.labels and patch is None else 1.0,
                lookup=isinstance(module, nn.Embedding),
                patch=patch,
                takes_bias=True,
                **values,
            )
        return results


def shared_at_times(name: str, leader: str) -> Refused:
    """Said where modules were handed one tensor in one batch, and two in another."""
    return Refused(f"{name!r} shared its input with {leader!r} in one batch and not in another")


def _tensor_bytes(held: object) -> int:
    """Of all tensors in dictionaries and lists."""
    if isinstance(held, Tensor):
        return held.numel() * held.element_size()
    parts = held.values() if isinstance(held, dict) else held if isinstance(held, list | tuple) else ()
    return sum(map(_tensor_bytes, parts))
