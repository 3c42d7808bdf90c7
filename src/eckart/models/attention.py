"""torch's attention as ordinary matrices."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eckart.errors import Refused
from eckart.models.views import linear, views


class Attention(nn.Module):
    """Stands in for nn.MultiheadAttention, whose four matrices it holds as nn.Linear over the same tensors.

    The outputs are those of torch's own, up to the rounding of matrix products of another shape.

    Args:
        packed: see `is_attention`; its tensors are shared, and it stays as it is.

    Attributes:
        num_heads, head_dim, embed_dim, dropout, batch_first: as torch's.
        in_proj_bias: None, which says to the layers of torch around it that their fused kernels do not apply.
    """

    in_proj_bias = None
    _qkv_same_embed_dim = False

    def __init__(self, packed: nn.MultiheadAttention) -> None:
        super().__init__()
        self.embed_dim, self.kdim, self.vdim = packed.embed_dim, packed.kdim, packed.vdim
        self.num_heads, self.head_dim = packed.num_heads, packed.head_dim
        self.dropout, self.batch_first = packed.dropout, packed.batch_first
        for (name, weight), bias in zip(_weights(packed).items(), _biases(packed), strict=True):
            self.add_module(name, linear(weight, bias))

    q_proj: nn.Module
    k_proj: nn.Module
    v_proj: nn.Module
    out_proj: nn.Module

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """See nn.MultiheadAttention."""
        if is_causal and attn_mask is None:
            raise Refused("is_causal=True is a hint about attn_mask, which is None: pass the mask")
        batched = query.ndim == 3
        if not batched:
            query, key, value = (x[None] for x in (query, key, value))
            key_padding_mask = None if key_padding_mask is None else key_padding_mask[None]
        elif not self.batch_first:
            query, key, value = (x.transpose(0, 1) for x in (query, key, value))
        q, k, v = (
            projection(x).unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2)
            for projection, x in ((self.q_proj, query), (self.k_proj, key), (self.v_proj, value))
        )
        mask = _added(attn_mask, key_padding_mask, q)
        dropped = self.dropout if self.training else 0.0
        weights: Tensor | None = None
        if need_weights:
            scores = (q * self.head_dim**-0.5) @ k.transpose(-2, -1)
            weights = F.dropout((scores if mask is None else scores + mask).softmax(-1), dropped)
            mixed = weights @ v
            weights = weights.mean(1) if average_attn_weights else weights
        else:
            mixed = F.scaled_dot_product_attention(q, k, v, mask, dropped)
        y: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))
        if not batched:
            return y[0], None if weights is None else weights[0]
        return y if self.batch_first else y.transpose(0, 1), weights

    def packed(self) -> nn.MultiheadAttention:
        """The module that this one stands in for, of the dense values that the matrices have now.

        Raises:
            Refused: a matrix that is not dense, or a bias that there was none of.
        """
        layers: dict[str, Any] = {name: self.get_submodule(name) for name in MATRICES}
        held = {type(layer) for layer in layers.values()}
        biased = {layer.bias is not None for layer in layers.values()}
        if held != {nn.Linear} or len(biased) > 1:
            raise Refused(f"an attention of {layers} does not fit nn.MultiheadAttention")
        first: Tensor = layers["q_proj"].weight
        made = nn.MultiheadAttention(
            self.embed_dim,
            self.num_heads,
            self.dropout,
            bias=biased.pop(),
            kdim=self.kdim,
            vdim=self.vdim,
            batch_first=self.batch_first,
            device=first.device,
            dtype=first.dtype,
        )
        with torch.no_grad():
            for (name, weight), bias in zip(_weights(made).items(), _biases(made), strict=True):
                weight.copy_(layers[name].weight)
                if bias is not None:
                    bias.copy_(layers[name].bias)
        return made


MATRICES = ("q_proj", "k_proj", "v_proj", "out_proj")


def is_attention(module: nn.Module) -> bool:
    """Whether a module is torch's attention, of which nothing but its four matrices and their biases is trained."""
    if type(module) is not nn.MultiheadAttention:
        return False
    return module.bias_k is None and module.bias_v is None and not module.add_zero_attn and _ordinary(module)


def _ordinary(packed: nn.MultiheadAttention) -> bool:
    """Whether none of its tensors is computed from others."""
    known = {"in_proj_weight", "in_proj_bias", "q_proj_weight", "k_proj_weight", "v_proj_weight"}
    known |= {"out_proj.weight", "out_proj.bias"}
    return {name for name, _ in packed.named_parameters()} <= known and packed.out_proj._parameters.keys() >= {"weight"}


def _weights(packed: Any) -> dict[str, Tensor]:
    """The four matrices (out, in) by name, as views."""
    together = packed.in_proj_weight
    if together is not None:
        parts = list(views(together, 3))
    else:
        parts = [
            p.detach() for p in (packed.q_proj_weight, packed.k_proj_weight, packed.v_proj_weight) if p is not None
        ]
    return dict(zip(MATRICES, [*parts, packed.out_proj.weight.detach()], strict=True))


def _biases(packed: nn.MultiheadAttention) -> list[Tensor | None]:
    together, out = packed.in_proj_bias, packed.out_proj.bias
    parts: list[Tensor | None] = [None] * 3 if together is None else list(views(together, 3))
    return [*parts, None if out is None else out.detach()]


def _added(attn_mask: Tensor | None, padding: Tensor | None, q: Tensor) -> Tensor | None:
    """What is added to the scores (n, heads, queries, keys); None for nothing.

    Args:
        attn_mask: (queries, keys) or (n * heads, queries, keys), added, or True where nothing is attended to.
        padding: (n, keys), the same.
        q: (n, heads, queries, size), for the dtype.
    """
    added = [None if mask is None else _numbers(mask, q) for mask in (attn_mask, padding)]
    if added[0] is not None and added[0].ndim == 3:
        added[0] = added[0].reshape(*q.shape[:2], *added[0].shape[1:])
    if added[1] is not None:
        added[1] = added[1][:, None, None]
    given = [mask for mask in added if mask is not None]
    return sum(given[1:], given[0]) if given else None


def _numbers(mask: Tensor, like: Tensor) -> Tensor:
    """A mask as numbers to add: -inf where it is True."""
    if mask.dtype == torch.bool:
        return like.new_zeros(mask.shape).masked_fill(mask, -torch.inf)
    return mask.to(like.dtype)
