"""Structures over patches: every one acts as its matrix does."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from eckart import StructuredConv2d
from eckart.compressors.cp import expression as canonical
from eckart.compressors.tucker_2 import expression as tucker
from eckart.structures import Chain, Dense, Interleaved, StructuredMatrix, low_rank
from support import hard
from support.cases import each
from support.convolutions import GEOMETRIES, by_matrix, geometries, geometry
from support.market import BUILDERS, Stall


@pytest.mark.parametrize("name", BUILDERS)
@each(options=GEOMETRIES)
def test_every_structure_acts_on_patches_as_its_matrix_does(name: str, options: dict) -> None:
    structure = BUILDERS[name](Stall(name, torch.float64))
    height, width = geometry(options).patch
    if structure.shape[1] % (height * width) or structure.shape[1] > 100:
        pytest.skip("no such patches")
    x = hard.normal(2, structure.shape[1] // (height * width), 7, 8).requires_grad_()
    module = StructuredConv2d(structure, hard.normal(structure.shape[0]), geometry(options))
    expected = by_matrix(structure, options, x) + module.bias[:, None, None]
    # A structure without float leaves is written out in float32.
    tolerance = 1e-10 if any(p.is_floating_point() for p in structure.parameters()) else 1e-5
    y = module(x)
    torch.testing.assert_close(y, expected, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(module(x[0]), y[0], rtol=1e-10, atol=1e-10)
    cotangent = hard.normal(*y.shape)
    gradients = [torch.autograd.grad(each, x, cotangent)[0] for each in (y, expected)]
    torch.testing.assert_close(*gradients, rtol=tolerance, atol=10 * tolerance)


def factored(height: int, width: int) -> dict[str, StructuredMatrix]:
    """What the methods make of filters, with random factors: 4 outputs, 3 channels."""
    area, vertical = height * width, Interleaved(Dense(hard.normal(2, 3 * height)), copies=width)
    return {
        "low-rank": low_rank(hard.normal(4, 2), hard.normal(2, 3 * area)),
        "spatial": Chain(
            Dense(hard.normal(4, 2 * width)), Interleaved(Dense(hard.normal(2, 3 * height)), copies=width)
        ),
        "tucker": tucker(hard.normal(4, 2), hard.normal(2, 2, height, width), hard.normal(3, 2)),
        "canonical": canonical([hard.normal(n, 5) for n in (4, 3, height, width)]),
        "vertical-alone": vertical,
    }


@geometries
@pytest.mark.parametrize("name", factored(1, 1))
def test_factors_are_convolutions_of_their_own(name: str, options: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    place = geometry(options)
    structure, x = factored(*place.patch)[name], hard.normal(2, 3, 9, 8)
    expected = by_matrix(structure, options, x)
    if name != "vertical-alone" and place.patch != (1, 1):
        monkeypatch.setattr(F, "unfold", None)  # patches are never written out
        monkeypatch.setattr(type(structure), "to_dense", None)  # nor is the matrix
    torch.testing.assert_close(StructuredConv2d(structure, None, place)(x), expected, rtol=1e-10, atol=1e-10)
