"""Low rank and sparse: the product written out, how places are drawn, and what a step forms."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import eckart.ops.sparse_product as product
from eckart.errors import Refused
from eckart.parametrizations._sparse import drawn
from eckart.parametrizations.contract import Layer
from eckart.parametrizations.sltrain import sltrain
from support import hard


def layer(out: int = 24, columns: int = 40) -> Layer:
    return Layer(hard.normal(out, columns), None, torch.Generator().manual_seed(0))


def test_it_is_a_product_and_the_entries_at_places_of_16_bits() -> None:
    made = sltrain(layer(), delta=0.1, keep=0.5, alpha=6.0)
    scaled, sparse = made.operands()
    left, right = scaled.operands()[0].operands()
    rank = left.shape[1]
    assert rank == (480 - 96) // 64
    assert not left.weight.any()
    torch.testing.assert_close(made.to_dense() != 0, sparse.to_dense() != 0)
    assert torch.equal(sparse.to_dense(), layer().weight * (sparse.to_dense() != 0))
    assert len(sparse.values) == 96
    assert sparse.columns.dtype == torch.int16
    with torch.no_grad():
        left.weight.normal_(generator=torch.Generator().manual_seed(1))
    x = hard.normal(5, 40, seed=2)
    dense = 6.0 / rank * left.weight @ right.weight + sparse.to_dense()
    torch.testing.assert_close(made(x), x @ dense.T)
    assert sltrain(layer(), delta=0.1, keep=0.5, of="bytes").cost().bytes <= 0.5 * 960 * 8
    for words, options in {
        r"rank=-2 is not in 0\.\.24": {"rank": -2},
        r"delta=0 is not in \(0, 1\]": {"delta": 0},
        "alpha=-1 must be finite and positive": {"alpha": -1},
        "more than 0.1 of the 960": {"keep": 0.1, "delta": 0.1},
    }.items():
        with pytest.raises(Refused, match=words):
            sltrain(layer(), **options)


def test_all_places_are_as_likely() -> None:
    generator = torch.Generator().manual_seed(0)
    for count in (3, 9):
        found = torch.zeros(12)
        for _ in range(400):
            places = drawn(count, 12, generator)
            assert len(places) == count == len(places.unique())
            found[places] += 1
        expected = 400 * count / 12
        assert (found - expected).abs().max() < 4 * (expected * (1 - count / 12)) ** 0.5


class Largest(TorchDispatchMode):
    """The number of entries of the largest tensor that was made."""

    entries = 0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):  # type: ignore[no-untyped-def]
        found = function(*arguments, **(options or {}))
        for each in found if isinstance(found, tuple | list) else [found]:
            if isinstance(each, torch.Tensor):
                self.entries = max(self.entries, each.numel())
        return found


def test_neither_the_matrix_nor_its_gradient_is_formed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(product, "PIECE", 1000)
    big = Layer(hard.normal(200, 300), None, torch.Generator().manual_seed(0))
    x = hard.normal(4, 300, seed=2).requires_grad_()
    with Largest() as seen:
        made = sltrain(big, delta=0.05, rank=2)
    assert seen.entries < 20_000  # of the 60,000 of the matrix
    with torch.no_grad():
        made.operands()[0].operands()[0].operands()[0].weight.normal_(generator=torch.Generator().manual_seed(1))
    with Largest() as seen:
        made(x).square().sum().backward()
    assert seen.entries < 10_000
    mine = {name: p.grad for name, p in made.named_parameters()}
    made.zero_grad()
    (x @ made.to_dense().T).square().sum().backward()
    for name, p in made.named_parameters():
        torch.testing.assert_close(mine[name], p.grad)
