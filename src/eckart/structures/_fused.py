"""Several matrices multiplied in one call of compiled code."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from eckart.ops.native.layouts import Layout, Options
from eckart.ops.native.programs import Part, Program, Recipe
from eckart.structures.base import StructuredMatrix

FEW = 4
"""Vectors up to which one call for all matrices is faster than PyTorch's products one by one."""


def part(
    matrix: StructuredMatrix, layout: Layout, names: tuple[str, ...], options: Options = (), source: int = -1
) -> Part:
    """Leaves of a structure, by name, as one matrix of a recipe; a name that it has no leaf for stands for none."""
    floats, others = matrix._parameters, matrix._buffers
    missing: dict[str, Tensor | None] = dict.fromkeys(names)
    tables = [floats if name in floats else others if name in others else missing for name in names]
    return Part(layout, tuple(zip(tables, names, strict=True)), options, source)


def one_after_another(recipes: list[Recipe]) -> Recipe:
    """What multiplies by the first, by the second what that gives, and so on."""
    stages: list[tuple[Part, ...]] = []
    for recipe in recipes:
        last, before = len(stages) - 1, len(stages)
        stages += [tuple(p._replace(source=last if p.source < 0 else p.source + before) for p in ps) for ps in recipe]
    return tuple(stages)


def side_by_side(recipes: list[Recipe]) -> Recipe:
    """What adds up all of their products."""
    stages: list[tuple[Part, ...]] = []
    last: list[Part] = []
    for recipe in recipes:
        before = len(stages)
        moved = [
            tuple(p._replace(source=p.source if p.source < 0 else p.source + before) for p in parts) for parts in recipe
        ]
        stages += moved[:-1]
        last += moved[-1]
    return (*stages, tuple(last))


class Fused:
    """The program of a structure that multiplies by several matrices, and what it was made from."""

    __slots__ = ("_children", "_most", "_program", "_recipe", "_tables")

    def __init__(self) -> None:
        self._children: list[tuple[dict[str, Any], list[Any]]] = []
        self._recipe: Recipe | None = None
        self._most = -1
        self._tables: list[tuple[Any, str]] = []
        self._program = Program()

    def __reduce__(self) -> tuple[type[Fused], tuple[()]]:
        return Fused, ()  # copies have tensors of their own

    def __call__(self, matrix: StructuredMatrix, x: Tensor, bias: Tensor | None = None) -> Tensor | None:
        """`x @ W.T + bias` for a few vectors, in one call; None where its matrices are to be multiplied one by one.

        Args:
            matrix: W (rows, columns), that which this belongs to.
            x: (..., columns).
            bias: (rows,) or None.
        """
        if torch.compiler.is_compiling():
            return None
        if self._most < 0 or any(list(table.values()) != children for table, children in self._children):
            self._look(matrix)
        recipe = self._recipe
        if recipe is None or x.numel() > self._most or (bias is not None and bias.dtype != x.dtype):
            return None
        leaves = [table[name] for table, name in self._tables]
        leaves.append(bias)
        return self._program(x, recipe, leaves, bias)

    def _look(self, matrix: StructuredMatrix) -> None:
        """Writes down what the matrix is made of."""
        modules = [m for m in matrix.modules() if m._modules]
        self._children = [(m._modules, list(m._modules.values())) for m in modules]
        self._recipe = recipe = matrix.recipe()
        parts = [p for stage in recipe or () for p in stage]
        self._tables = [table for p in parts for table in p.tables]
        each = [1 if p.layout.by_columns is not None else p.layout.most or FEW for p in parts]
        self._most = min([FEW, *each]) * matrix.shape[1]
        self._program = Program()
