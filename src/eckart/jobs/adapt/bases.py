"""What an adapter stands beside: the matrix of a dense or a structured layer, read and changed."""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import chain

import torch
from torch import Tensor, nn

from eckart.models.layers import is_conv1d
from eckart.models.modules import StructuredLinear
from eckart.models.sites import Site
from eckart.structures import Dense, Quantized, Scaled, StructuredMatrix, Sum

Kept = tuple[Tensor | StructuredMatrix, ...]
"""A matrix kept to be put back; in a tuple, so that a module does not register it as a part of itself."""


def matrix_shape(base: nn.Module) -> tuple[int, int]:
    """(out, in) of a linear layer, or of the flattened filters of a convolution."""
    return base.structure.shape if isinstance(base, StructuredLinear) else Site("", base).shape


def dense_of(base: nn.Module) -> Tensor:
    """W (out, in) of a linear layer or a convolution."""
    return structure_of(base).to_dense().detach()


def structure_of(base: nn.Module) -> StructuredMatrix:
    """W as a structure; an ordinary matrix is dense, a view."""
    return base.structure if isinstance(base, StructuredLinear) else Dense(Site("", base).weight).requires_grad_(False)


def on_cpu(structure: StructuredMatrix) -> StructuredMatrix:
    """It, or a copy in the memory of the CPU where it lies elsewhere."""
    return structure if structure.device.type == "cpu" else copy.deepcopy(structure).to("cpu")


def put(base: nn.Module, structure: StructuredMatrix) -> None:
    """Makes W that of a structure, which an ordinary matrix takes as a dense one."""
    if isinstance(base, StructuredLinear):
        base.structure = structure
        return
    weight: nn.Parameter = base.weight  # type: ignore[assignment]
    weight.data = Site("", base).stored(structure.to_dense()).to(weight.dtype).contiguous()


def kept(base: nn.Module) -> Kept:
    """W of a base as it is stored now, for `put_back`."""
    if isinstance(base, StructuredLinear):
        return (base.structure,)
    weight: nn.Parameter = base.weight  # type: ignore[assignment]
    return (weight.data,)


def put_back(base: nn.Module, before: Kept) -> None:
    """Makes W what it was when it was kept, on the device and in the dtype that the base has by now."""
    if isinstance(base, StructuredLinear):
        structure, now = before[0], next(chain(base.structure.parameters(), base.structure.buffers()))
        assert isinstance(structure, StructuredMatrix)
        base.structure = structure.to(now.device)
        return
    weight: nn.Parameter = base.weight  # type: ignore[assignment]
    assert isinstance(before[0], Tensor)
    weight.data = before[0].to(weight)


@torch.no_grad()
def kept_still(base: nn.Module, before: Kept, taken: StructuredMatrix) -> Kept:
    """What was kept of a base that something was taken out of, or W again where the base was loaded anew since."""
    if isinstance(base, StructuredLinear):
        return before  # whose tensors are those that were loaded
    weight: nn.Parameter = base.weight  # type: ignore[assignment]
    now = weight.data
    put_back(base, before)
    add_to(base, taken, -1.0)
    unchanged = torch.equal(weight.data, now)
    weight.data = now
    if unchanged:
        return before
    add_to(base, taken, 1.0)
    again = kept(base)
    weight.data = now
    return again


def structure_of_kept(base: nn.Module, before: Kept) -> StructuredMatrix:
    """W as it was when it was kept, as a structure."""
    (matrix,) = before
    if isinstance(matrix, StructuredMatrix):
        return matrix
    return Dense(matrix.T if is_conv1d(base) else matrix.flatten(1)).requires_grad_(False)


def add_to(base: nn.Module, path: StructuredMatrix, sign: float) -> None:
    """Adds a path to W or takes it out: of an ordinary matrix the sum, of a structure a sum with a last term."""
    if isinstance(base, StructuredLinear):
        base.structure = Sum(base.structure, Scaled(path, scale=sign))
        return
    weight: nn.Parameter = base.weight  # type: ignore[assignment]
    change = Site("", base).stored(path.to_dense())
    # A new tensor: the old one is kept, and may be mapped from a file.
    exact = torch.promote_types(weight.dtype, change.dtype)
    weight.data = weight.to(exact).add(change.to(exact), alpha=sign).to(weight.dtype)


def merged(
    structure: StructuredMatrix, path: StructuredMatrix, constant: Callable[[StructuredMatrix], StructuredMatrix]
) -> StructuredMatrix:
    """A structure with a path added: dense and quantized ones in their own form, others as a sum with a constant."""
    if not isinstance(structure, Dense | Quantized):
        return Sum(structure, constant(path))
    device = structure.device
    total = structure.to_dense().cpu().double() + path.to_dense().cpu().double()
    if isinstance(structure, Quantized):
        return Quantized.quantize(
            total.to(torch.promote_types(structure.dtype, torch.float32)),
            structure.bits,
            structure.group,
            symmetric=structure.zeros is None and structure.codebook is None,
            codebook=None if structure.codebook is None else structure.codebook.cpu(),
            dtype=structure.dtype,
        ).to(device)
    return Dense(total.to(structure.dtype)).to(device)
