"""Convolutions as sites: which are, replaced, counted, saved and given back."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import eckart
from eckart import StructuredConv2d, StructuredLinear
from eckart.jobs.compress.run import Recipe, run
from eckart.jobs.exports._ordinary import _fill
from eckart.models.checkpoint import check_manifest, manifest, rebuild
from eckart.models.places import replace
from eckart.models.sites import find_sites, model_cost
from eckart.structures import Dense, low_rank
from support.convolutions import images, net


class Odd(nn.Module):
    """Convolutions that are not one matrix over patches of zero-padded images, or not of one module."""

    def __init__(self) -> None:
        super().__init__()
        self.grouped = nn.Conv2d(4, 4, 3, groups=2)
        self.circular = nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular")
        self.transposed = nn.ConvTranspose2d(4, 4, 3)
        self.own = type("Own", (nn.Conv2d,), {})(4, 4, 3)
        self.a, self.b = nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3, stride=2)
        self.b.weight = self.a.weight
        self.plain = nn.Conv2d(4, 6, 3)
        self.again = self.plain


def test_which_convolutions_are_sites() -> None:
    sites = find_sites(Odd())
    assert [(site.name, site.tied, site.shape) for site in sites] == [("plain", ("again",), (6, 36))]


def test_replacing_by_the_same_matrix_changes_nothing_and_costs_are_counted() -> None:
    model, x = net(), images()
    expected, before = model(x), model_cost(model)
    filters = [m.weight.numel() for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert before["macs_per_token"] == sum(filters)
    assert before["linear_parameters"] == sum(filters) + 8 + 12 + 8 + 5
    assert before["parameters"] == sum(p.numel() for p in model.parameters())
    for site in find_sites(model):
        replace(model, site, Dense(site.weight.clone()))
    assert sum(type(m) is StructuredConv2d for m in model.modules()) == 4
    torch.testing.assert_close(model(x), expected)
    assert model_cost(model) == before


@pytest.mark.parametrize(
    ("place", "other"), [(nn.Linear(18, 4), "conv2d"), (nn.Conv2d(2, 4, 3), "linear"), (nn.BatchNorm2d(4), "conv2d")]
)
def test_a_file_cannot_put_a_convolution_where_none_was(place: nn.Module, other: str) -> None:
    entry = {"module": other, "bias": True, "structure": Dense(torch.ones(4, 18)).spec()}
    with pytest.raises(ValueError, match=f"a module of kind '{other}' cannot stand in for {type(place).__name__}"):
        rebuild(nn.Sequential(place), {"0": entry})


def test_a_file_states_the_module_and_the_kernel_must_fit() -> None:
    model = net()
    site = find_sites(model, ["second"])[0]
    replace(model, site, low_rank(torch.ones(12, 2), torch.ones(2, 48)))
    modules = check_manifest(manifest(model), "here")
    assert modules["second"]["module"] == "conv2d"
    other = net()
    other.second = nn.Conv2d(8, 12, 3)
    with pytest.raises(ValueError, match=r"second: a structure of shape \(12, 48\) does not fit a matrix of"):
        rebuild(other, modules)


def test_a_dense_convolution_takes_the_values_back() -> None:
    model, x = net(), images()
    eckart.compress(model, method="tucker-2", keep=0.6, of="linear-parameters", calibration=[images()])
    expected = model(x)
    for name, module in list(model.named_modules()):
        if isinstance(module, StructuredLinear):
            place = copy.deepcopy(net().get_submodule(name))
            _fill(place, module)
            setattr(model, name, place)
    assert not any(isinstance(m, StructuredLinear) for m in model.modules())
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)


def test_paths_beside_convolutions_make_up_for_what_was_lost() -> None:
    dense, model = net(), net()
    data = [images(32, seed=5)]
    eckart.compress(model, method="rtn", keep=0.5, of="bytes", calibration=data)
    small = copy.deepcopy(model)
    result = eckart.compensate(model, dense, rank=2, calibration=data)
    assert "second" in result.added
    assert all(added.after < added.before for added in result.added.values())
    x = images(32, seed=8)
    assert (model(x) - dense(x)).norm() < (small(x) - dense(x)).norm()


class Blocks(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(4, 4, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


@pytest.mark.parametrize("options", [{"sequential": True}, {"heal": 2}], ids=str)
def test_blocks_of_images_are_not_worked_on_one_by_one(options: dict) -> None:
    model = Blocks().eval()
    with pytest.raises(ValueError, match=r"layers\.0 is a convolution"):
        run(model, Recipe(method="svd", keep=0.5, **options), [images(2)[:, [0, 1, 0, 1]]], {})
    assert all(type(layer) is nn.Conv2d for layer in model.layers)
