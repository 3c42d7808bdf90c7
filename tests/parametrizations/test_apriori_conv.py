"""Chains of filters along one direction each, beside the sum of outer products that they are."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import eckart
from eckart.errors import Refused
from eckart.parametrizations.apriori_conv import apriori_conv
from eckart.parametrizations.contract import Layer
from support import hard


def layer(weight: Tensor) -> Layer:
    return Layer(weight.flatten(1), (weight.shape[2], weight.shape[3]), torch.Generator().manual_seed(0))


@pytest.mark.parametrize("terms", [1, 3])
def test_filters_are_sums_of_outer_products_of_three_vectors(terms: int) -> None:
    out, channels, height, width = 6, 8, 3, 5
    structure = apriori_conv(layer(hard.normal(out, channels, height, width)), terms=terms)
    h, v, b = (p.detach() for p in structure.parameters())
    expected = torch.einsum(
        "otc,oty,otx->ocyx", b.view(out, terms, channels), v.view(out, terms, height), h.view(out, terms, width)
    )
    torch.testing.assert_close(structure.to_dense(), expected.flatten(1))
    assert structure.cost().parameters == out * terms * (channels + height + width)


@pytest.mark.parametrize(
    "convolution",
    [
        nn.Conv2d(8, 6, 3, stride=2, padding=1),
        nn.Conv2d(8, 6, (1, 5), padding="same", bias=False),
        nn.Conv2d(8, 6, (3, 1), dilation=2),
        nn.Conv2d(4, 6, (3, 5), padding=(0, 2)),
        nn.Conv1d(8, 6, 5, padding=2),
    ],
    ids=str,
)
@pytest.mark.parametrize("terms", [1, 2])
def test_a_convolution_is_that_with_its_filters(convolution: nn.Conv2d | nn.Conv1d, terms: int) -> None:
    net = nn.Sequential(convolution).double()
    shape = (
        (2, convolution.in_channels, 11) if isinstance(convolution, nn.Conv1d) else (2, convolution.in_channels, 9, 11)
    )
    x = hard.normal(*shape, seed=3)
    eckart.reparametrize(net, "apriori-conv", terms=terms)
    weight = net[0].weight.detach()
    plain = type(convolution)(
        convolution.in_channels,
        6,
        convolution.kernel_size,  # type: ignore[arg-type]
        convolution.stride,  # type: ignore[arg-type]
        convolution.padding,  # type: ignore[arg-type]
        convolution.dilation,  # type: ignore[arg-type]
        bias=False,
    ).double()
    with torch.no_grad():
        plain.weight.copy_(weight)
    expected = plain(x)
    if net[0].bias is not None:
        expected = expected + net[0].bias.view(-1, *[1] * (x.ndim - 2))
    torch.testing.assert_close(net(x), expected)


def test_entries_have_the_variance_of_the_dense_filters() -> None:
    w = 0.05 * hard.normal(256, 64, 3, 3)
    for terms in (1, 4):
        found = apriori_conv(layer(w), terms=terms).to_dense().detach()
        assert float(found.square().mean() / w.square().mean()) == pytest.approx(1, abs=0.15)


def test_layers_without_patches_and_too_many_terms_are_left() -> None:
    net = nn.Sequential(nn.Conv2d(1, 16, 5), nn.Conv2d(16, 4, 3), nn.Conv2d(4, 4, 1), nn.Flatten(), nn.Linear(16, 3))
    made = eckart.reparametrize(net, "apriori-conv", terms=2)
    assert made.names == ["1"]
    assert set(made.left) == {"0", "2", "4"}
    assert all("no patches of several positions" in made.left[name] for name in ("2", "4"))
    assert "its 1 channels are few for 16 outputs: a factor would have 800 rows" in made.left["0"]
    with pytest.raises(Refused, match="terms=3 make 24 numbers an output, and dense filters have 18"):
        eckart.reparametrize(nn.Sequential(nn.Conv2d(2, 4, 3)), "apriori-conv", terms=3)
