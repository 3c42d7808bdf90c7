"""A structure as what any program has: sums of products of matrices, diagonals and integers with scales."""

from __future__ import annotations

import functools
from collections.abc import Container, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eckart.errors import Refused
from eckart.models.convolution import StructuredConv2d
from eckart.models.experts import mixtures
from eckart.models.fused_experts import is_packed
from eckart.models.modules import Structured, StructuredLinear
from eckart.structures import Chain, Dense, Diagonal, Quantized, StructuredMatrix, Sum


def factored(model: nn.Module, source: str, form: str) -> dict[str, list[list[StructuredMatrix]]]:
    """The linear maps of a model that are smaller than ordinary matrices in such terms, with these by name.

    A factor of another kind is taken as an ordinary matrix; where a structure would grow by that, it is left out.

    Raises:
        Refused: a mixture of experts, or a structure that is no matrix.
    """
    if mixtures(model) or any(is_packed(module) for module in model.modules()):
        raise Refused(f"{source} is a mixture of experts, which is not written as {form}: export --to dense")
    found = {}
    for name, module in model.named_modules():
        if isinstance(module, StructuredLinear) and not isinstance(module, StructuredConv2d):
            structure = module.structure
            if not structure.linear:
                raise Refused(f"{name} of {source} rounds its inputs or chooses by them, which {form} does not say")
            terms = _terms(structure)
            if sum(_bytes(each) for term in terms for each in term) < 4 * structure.shape[0] * structure.shape[1]:
                found[name] = terms
    return found


def made_ordinary(model: nn.Module, kept: Container[str]) -> str:
    """Said of compressed matrices that become ordinary ones, because their terms are none of these: "" for none."""
    compressed = [(name, module.structure) for name, module in model.named_modules() if isinstance(module, Structured)]
    left = [type(each).__name__ for name, each in compressed if name not in kept and not isinstance(each, Dense)]
    return f", {len(left)} compressed ones as ordinary matrices ({', '.join(sorted(set(left)))})" if left else ""


def _terms(structure: StructuredMatrix) -> list[list[StructuredMatrix]]:
    if isinstance(structure, Sum):
        return [term for part in structure.operands() for term in _terms(part)]
    return [_chained(structure)]


def _chained(structure: StructuredMatrix) -> list[StructuredMatrix]:
    if isinstance(structure, Chain):
        return [factor for part in structure.operands() for factor in _chained(part)]
    return [structure]


def _bytes(factor: StructuredMatrix) -> float:
    """What a factor takes, in bytes for numbers of 32 bits."""
    if isinstance(factor, Quantized):
        return factor.shape[0] * factor.shape[1] * factor.bits / 8 + 4 * factor.scales.numel()
    return 4.0 * (factor.shape[0] if isinstance(factor, Diagonal) else factor.shape[0] * factor.shape[1])


class Product(nn.Module):
    """y = x W^T + b, W the sum over t of products over f of the factors whose tensors are called `t.f.*`.

    A factor is `weight`, a matrix (out, in) or a diagonal (out,), or the codes that `tensors` describes.

    Args:
        name: of the map in its model.
        parts: the tensors.
        bias: b (out,) or None.
    """

    def __init__(self, name: str, parts: Mapping[str, Tensor], bias: Tensor | None) -> None:
        super().__init__()
        self.name = name
        places = sorted({tuple(map(int, name.split(".")[:2])) for name in parts})
        self.terms = [[f"{t}_{f}_" for t, f in places if t == term] for term in sorted({t for t, _ in places})]
        for name, tensor in parts.items():
            self.register_buffer(name.replace(".", "_"), tensor)
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        found = []
        for term in self.terms:
            z = x
            for factor in reversed(term):
                z = self.times(z, factor)
            found.append(z)
        bias = self._buffers["bias"]
        return functools.reduce(torch.add, found if bias is None else [*found, bias])

    @property
    def weight(self) -> Tensor:
        """W is in factors, and a model that reads it instead of calling the map has no use for them."""
        raise Refused(
            f"the model multiplies by the weight of {self.name} itself, where there is none in factors and codes: "
            f"compress with --exclude {self.name!r}, or export --to dense"
        )

    def times(self, x: Tensor, factor: str) -> Tensor:
        """x F^T of a factor F."""
        weight = self._buffers.get(f"{factor}weight")
        if weight is None:
            parts = {name: self._buffers.get(f"{factor}{name}") for name in ("codes", "scales", "zeros", "levels")}
            weight = decoded(parts, x.shape[-1])
        return x * weight if weight.ndim == 1 else F.linear(x, weight)


def tensors(terms: list[list[StructuredMatrix]]) -> dict[str, Tensor]:
    """The tensors of a matrix under the names that `Product` knows, `t.f.part`.

    Of codes: `codes` (out, in), uint8, two or four in a byte where they have 4 or 2 bits at most and fill bytes, the
    first in the lowest bits; `scales` (out, groups), groups of one size; and either `zeros` (out, groups), uint8, or
    `levels`, the numbers that codes stand for.
    """
    found: dict[str, Tensor] = {}
    # A permutation has no numbers and takes the dtype of those beside it.
    dtype = next(p.dtype for term in terms for each in term for p in each.parameters() if p.is_floating_point())
    for t, term in enumerate(terms):
        for f, factor in enumerate(term):
            parts = _coded(factor) if isinstance(factor, Quantized) else {"weight": _matrix(factor).to(dtype)}
            found |= {f"{t}.{f}.{name}": tensor.contiguous() for name, tensor in parts.items()}
    return found


def decoded(parts: Mapping[str, Any], inputs: int) -> Tensor:
    """The matrix (out, inputs) of the tensors of codes, in the dtype of their scales."""
    codes, scales, zeros, levels = (parts[name] for name in ("codes", "scales", "zeros", "levels"))
    each = inputs // codes.shape[1]
    shifts = torch.arange(each, dtype=torch.uint8) * (8 // each)
    numbers = (codes[..., None] >> shifts & 2 ** (8 // each) - 1).flatten(1)
    values = numbers.to(scales.dtype) if levels is None else levels[numbers.long()]
    values = values.view(len(scales), scales.shape[1], -1)
    if zeros is not None:
        values = values - zeros[..., None]
    found: Tensor = (values * scales[..., None]).flatten(1)
    return found


def _matrix(factor: StructuredMatrix) -> Tensor:
    if isinstance(factor, Diagonal):
        return next(iter(factor.leaves().values())).detach()
    return factor.to_dense().detach()


def _coded(factor: Quantized) -> dict[str, Tensor]:
    codes, (scales, zeros) = factor.unpacked(), even(factor)
    each = 4 if factor.bits == 2 else 2 if factor.bits <= 4 else 1
    each = each if factor.columns % each == 0 else 1
    runs = codes.view(len(codes), -1, each)
    packed = torch.zeros_like(runs[..., 0])
    for place in range(each):
        packed |= runs[..., place] << (place * (8 // each))
    parts = {"codes": packed, "scales": scales}
    return {**parts, "zeros": zeros} if factor.codebook is None else {**parts, "levels": factor.codebook.detach()}


def even(factor: Quantized) -> tuple[Tensor, Tensor]:
    """Scales and zero-points (out, groups) of groups of one size, the greatest that serves all, repeated for that."""
    size = torch.tensor(min(factor.group, factor.columns)).gcd(torch.tensor(factor.columns)).item()
    places = torch.arange(factor.columns // int(size)) * int(size) // factor.group
    scales = factor.scales.detach()
    zeros = torch.full_like(scales, 1 << (factor.bits - 1)).to(torch.uint8) if factor.zeros is None else factor.zeros
    return scales[:, places], zeros[:, places]
