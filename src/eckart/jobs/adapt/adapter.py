"""One adapter of a model: what is trained, what happens once a step, switching, merging, removing."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from eckart.adapters.contract import AdapterCard, Schedule
from eckart.errors import Refused
from eckart.jobs.adapt.adapted import Adapted
from eckart.jobs.coverage import kind_of
from eckart.models.fused_experts import pack
from eckart.models.places import set_module
from eckart.models.sharing import sharing
from eckart.report.numbers import shown_count
from eckart.report.shown import Glance, Shown, noted
from eckart.report.types import Coverage
from eckart.structures import StructuredMatrix


@dataclass(repr=False)
class Adapter(Shown):
    """An adapter of a model: what is trained beside its matrices, and how to switch, merge and remove it.

    `eckart.adapt` and `eckart.load_adapter` make one.

    Attributes:
        model: the model, its linear maps wrapped in `eckart.jobs.adapt.adapted.Adapted`.
        name: the adapter's name; a model may have several.
        method: the card of the method it was made by.
        places: the wrapped layers, by the name of the matrix.
        ranks: the rank of each path, by the name of its matrix.
        alpha: what paths are multiplied by, over the rank; None for methods that are not scaled.
        errors: ||W - (what is frozen + path)||_F / ||W||_F of each matrix at the start, by its name.
        seconds: what making it took, statistics included.
        peak_bytes: memory of the process at its largest so far; None where the system does not say.
        coverage: what share of the model's numbers it stands beside, and what was left and why; None for one that was
            loaded.
        warnings: what did not go as asked.
        packed: the packed matrices of the model that were taken apart for it, by name.
    """

    model: nn.Module
    name: str
    method: AdapterCard
    places: dict[str, Adapted]
    ranks: dict[str, int]
    alpha: float | None = None
    errors: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    peak_bytes: int | None = None
    coverage: Coverage | None = None
    warnings: list[str] = field(default_factory=list)
    packed: list[str] = field(default_factory=list)
    _schedule: Schedule | None = None
    _done: int = 0
    _removed: bool = False
    _batches: int = 0

    def __post_init__(self) -> None:
        self._batches = batches_seen(self.model)

    def moved(self) -> list[str]:
        """What changed in the model beside the paths since the adapter was made, and is in no file of it."""
        if batches_seen(self.model) == self._batches:
            return []
        return [
            "the running statistics of batch normalisation have moved since the adapter was made and are in no file of "
            "it: beside another copy of the base it gives other outputs. Train in eval mode, or save the whole model"
        ]

    def glance(self) -> Glance:
        """Where it stands, and how many numbers train."""
        title = f"Adapter {self.name!r}: {self.method.name} beside {len(self.places)} matrices"
        if self._removed:
            return Glance(title, [("removed", "")])
        ranks = sorted(set(self.ranks.values()))
        merged = any(place.merged == self.name for place in self.places.values())
        active = any(place.active == self.name for place in self.places.values())
        rows = [
            ("rank", str(ranks[0]) if len(ranks) == 1 else f"{ranks[0]} to {ranks[-1]}"),
            ("trained numbers", shown_count(sum(p.numel() for p in self.trainable_parameters()))),
            ("largest error of a start", f"{max(self.errors.values(), default=0.0):.2g}"),
            ("now", "merged" if merged else "active" if active else "not active"),
        ]
        return Glance(title, rows, (), noted([], self.coverage))

    @property
    def paths(self) -> dict[str, StructuredMatrix]:
        """What is trained beside each matrix, by its name; Refused where the adapter was removed."""
        self._check_there()
        found = {name: place.paths[self.name] for name, place in self.places.items()}
        return {name: path for name, path in found.items() if isinstance(path, StructuredMatrix)}

    def trainable_parameters(self) -> list[nn.Parameter]:
        """The numbers that train: what goes to the optimizer."""
        return [p for path in self.paths.values() for p in path.parameters() if p.requires_grad]

    def regulariser(self) -> Tensor:
        """The term that the method adds to the loss, a scalar; zero for most."""
        if self.method.regulariser is None:
            return torch.zeros(())
        return self.method.regulariser(self.paths)

    def plan(self, steps: int) -> None:
        """Says how many optimizer steps there will be, which methods with a schedule have to know."""
        if steps < 1:
            raise Refused(f"steps={steps} must be at least 1")
        if self.method.schedule is not None:
            self._schedule = self.method.schedule(self.paths, steps, lambda name: self.places[name].beside())

    def step(self) -> None:
        """To be called after each step of the optimizer, before gradients are set to zero.

        Raises:
            Refused: the method has a schedule and `plan` was not called; or the model computed with none of the paths.
        """
        self._done += 1
        if self._done == 1:
            self._check_reached()
        if self.method.schedule is None:
            return
        if self._schedule is None:
            raise Refused(f"{self.method.name} has a schedule: call plan(steps) before the first step")
        self._schedule.step(self._done)

    def _check_reached(self) -> None:
        """Warns of paths that the model did not compute with, all of a kind; Refused where that are all there are."""
        kinds: dict[str, bool] = {}
        for name, place in self.places.items():
            kinds[kind_of(name)] = kinds.get(kind_of(name), False) or place.reached
        idle = [kind for kind, reached in kinds.items() if not reached]
        if len(idle) == len(kinds):
            raise Refused(
                f"no path of adapter {self.name!r} was computed with: the model goes past {', '.join(idle[:3])}"
            )
        if idle:
            text = f"the model did not compute with the paths of {', '.join(idle)} in the first step: they do not train"
            self.warnings.append(text)
            warnings.warn(text, stacklevel=3)

    def schedule_state(self) -> dict[str, Tensor]:
        """What the schedule has to keep for an interrupted run to go on."""
        return {} if self._schedule is None else dict(self._schedule.state)

    def resume(self, done: int, state: Mapping[str, Tensor]) -> None:
        """Goes on after so many steps with what `schedule_state` returned; `plan` was called before."""
        self._done = done
        if self._schedule is not None:
            self._schedule.state = dict(state)

    def activate(self) -> None:
        """Makes this the one adapter of the model that is evaluated and trained; another that is merged is unmerged."""
        self._check_there()
        for place in adapted_layers(self.model).values():
            place.activate(self.name if self.name in place.paths else "")
            place.train_only(self.name)

    def deactivate(self) -> None:
        """Leaves the base model alone: its output is that from before."""
        self._check_there()
        for place in self.places.values():
            if place.active == self.name:
                place.activate("")

    def merge(self) -> dict[str, float]:
        """Adds the paths to the matrices; returns what that costs each of them, see `Adapted.merge`.

        Raises:
            Refused: the adapter is not active, is merged already, was removed, or depends on its input and has no
                matrix; or a matrix is another layer's too.
        """
        self._check_there()
        if any(place.merged == self.name for place in self.places.values()):
            raise Refused(f"adapter {self.name!r} is merged already: unmerge() takes it out of the matrices again")
        if any(place.active != self.name for place in self.places.values()):
            raise Refused(f"adapter {self.name!r} is not active: call activate() before merge()")
        for name, place in self.places.items():
            check_unshared(self.model, name, place.base)
        return {name: place.merge() for name, place in self.places.items()}

    def unmerge(self) -> None:
        """Puts the matrices back that stood there before, bit for bit.

        Raises:
            Refused: the adapter is not merged, or was removed.
        """
        self._check_there()
        if any(place.merged != self.name for place in self.places.values()):
            raise Refused(f"adapter {self.name!r} is not merged")
        for place in self.places.values():
            place.unmerge()

    def remove(self) -> None:
        """Takes the adapter off the model, which is as merged or as before; the last one takes the wrappers along.

        Raises:
            Refused: the adapter was removed already.
        """
        self._check_there()
        for name, place in self.places.items():
            if place.merged == self.name:
                place.keep_merged()
            place.remove(self.name)
            if not place.paths:
                set_module(self.model, name, place.base)
        pack(self.model, self.packed)
        self._removed = True

    def _check_there(self) -> None:
        if self._removed:
            raise Refused(f"adapter {self.name!r} was removed from the model: make or load another one")


def adapted_layers(model: nn.Module) -> dict[str, Adapted]:
    """The layers of a model that have adapters, by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, Adapted)}


def check_unshared(model: nn.Module, where: str, base: nn.Module) -> None:
    """Raises Refused where a matrix that is to change is another layer's too, as a tied head's is an embedding's."""
    if others := sharing(model, base):
        raise Refused(
            f"{where} shares its matrix with {others[0]}, which would change too: leave the path beside it (lora takes "
            "nothing out of the matrix, and is not merged), or save the adapter and export it --to merged, which "
            "unties the two where the model computes the same"
        )


def batches_seen(model: nn.Module) -> int:
    """How many batches have gone into the running statistics of a model's normalisation layers."""
    counters = [buffer for name, buffer in model.named_buffers() if name.endswith("num_batches_tracked")]
    return sum(int(counter) for counter in counters)


def check_name(name: str) -> None:
    """Raises Refused where a name of an adapter cannot be one of a module."""
    if not (isinstance(name, str) and re.fullmatch(r"\w+", name)):
        raise Refused(f"the name of an adapter is letters, digits and _, got {name!r}")
