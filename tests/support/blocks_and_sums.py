"""Shapes, inputs and dense forms for papers that store a matrix as blocks or sums."""

from __future__ import annotations

import pytest
from torch import Tensor

import eckart
from eckart import Statistics
from support import hard

NOTHING = Statistics()

SHAPES = [(12, 20), (20, 12), (16, 16), (13, 12), (12, 13), (13, 17), (7, 9), (3, 40), (40, 3), (36, 64)]

shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)


def moment(columns: int, tokens: int = 200, seed: int = 0) -> Tensor:
    mixing = hard.orthogonal(columns, seed) * hard.decaying(columns, 1.5)
    x = hard.normal(tokens, columns, seed=seed) @ mixing.T
    return x.T @ x / tokens


def statistics(columns: int, tokens: int = 200) -> Statistics:
    return Statistics(tokens=tokens, input_second_moment=moment(columns, tokens))


def dense(structure: eckart.StructuredMatrix) -> Tensor:
    return structure.to_dense().detach()
