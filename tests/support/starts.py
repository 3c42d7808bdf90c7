"""One matrix with statistics of random data, and what an adapter starts from there."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from eckart.adapters.contract import ADAPTERS, Layer, Start
from eckart.statistics import Statistics
from eckart.structures import Chain, Dense, StructuredMatrix
from support import hard

RANK = 3
SHAPES = pytest.mark.parametrize("shape", [(12, 20), (20, 12), (12, 12)], ids=str)


def layer(weight: Tensor, *, rank: int = RANK, scale: float = 1.0, moment: Tensor | None = None) -> Layer:
    out, columns = weight.shape
    x, g = hard.normal(40, columns, seed=1) + torch.linspace(-2, 2, columns), hard.normal(40, out, seed=2)
    known = Statistics(
        tokens=40,
        input_second_moment=x.T @ x / 40 if moment is None else moment,
        input_mean=x.mean(0),
        fisher_rows=g.square().mean(0) * torch.logspace(0, -3, out, dtype=torch.float64),
        fisher_columns=x.square().mean(0),
    )
    return Layer(weight, known, rank, scale, torch.Generator().manual_seed(0), (g.T @ x / 40).float())


def begin(method: str, made: Layer) -> tuple[Start, Tensor]:
    start = ADAPTERS[method].entry(made)
    return start, made.scale * start.path.to_dense().detach().double()


def factors(start: Start) -> list[Tensor]:
    assert isinstance(start.path, Chain)
    return [part.to_dense().detach().double() for part in start.path.operands() if isinstance(part, Dense)]


def assert_triplets(method: str, shape: tuple[int, int], *, leading: bool) -> StructuredMatrix:
    """The path of an adapter that starts from the first or the last singular triplets of W, which is checked."""
    w = hard.normal(*shape)
    start, product = begin(method, layer(w))
    u, s, vh = torch.linalg.svd(w, full_matrices=False)
    part = slice(0, RANK) if leading else slice(-RANK, None)
    torch.testing.assert_close(product, (u[:, part] * s[part]) @ vh[part])
    assert start.split
    return start.path
