"""The same adapters in PEFT and here: equal starts, and equal losses at every step of AdamW."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import peft
import pytest
import torch
from peft.tuners.lora.corda import preprocess_corda
from torch import Tensor, nn

import eckart
from eckart.adapters import adalora
from eckart.adapters._svd_form import leaves
from eckart.jobs.adapt.adapter import Adapter
from eckart.structures import StructuredMatrix
from support.adapting import close, ids
from support.tiny import tiny_llama

RANK, ALPHA, STEPS, RATE = 4, 8, 20, 1e-2
# Matrices that share no input: PEFT breaks ties between those that do at random when it shares out ranks.
TARGETS = ["q_proj", "o_proj", "up_proj", "down_proj"]
INCLUDE = [f"*{name}" for name in TARGETS]


def seeded(model: nn.Module, config: peft.PeftConfig) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return peft.get_peft_model(model, config)


def config(start: bool | str = True, **options: object) -> peft.LoraConfig:
    words: dict[str, Any] = {"r": RANK, "lora_alpha": ALPHA, "target_modules": TARGETS, **options}
    return peft.LoraConfig(init_lora_weights=start, task_type="CAUSAL_LM", **words)  # type: ignore[arg-type]


def theirs(method: str) -> Any:
    model = tiny_llama()
    if method == "corda":
        made = config("corda", corda_config=peft.tuners.lora.config.CordaConfig(corda_method="ipm"))
        # One batch of one sequence, on which their scale of the inputs is a constant.
        preprocess_corda(model, made, run_model=lambda: model(ids(1, 128)))
        return seeded(model, made)
    if method == "eva":
        made = config("eva", eva_config=peft.EvaConfig(rho=2.0, adjust_scaling_factors=True))
        found = seeded(model, made)
        batch = {"input_ids": ids(8), "attention_mask": torch.ones(8, 16, dtype=torch.long)}
        peft.initialize_lora_eva_weights(found, [batch] * 4, show_progress_bar=False)
        return found
    if method == "adalora":
        words: dict[str, Any] = {
            "init_r": adalora.initial(RANK),
            "target_r": RANK,
            "lora_alpha": ALPHA,
            "target_modules": TARGETS,
            "total_step": STEPS,
            "tinit": STEPS // 10,
            "tfinal": 3 * STEPS // 10,
            "deltaT": 1,
        }
        return seeded(model, peft.AdaLoraConfig(task_type="CAUSAL_LM", **words))
    return seeded(model, config({"lora": True}.get(method, method)))


def ours(method: str) -> Adapter:
    data = {"corda": ids(1, 128), "eva": ids(8)}.get(method)
    return eckart.adapt(tiny_llama(), method, rank=RANK, alpha=float(ALPHA), include=INCLUDE, calibration=data)


def initial_values(layer: Any) -> list[Tensor]:
    """B, (E,) A of a layer of PEFT, in the order of our factors."""
    if isinstance(layer.lora_A, nn.ParameterDict):
        return [layer.lora_B["default"], layer.lora_E["default"].flatten(), layer.lora_A["default"]]
    return [layer.lora_B["default"].weight, layer.lora_A["default"].weight]


@torch.no_grad()
def start_like(adapter: Adapter, model: Any) -> None:
    """Gives an adapter the factors of one of PEFT."""
    for name, place in adapter.places.items():
        values = initial_values(model.get_submodule(f"base_model.model.{name}"))
        place.activate("")
        for path in (place.paths["default"], *place.taken.values()):
            assert isinstance(path, StructuredMatrix)
            for leaf, value in zip(path.parameters(), values, strict=True):
                assert leaf.shape == value.shape, name
                leaf.copy_(value)
        place.activate("default")


def losses(model: nn.Module, parameters: list[nn.Parameter], term: Callable[[], Tensor], after: Callable[[int], None]):  # type: ignore[no-untyped-def]
    optimizer = torch.optim.AdamW(parameters, lr=RATE, weight_decay=0.01)
    found, x = [], ids()
    for step in range(1, STEPS + 1):
        loss = model(input_ids=x, labels=x).loss + term()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        after(step)
        found.append(float(loss.detach()))
    return found


@pytest.mark.parametrize("method", ["lora", "pissa", "olora", "corda", "eva", "adalora"])
def test_losses_are_those_of_peft(method: str) -> None:
    model, adapter = theirs(method).eval(), ours(method)
    assert len(adapter.places) == 2 * len(TARGETS)
    for name, place in adapter.places.items():
        layer = model.get_submodule(f"base_model.model.{name}")
        # What trains is the same matrix before anything is copied: random factors excepted, and those that start at 0.
        if method in ("pissa", "olora", "corda"):
            product = layer.scaling["default"] * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
            assert close(place.path().to_dense().detach(), product.detach(), 1e-3), name
        if method == "eva":
            # Theirs are the components of one batch seen several times, found by a randomized decomposition.
            mine, other = (p.detach() for p in (list(place.path().parameters())[1], layer.lora_A["default"].weight))
            assert close(mine.T @ mine, other.T @ other, 2e-2), name
    start_like(adapter, model)
    adapter.plan(STEPS)

    def allocate(step: int) -> None:
        if method == "adalora":
            model.base_model.update_and_allocate(step)

    a = losses(model, [p for p in model.parameters() if p.requires_grad], lambda: torch.zeros(()), allocate)
    b = losses(adapter.model, adapter.trainable_parameters(), adapter.regulariser, lambda _: adapter.step())
    assert a == pytest.approx(b, rel=2e-5)
    assert b[-1] < b[0]
    if method == "adalora":
        dead = [model.get_submodule(f"base_model.model.{n}").lora_E["default"].flatten() == 0 for n in adapter.places]
        mine = [leaves(path)[1] == 0 for path in adapter.paths.values()]
        assert torch.equal(torch.cat(dead), torch.cat(mine))
        assert int(torch.cat(mine).sum()) == (adalora.initial(RANK) - RANK) * len(mine)
