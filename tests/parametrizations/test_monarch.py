"""Monarch from the start: the numbers it may have, the variance it starts with, and the projection."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import eckart
from eckart.errors import Refused
from eckart.parametrizations.contract import Layer
from eckart.parametrizations.monarch import monarch
from eckart.structures import Monarch
from support import hard


def layer(weight: torch.Tensor, seed: int = 0) -> Layer:
    return Layer(weight, None, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(48, 64), (13, 40), (36, 27), (7, 7)])
@pytest.mark.parametrize("keep", [0.3, 0.5, 1.0])
def test_it_has_as_many_numbers_as_it_may_and_a_rank_more_had_too_many(shape: tuple[int, int], keep: float) -> None:
    structure = monarch(layer(hard.normal(*shape)), keep=keep)
    (a, rows, _), (b, outer, columns) = structure.left.shape, structure.right.shape
    rank = outer // a
    one = a * shape[1] + b * shape[0]
    assert structure.cost().parameters == rank * one <= keep * shape[0] * shape[1]
    assert rank == min(rows, columns) or (rank + 1) * one > keep * shape[0] * shape[1]


def test_the_layers_of_the_authors_have_half_of_the_numbers() -> None:
    structure = monarch(layer(hard.normal(64, 64)))
    assert structure.left.shape == structure.right.shape == (4, 16, 16)


@pytest.mark.parametrize("keep", [0.2, 0.8])
def test_entries_have_the_variance_of_the_dense_matrix(keep: float) -> None:
    w = 0.03 * hard.normal(256, 512)
    found = monarch(layer(w), keep=keep).to_dense().detach()
    assert float(found.square().mean() / w.square().mean()) == pytest.approx(1, abs=0.05)
    assert abs(float(found.mean())) < 0.01 * float(w.std())
    dense, outputs = w.square().sum(1), found.square().sum(1)
    assert float(outputs.mean() / dense.mean()) == pytest.approx(1, abs=0.05)


def test_a_trained_matrix_is_projected_as_compression_does() -> None:
    w = hard.normal(32, 48)
    structure = monarch(layer(w), keep=0.5, projected=True)
    terms = structure.right.shape[1] // structure.left.shape[0]
    torch.testing.assert_close(structure.to_dense(), eckart.fit(w, "monarch", terms=terms).to_dense())
    again = monarch(layer(structure.to_dense().detach()), keep=0.5, projected=True)
    torch.testing.assert_close(again.to_dense(), structure.to_dense())


def test_a_convolution_is_its_matrix_of_filters() -> None:
    net = nn.Sequential(nn.Conv2d(8, 16, 3)).double()
    x = hard.normal(2, 8, 7, 7)
    eckart.reparametrize(net, "monarch", keep=0.4)
    structure = net[0].structure
    assert isinstance(structure, Monarch)
    filters = structure.to_dense().view(16, 8, 3, 3)
    torch.testing.assert_close(net(x), nn.functional.conv2d(x, filters, net[0].bias))


def test_what_cannot_be_had_is_refused() -> None:
    for words, options in {
        r"keep=0 is not in \(0, 1\]": {"keep": 0},
        "blocks=0 must be at least 1": {"blocks": 0},
    }.items():
        with pytest.raises(Refused, match=words):
            monarch(layer(hard.normal(8, 8)), **options)  # type: ignore[arg-type]
    with pytest.raises(Refused, match=r"its smallest Monarch matrix has 24 numbers, more than 0\.1 of it"):
        monarch(layer(hard.normal(6, 6)), keep=0.1)
    with pytest.raises(Refused, match="it is zero"):
        monarch(layer(torch.zeros(8, 8)))
