"""Models without numbers: each public function says which tensor has none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import distributed, nn

import eckart
from eckart.jobs.evaluate.quality import evaluate
from eckart.jobs.evaluate.speed import speed
from support.tiny import VOCABULARY, tiny_llama

IDS = torch.randint(VOCABULARY, (2, 8), generator=torch.Generator().manual_seed(0))
DATA = [torch.ones(4, 8)]


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))


USES: dict[str, Callable[[nn.Module], object]] = {
    "compress": lambda model: eckart.compress(model, "svd", keep=0.5, of="linear-parameters"),
    "compress-with-data": lambda model: eckart.compress(
        model, "kfac", keep=0.5, of="linear-parameters", calibration=DATA
    ),
    "adapt": lambda model: eckart.adapt(model, "lora", rank=2),
    "diagnose": lambda model: eckart.diagnose(model),
    "diagnose-against": lambda model: eckart.diagnose(net(), against=model),
    "mitigate": lambda model: eckart.mitigate_intruders(net(), model, 0.5),
    "compensate": lambda model: eckart.compensate(model, net(), 1, calibration=DATA),
    "compensate-against": lambda model: eckart.compensate(net(), model, 1, calibration=DATA),
    "save": lambda model: eckart.save(model, "nowhere"),
}
OF_LANGUAGE: dict[str, Callable[[nn.Module], object]] = {
    "evaluate": lambda model: evaluate(model, IDS),
    "evaluate-against": lambda model: evaluate(tiny_llama(), IDS, model),
    "speed": lambda model: speed(model, prefill_tokens=2, decode_tokens=1, repeats=1),
    "compress": lambda model: eckart.compress(model, "kfac", keep=0.5, of="linear-parameters"),
}


@pytest.mark.parametrize("use", USES)
def test_a_model_on_the_meta_device_is_refused(use: str) -> None:
    with pytest.raises(eckart.Refused, match=r"0\.weight of .* is on the meta device and holds no numbers: load"):
        USES[use](net().to("meta"))


@pytest.mark.parametrize("use", OF_LANGUAGE)
def test_a_language_model_on_the_meta_device_is_refused(use: str) -> None:
    with pytest.raises(eckart.Refused, match=r"embed_tokens\.weight of .* is on the meta device"):
        OF_LANGUAGE[use](tiny_llama().to("meta"))


@pytest.mark.parametrize("use", USES)
def test_one_offloaded_tensor_is_enough(use: str) -> None:
    model = net()
    model[2].to("meta")  # type: ignore[index]
    with pytest.raises(eckart.Refused, match=r"2\.weight of .* is on the meta device"):
        USES[use](model)


@pytest.mark.parametrize("use", USES)
def test_a_layer_that_was_never_called_is_refused(use: str) -> None:
    with pytest.raises(eckart.Refused, match=r"0\.weight of .* has no shape yet: call the model once"):
        USES[use](nn.Sequential(nn.LazyLinear(8)))


@pytest.fixture
def group() -> Iterator[None]:
    """One process that believes to be all of several."""
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        distributed.destroy_process_group()


@pytest.mark.parametrize("use", ["compress", "diagnose", "compensate-against", "save"])
@pytest.mark.parametrize("kind", ["FullyShardedDataParallel", "DTensor"])
def test_shards_are_refused(use: str, kind: str, group: None) -> None:
    from torch.distributed import device_mesh, fsdp

    model = net()
    if kind == "DTensor":
        fsdp.fully_shard(model, mesh=device_mesh.init_device_mesh("cpu", (1,)))
    else:
        model = fsdp.FullyShardedDataParallel(model, device_id=torch.device("cpu"))
    with pytest.raises(eckart.Refused, match=rf"is (a )?{kind}, one process's shard of the numbers: gather it first"):
        USES[use](model)


def test_a_model_with_adapters_of_peft_in_it_is_refused() -> None:
    base: Any = tiny_llama()
    model = get_peft_model(base, LoraConfig(target_modules=["q_proj"]))
    for job in (lambda: eckart.compress(model, "svd"), lambda: eckart.adapt(model, "lora", rank=2)):
        with pytest.raises(eckart.Refused, match=r"q_proj is a layer of PEFT, .*merge_and_unload"):
            job()


@pytest.mark.parametrize("layer", [nn.Linear(8, 8), nn.Conv2d(8, 8, 3), nn.Embedding(8, 8)])
@pytest.mark.parametrize("use", ["compress", "adapt", "reparametrize"])
def test_a_single_layer_has_no_place(use: str, layer: nn.Module) -> None:
    before = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    uses = USES | {"reparametrize": lambda model: eckart.reparametrize(model, "monarch")}
    with pytest.raises(eckart.Refused, match="wrap it"):
        uses[use](layer)
    assert set(layer.state_dict()) == set(before)
    with torch.no_grad():
        eckart.diagnose(layer)
