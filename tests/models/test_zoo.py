"""Every class of models that people bring, compressed and adapted: it works, or it is refused by name."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import eckart
from eckart.models.fused_experts import unfuse
from eckart.models.modules import Structured, StructuredLinear
from eckart.models.sites import find_sites
from support.zoo import Batch, normal, outputs, zoo

ZOO = zoo()
classes = pytest.mark.parametrize("name", ZOO)
pytestmark = pytest.mark.filterwarnings("ignore:.*multiplies by its weight", "ignore:The PyTorch API of nested")


def measured(model: nn.Module, batch: Batch) -> Tensor:
    with torch.no_grad():
        found = outputs(model, batch)
    assert torch.isfinite(found).all()
    return found


def dense_twin(model: nn.Module, dense: nn.Module) -> nn.Module:
    """The dense model with the matrices of the compressed one written out, where it has the same modules."""
    twin = copy.deepcopy(dense)
    with torch.no_grad():
        for name, module in model.named_modules():
            if isinstance(module, Structured):
                place = twin.get_submodule(name)
                place.weight.copy_(module.stored())
                if getattr(module, "bias", None) is not None:
                    place.bias = nn.Parameter(module.bias.detach().clone())
    return twin


@pytest.mark.parametrize("method", ["svd", "kfac", "wanda"])
@classes
def test_a_compressed_model_is_the_one_of_its_dense_matrices(name: str, method: str) -> None:
    model, batch = ZOO[name]()
    before = measured(model, batch)
    unfuse(model)
    total = sum(p.numel() for p in model.parameters())
    taken = sum(site.weight.numel() for site in find_sites(model, embeddings=True, head=True))
    result = eckart.compress(
        model,
        method,
        keep=1 - 0.4 * taken / total,
        of="parameters",
        embeddings=True,
        head=True,
        calibration=[batch],
    )
    assert any(isinstance(m, StructuredLinear) for m in model.modules())
    found = measured(model, batch)
    assert not torch.equal(found, before)
    dense, _ = ZOO[name]()
    unfuse(dense)
    torch.testing.assert_close(found, measured(dense_twin(model, dense), batch), rtol=2e-3, atol=2e-4)
    torch.testing.assert_close(outputs(model.train(), batch).shape, found.shape)
    assert result.model is model


@classes
def test_what_does_not_train_stays_so(name: str) -> None:
    model, batch = ZOO[name]()
    unfuse(model)
    for i, module in enumerate(model.modules()):
        for p in module.parameters(recurse=False):
            p.requires_grad_(i % 2 == 0)
    before = {place: p.requires_grad for place, p in model.named_parameters()}
    eckart.compress(model, "svd", keep=0.9, of="parameters", embeddings=True, head=True, calibration=[batch])
    for place, p in model.named_parameters():
        if ".structure." in place:
            weight = place.partition(".structure.")[0] + ".weight"
            assert p.requires_grad == before.get(weight, p.requires_grad), place
        elif place in before:
            assert p.requires_grad == before[place], place


@classes
def test_an_adapter_changes_the_output_and_trains_in_training_and_evaluation(name: str) -> None:
    model, batch = ZOO[name]()
    before, running = measured(model, batch), [buffer.clone() for buffer in model.buffers()]
    adapter = eckart.adapt(model, "lora", rank=2)
    torch.testing.assert_close(measured(model, batch), before, rtol=1e-4, atol=1e-5)
    optimizer = torch.optim.SGD(adapter.trainable_parameters(), lr=1e-2)
    model.train()
    for _ in range(2):
        optimizer.zero_grad()
        found = outputs(model, batch)
        (found * normal(*found.shape)).sum().backward()  # a norm at the end would leave the sum of squares as it is
        optimizer.step()
        adapter.step()
    model.eval()
    with torch.no_grad():
        for buffer, own in zip(model.buffers(), running, strict=True):
            buffer.copy_(own)
    reached = [place.reached for place in adapter.places.values()]
    moved = [place for place in adapter.places.values() if any(float(p.norm()) > 0 for p in place.path().parameters())]
    assert sum(reached) > 0.7 * len(reached)
    assert len(moved) == len(reached)
    trained = measured(model, batch)
    assert float((trained - before).norm()) > 1e-6 * float(before.norm())
    adapter.merge()
    torch.testing.assert_close(measured(model, batch), trained, rtol=1e-3, atol=1e-3)
    adapter.unmerge()
    adapter.remove()
    torch.testing.assert_close(measured(model, batch), before, rtol=1e-5, atol=1e-5)
    fresh, _ = ZOO[name]()
    assert [n for n, _ in model.named_parameters()] == [n for n, _ in fresh.named_parameters()]


@classes
def test_a_diagnosis_has_a_row_for_every_matrix_that_compression_takes(name: str) -> None:
    model, _ = ZOO[name]()
    kept = {n: p.clone() for n, p in model.named_parameters()}
    found = eckart.diagnose(model)
    assert dict(model.named_parameters()).keys() == kept.keys()
    result = eckart.compress(model, "svd", keep=0.95, of="parameters", embeddings=True, head=True)
    assert [row["name"] for row in found.rows] == [site.name for site in result.plan.sites]
    assert found.coverage is not None
    assert found.coverage.sentence == result.coverage.sentence
