"""Sparse iso-FLOP forms: multiply-adds are those of the matrix, and entries move."""

from __future__ import annotations

import pytest
import torch

import eckart
from eckart.errors import Refused
from eckart.parametrizations._sparse import parts_of
from eckart.parametrizations.contract import Layer
from eckart.parametrizations.sparse_ift import sparse_ift
from support import hard
from support.reparametrizing import optimizer_of, perceptron, train


def test_multiply_adds_are_those_of_the_matrix() -> None:
    layer = Layer(hard.normal(120, 200), None, torch.Generator().manual_seed(0))
    for form in ("factorized", "parallel", "doped"):
        for sparsity in (0.5, 0.75, 0.9):
            made = sparse_ift(layer, form=form, sparsity=sparsity)
            assert made.cost().macs == pytest.approx(24_000, rel=0.02)
            assert made.shape == (120, 200)
    inner = sparse_ift(layer, sparsity=0.9).operands()[0].shape[1]
    assert inner == 750  # (1 - s) d (out + in) = out in
    assert len(sparse_ift(layer, form="parallel", sparsity=0.9).operands()) == 10
    for words, options in {
        r"form='wide' changes the sizes of the neighbours: make the model .* = 2 times as wide": {"form": "wide"},
        "form='deep' is none of": {"form": "deep"},
        r"sparsity=1\.0 is not in \(0, 1\)": {"sparsity": 1.0},
        r"sparsity=0\.2 makes one branch": {"sparsity": 0.2, "form": "parallel"},
    }.items():
        with pytest.raises(Refused, match=words):
            sparse_ift(layer, **options)


@pytest.mark.parametrize("form", ["factorized", "parallel", "doped"])
def test_entries_move_in_every_part_and_multiply_adds_are_shown(form: str) -> None:
    net = perceptron()
    made = eckart.reparametrize(net, "sparse-ift", form=form, every=3)
    assert "multiply-adds of a product" in str(made.glance())
    before = {name: part.places.clone() for name, part in parts_of(made.structures)}
    assert len(before) == 3 * {"factorized": 2, "parallel": 4, "doped": 1}[form]
    optimizer = optimizer_of(net)
    losses = train(net, made.schedule(optimizer, 12), optimizer, 12)
    assert losses[-1] < losses[0]
    assert all(not torch.equal(part.places, before[name]) for name, part in parts_of(made.structures))
    macs = sum(each.cost().macs for each in made.structures.values())
    made.finish()
    assert sum(each.cost().macs for each in made.structures.values()) == macs
