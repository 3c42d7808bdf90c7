"""WeLoRe: the factors that compression left train, and nothing else does."""

from __future__ import annotations

import torch

import eckart
from eckart.models.modules import StructuredLinear
from eckart.models.sites import linear_layers
from support.adapting import ids, train
from support.tiny import tiny_llama


def test_the_thin_factors_train_and_dense_matrices_are_frozen() -> None:
    model = tiny_llama()
    dense = {name: module.weight.detach().clone() for name, module in linear_layers(model).items() if "attn" in name}
    result = eckart.compress(model, "welore", keep=0.75, of="linear-parameters", include=["*.mlp.*"])
    thin = {name: size for name, size in result.choice.items() if size is not None}
    assert len(thin) == 6
    before = {name: model.get_submodule(name).structure.to_dense().detach().clone() for name in thin}  # type: ignore[operator, union-attr]
    expected = model(ids()).logits
    adapter = eckart.adapt(model, "welore")
    assert torch.equal(model(ids()).logits, expected)
    assert set(adapter.places) == set(thin)
    assert adapter.ranks == thin
    for name, path in adapter.paths.items():
        left, right = (p.detach() for p in path.parameters())
        assert all(p.requires_grad for p in path.parameters())
        torch.testing.assert_close(left @ right, before[name])
    losses = train(model, adapter)
    assert losses[-1] < losses[0]
    # Merged, the trained factors stand where the compressed ones stood: the same size, nothing added.
    trained = model(ids()).logits.detach()
    adapter.merge()
    adapter.remove()
    torch.testing.assert_close(model(ids()).logits.detach(), trained)
    for name, rank in thin.items():
        module = model.get_submodule(name)
        assert isinstance(module, StructuredLinear)
        left, right = module.structure.parameters()
        assert (left.shape[1], right.shape[0]) == (rank, rank)
        assert not torch.equal(module.structure.to_dense(), before[name])
    for name, weight in dense.items():
        assert torch.equal(model.get_submodule(name).weight, weight)


def test_beside_codes_the_product_trains_alone() -> None:
    model = tiny_llama()
    eckart.compress(model, "lq-lora", bits=3, calibration=ids(8), include=["*.mlp.*"])
    small = {name: module.structure for name, module in model.named_modules() if isinstance(module, StructuredLinear)}
    expected, size = model(ids()).logits, {name: structure.cost() for name, structure in small.items()}
    adapter = eckart.adapt(model, "welore")
    torch.testing.assert_close(model(ids()).logits, expected)
    assert set(adapter.places) == set(small)
    for name, path in adapter.paths.items():
        codes, product = path.operands()
        assert not any(p.requires_grad for p in codes.parameters())
        assert {id(p) for p in path.parameters() if p.requires_grad} == {id(p) for p in product.parameters()}
        assert adapter.ranks[name] == product.operands()[0].shape[1]
    losses = train(model, adapter)
    assert losses[-1] < losses[0]
    trained = model(ids()).logits.detach()
    adapter.merge()
    adapter.remove()
    torch.testing.assert_close(model(ids()).logits.detach(), trained)
    for name, structure in small.items():
        module = model.get_submodule(name)
        assert isinstance(module, StructuredLinear)
        assert module.structure.cost() == size[name]
        assert torch.equal(module.structure.operands()[0].to_dense(), structure.operands()[0].to_dense())
