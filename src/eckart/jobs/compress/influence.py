"""The influence of blocks by which the allocation `influence` shares out a budget."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from eckart.errors import Refused
from eckart.jobs.compress.plan import Plan
from eckart.jobs.compress.tails import block_of
from eckart.machine import wide
from eckart.models.sharing import in_eval_mode
from eckart.statistics.batches import Batch, call
from eckart.statistics.padding import without_padding


def attach_influence(plan: Plan, model: nn.Module, allocation: str, batches: Sequence[Batch]) -> None:
    """Gives a plan what the allocation `influence` asks for; does nothing for others, or where it has it already.

    Raises:
        Refused: there is nothing to measure it on, or no block that hands on what it was given.
    """
    if allocation != "influence" or plan.influence:
        return
    if any(group.layers > 1 for group in plan.groups):
        raise Refused(
            f"allocation='influence' takes more from one block than from another, and {plan.method.name} the same from "
            "all: leave it out"
        )
    if not batches:
        raise Refused("allocation='influence' measures what every block changes: give it calibration data")
    blocks = {block_of(group.name) for group in plan.groups} - {group.name for group in plan.groups}
    names = [name for name, _ in model.named_modules() if name in blocks]
    plan.influence = block_influence(model, names, batches)
    if not plan.influence:
        raise Refused(
            f"allocation='influence' compares what goes into a block with what comes out, and {type(model).__name__} "
            "has no block that hands on what it was given: say uniform or greedy"
        )


@torch.no_grad()
def block_influence(model: nn.Module, names: Sequence[str], batches: Sequence[Batch]) -> dict[str, float]:
    """1 - E[cos(x, y)] over the tokens, x what goes into a block and y what comes out (Men 2024, arXiv 2403.03853).

    Args:
        model: that the blocks are of.
        names: of the blocks.
        batches: what the model is run on; padding is left out.

    Returns:
        By name, of blocks whose first input and first output have one shape.
    """
    sums = {name: torch.zeros(2, dtype=torch.float64) for name in names}

    def hook(name: str) -> Any:
        def record(_: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any], output: Any) -> None:
            x = arguments[0] if arguments else keywords.get("hidden_states")
            y = output[0] if isinstance(output, tuple) else output
            if isinstance(x, Tensor) and isinstance(y, Tensor) and x.shape == y.shape:
                cosine = torch.cosine_similarity(wide(x), wide(y), -1)
                sums[name] += torch.tensor([float(cosine.sum()), cosine.numel()], dtype=torch.float64)

        return record

    handles = [model.get_submodule(name).register_forward_hook(hook(name), with_kwargs=True) for name in names]
    try:
        with in_eval_mode(model):
            for batch in batches:
                for part in without_padding(model, batch):
                    call(model, part)
    finally:
        for handle in handles:
            handle.remove()
    return {name: 1 - float(total / count) for name, (total, count) in sums.items() if count}
