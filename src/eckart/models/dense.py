"""Ordinary layers in the places of structured ones."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from eckart.models.convolution import StructuredConv1d, StructuredConv2d
from eckart.models.fused_experts import unfuse
from eckart.models.modules import LookUp, Structured
from eckart.models.places import set_module
from eckart.models.sharing import share


class ScaledEmbedding(nn.Embedding):
    """An embedding whose rows are multiplied by a number when they are read."""

    embed_scale = 1.0

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) * self.embed_scale


def unpacked(model: nn.Module) -> nn.Module:
    """A copy of the module tree over the same tensors, packed ones taken apart: to read matrices, or write to them."""
    twin = share(model)
    unfuse(twin)
    return twin


def densified(model: nn.Module) -> nn.Module:
    """A model of the same outputs with an ordinary layer for every structure, packed matrices taken apart.

    The copy shares all other tensors, and tied layers share their matrix.
    """
    twin = unpacked(model)
    weights: dict[int, nn.Parameter] = {}
    for name, module in model.named_modules():
        if isinstance(module, Structured):
            key = id(module.structure)
            if key not in weights:
                weights[key] = nn.Parameter(module.structure.to_dense().detach(), requires_grad=False)
            set_module(twin, name, dense_layer(module, weights[key]))
    return twin


def dense_layer(module: Structured, weight: nn.Parameter) -> nn.Module:
    """An ordinary layer that does with a matrix of the structure's shape what a structured one does."""
    rows, columns = weight.shape
    if isinstance(module, LookUp):
        table = (nn.Embedding if module.scale == 1.0 else ScaledEmbedding)(rows, columns, device="meta")
        table.weight = weight
        if isinstance(table, ScaledEmbedding):
            table.embed_scale = module.scale
        return table
    bias = module.bias
    layer: nn.Linear | nn.Conv2d | nn.Conv1d
    if isinstance(module, StructuredConv2d):
        kind: Any = nn.Conv1d if isinstance(module, StructuredConv1d) else nn.Conv2d
        options = {name: getattr(module, name) for name in ("kernel_size", "stride", "padding", "dilation")}
        layer = kind(module.in_channels, rows, bias=bias is not None, device="meta", **options)
        layer.weight = nn.Parameter(module.as_stored(weight.detach()), requires_grad=False)
    else:
        layer = nn.Linear(columns, rows, bias=bias is not None, device="meta")
        layer.weight = weight
    layer.bias = bias  # type: ignore[assignment]
    return layer
