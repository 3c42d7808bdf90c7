"""A net of convolutions of all sorts, images for it, and filters."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from eckart import METHODS, Statistics
from eckart.compressors.contract import Family
from eckart.structures import Geometry, StructuredMatrix, geometry_of
from support import hard

KERNELS = ("spatial-svd", "tucker-2", "cp")

GEOMETRIES = [
    {"kernel_size": 3},
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": (3, 2), "stride": (2, 1), "padding": (0, 2), "dilation": (1, 2)},
    {"kernel_size": (2, 2), "padding": "same"},
    {"kernel_size": (2, 3), "padding": "same", "dilation": (1, 2)},
    {"kernel_size": (1, 3), "stride": 2, "padding": "valid"},
    {"kernel_size": (3, 1), "stride": (1, 3), "padding": (1, 0)},
    {"kernel_size": (1, 2), "dilation": 3},
    {"kernel_size": 1, "stride": 2, "padding": 1},
    {"kernel_size": 1},
]

geometries = pytest.mark.parametrize("options", GEOMETRIES, ids=str)


def by_matrix(structure: StructuredMatrix, options: dict, x: Tensor) -> Tensor:
    """What PyTorch makes of the structure's matrix as a filters."""
    layer = nn.Conv2d(x.shape[-3], structure.shape[0], **options, bias=False).double()
    layer.weight = nn.Parameter(structure.to_dense().detach().double().reshape(layer.weight.shape))
    return layer(x)


def geometry(options: dict) -> Geometry:
    found = geometry_of(nn.Conv2d(1, 1, **options))
    assert found is not None
    return found


class Net(nn.Module):
    """Convolutions of all sorts; two read one tensor, activations work in place, the head is linear."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.first = nn.Conv2d(2, 8, 3, padding=1)
            self.norm = nn.BatchNorm2d(8)
            self.act = nn.ReLU(inplace=True)
            self.second = nn.Conv2d(8, 12, (3, 2), stride=2, padding=(1, 0), dilation=(1, 2), bias=False)
            self.short = nn.Conv2d(8, 12, 1, stride=2)
            self.third = nn.Conv2d(12, 8, 3, padding="same")
            self.head = nn.Linear(8, 5)

    def features(self, x: Tensor) -> dict[str, Tensor]:
        """Inputs and outputs of the convolutions."""
        a = self.first(x)
        b = self.act(self.norm(a).clone())
        c, d = self.second(b), self.short(b)
        e = c[..., :4] + d[..., :4]
        f = self.third(e)
        return {"first": (x, a), "second": (b, c), "short": (b, d), "third": (e, f)}

    def forward(self, x: Tensor) -> Tensor:
        a = self.act(self.first(x)) if self.training else self.act(self.norm(self.first(x)))
        c = self.second(a)[..., :4] + self.short(a)[..., :4]
        y: Tensor = self.head(self.third(c).mean((2, 3)))
        return y


def net(seed: int = 0) -> Net:
    return Net(seed).eval()


def images(n: int = 6, seed: int = 3) -> Tensor:
    return hard.normal(n, 2, 10, 10, seed=seed).float()


def normal_filters(*shape: int, seed: int = 0) -> Tensor:
    return hard.normal(*shape, seed=seed)


def family(name: str, filters: Tensor) -> Family:
    return METHODS.find(name).entry(filters.flatten(1), Statistics(patch=(filters.shape[2], filters.shape[3])))


def chosen(family: Family) -> list[int]:
    sizes = list(family.sizes)
    return list(dict.fromkeys([sizes[0], sizes[len(sizes) // 2], sizes[-1]])) if sizes else []
