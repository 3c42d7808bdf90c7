"""What is left of an adapter's score once it is merged, turned into a LoRA, or merged and rounded to 4 bits."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.adapters.problems import Task
from eckart.diagnostics.contract import Change
from eckart.diagnostics.intruder_dimensions import find_intruders
from eckart.jobs.adapt.adapter import Adapter
from eckart.jobs.adapt.bases import dense_of, put
from eckart.jobs.adapt.change import as_low_rank
from eckart.jobs.adapt.files import parts_of
from eckart.jobs.adapt.run import find_bases
from eckart.structures import Dense, Quantized

Weights = dict[str, Tensor]


@torch.no_grad()
def merged_weights(task: Task, model: Any, adapter: Adapter | None) -> tuple[Weights, Weights]:
    """The matrices with the adapter in them, and with the LoRA of the same rank that it can be turned into."""
    changed: Weights = {}
    lora: Weights = {}
    if adapter is None:
        merged = copy.deepcopy(model).merge_and_unload()
        names = set(model.targeted_module_names) & find_bases(task.model).keys()
        return {n: dense_of(merged.get_submodule(n)).double() for n in names}, {}
    if not all(path.linear for path in adapter.paths.values()):
        return {}, {}
    for name in adapter.places:
        parts = parts_of(adapter, name)
        path, taken, frozen = parts.path, parts.taken, parts.frozen
        weight = dense_of(task.model.get_submodule(name)).double()
        change = path.to_dense().double() - (taken.to_dense().double() if taken is not None else 0.0)
        changed[name] = (frozen.to_dense().double() if frozen is not None else weight) + change
        if frozen is None:
            left, right, _ = as_low_rank(path, taken, min(adapter.ranks[name], *weight.shape))
            lora[name] = weight + (left.double() @ right.double())
    return changed, lora


@torch.no_grad()
def afterwards(task: Task, model: nn.Module, targets: list[str], changed: Weights, lora: Weights) -> dict[str, float]:
    """The score with plain layers of these matrices, and the intruders among their singular vectors."""
    if not changed:
        return {}
    dense = copy.deepcopy(model)
    for name in targets:
        place, (parent, _, leaf) = model.get_submodule(name), name.rpartition(".")
        layer = copy.deepcopy(task.model.get_submodule(name))
        layer.bias = place.bias  # type: ignore[assignment]
        setattr(dense.get_submodule(parent), leaf, layer)

    def score(weights: Weights) -> float:
        for name, weight in weights.items():
            put(dense.get_submodule(name), Dense(weight))
        with task.precision():
            return task.test(dense)

    found = {"merged": score(changed)}
    if lora:
        found["as lora"] = score(lora)
    found["4 bits"] = score({n: Quantized.quantize(w.float(), 4, 32).to_dense() for n, w in changed.items()})
    found["intruders"] = sum(
        len(find_intruders(Change(dense_of(task.model.get_submodule(n)), w)).index) for n, w in changed.items()
    )
    return found
