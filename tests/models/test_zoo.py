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
from support.zoo import Batch, outputs, zoo

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
