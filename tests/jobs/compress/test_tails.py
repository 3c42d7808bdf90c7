"""A model compressed by the tails of its spectra."""

from __future__ import annotations

import torch
from torch import nn

import eckart
from support import hard


def test_compress_by_tails() -> None:
    model = nn.Sequential(*(nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64)) for _ in range(3)))
    with torch.no_grad():
        for i, block in enumerate(model):
            for layer in block:
                decay = torch.arange(1, 65).double() ** -(0.1, 0.2, 0.5)[i]
                layer.weight.copy_(hard.with_spectrum(64, 64, decay, seed=i))
    result = eckart.compress(model, "svd", keep=0.5, of="linear-parameters", allocation="farms")
    sizes = [result.choice[f"{i}.{j}"] for i in range(3) for j in range(2)]
    assert sizes[0] == sizes[1] < sizes[2] == sizes[3] < sizes[4] == sizes[5]
