"""The adapters of Hugging Face PEFT, put into a model as its documentation says, at the numbers of a budget."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import peft
import torch
from peft.tuners.lora.config import CordaConfig, EvaConfig, LoraGAConfig
from peft.tuners.lora.corda import preprocess_corda
from peft.tuners.lora.loraga import preprocess_loraga
from torch import Tensor, nn

from eckart.adapters.adalora import initial
from eckart.adapters.contract import ADAPTERS
from eckart.jobs.adapt.bases import matrix_shape
from eckart.jobs.adapt.ranks import rank_within
from eckart.structures import patch_of

Batch = Mapping[str, Tensor]
After = Callable[[int], Any]

NAMES = ("lora", "pissa", "olora", "dora", "adalora", "corda", "corda-keep", "eva", "lora-ga", "osf")
CONVOLUTIONAL = ("lora", "dora")
"""Those that stand beside convolutions too."""


def put(
    name: str, model: nn.Module, targets: Mapping[str, nn.Module], budget: int, batches: Sequence[Batch], steps: int
) -> tuple[Any, After]:
    """A model with one of `NAMES` beside the targets, and what to do after the optimizer's step, told how many so far.

    Ranks are those that eckart takes for as many numbers; `dora` trains a length of each row besides.
    """
    shapes = {where: matrix_shape(layer) for where, layer in targets.items()}
    patches = {where: patch_of(layer) for where, layer in targets.items()}
    rank = rank_within(ADAPTERS[name if name in ADAPTERS else "lora"], shapes, patches, budget)

    def lora(start: bool | str, **options: Any) -> peft.LoraConfig:
        words: dict[str, Any] = {"r": rank, "lora_alpha": rank, "target_modules": list(targets), **options}
        return peft.LoraConfig(init_lora_weights=start, **words)  # type: ignore[arg-type]

    def nothing(step: int) -> None:
        pass

    if name == "adalora":
        found = peft.get_peft_model(
            model,
            peft.AdaLoraConfig(
                init_r=initial(rank),
                target_r=rank,
                lora_alpha=rank,
                target_modules=list(targets),
                total_step=steps,
                tinit=steps // 10,
                tfinal=3 * steps // 10,
                deltaT=max(1, steps // 100),
            ),
        )
        # Without a task type the model is called directly, past what adds the regulariser to its loss.
        found.forward = found.base_model.forward
        return found, found.base_model.update_and_allocate
    if name in ("corda", "corda-keep"):
        made = lora("corda", corda_config=CordaConfig(corda_method="ipm" if name == "corda" else "kpm"))
        # It takes sequences one at a time.
        preprocess_corda(model, made, run_model=lambda: each_alone(model, batches))
        return peft.get_peft_model(model, made), nothing
    if name == "eva":
        # Not only where something is to be predicted.
        made = lora("eva", eva_config=EvaConfig(use_label_mask=False, adjust_scaling_factors=True))
        found = peft.get_peft_model(model, made)
        peft.initialize_lora_eva_weights(found, list(batches), show_progress_bar=False)
        return found, nothing
    if name == "lora-ga":
        made = lora("lora_ga", lora_ga_config=LoraGAConfig())
        preprocess_loraga(model, made, lambda: backward(model, batches))
        return peft.get_peft_model(model, made), nothing
    if name == "osf":
        frozen = {where: min(shape) - rank for where, shape in shapes.items()}
        return peft.get_peft_model(model, peft.OSFConfig(target_modules=list(targets), rank_pattern=frozen)), nothing
    start = name if name in ("pissa", "olora") else True
    return peft.get_peft_model(model, lora(start, use_dora=name == "dora")), nothing


@torch.no_grad()
def each_alone(model: nn.Module, batches: Sequence[Batch]) -> None:
    for batch in batches:
        for i, mask in enumerate(batch["attention_mask"]):
            model(**{k: batch[k][i : i + 1, : int(mask.sum())] for k in ("input_ids", "attention_mask")})


def backward(model: nn.Module, batches: Sequence[Batch]) -> None:
    for batch in batches:
        model(**batch).loss.backward()
