"""Attention by a Gaussian kernel through landmarks: linear in the tokens, without a softmax."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eckart.errors import Refused
from eckart.layers.contract import layer

Inverse = Literal["cholesky", "newton"]
Landmarks = Literal["conv", "pool"]
RIDGE = 0.01
"""What is added to the diagonal of the landmarks' matrix."""
STEPS = 20
"""Of Newton's iteration."""


def gaussian(x: Tensor, z: Tensor) -> Tensor:
    """exp(-|x_i - z_j|^2 / 2), (..., n, m), of points (..., n, d) and (..., m, d)."""
    far = x.square().sum(-1, keepdim=True) + z.square().sum(-1)[..., None, :] - 2 * x @ z.mT
    return (-far.clamp_min(0) / 2).exp()


class _NewtonInverse(torch.autograd.Function):
    """The inverse by V <- 2 V - V A V, whose gradient is that of an inverse: -V^T G V^T."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, steps: int) -> Tensor:
        # Rows of each matrix by themselves: what stands beside it in a batch changes nothing.
        v = 1.8 / a.abs().sum(-1).amax(-1)[..., None, None].square() * a.mT
        for _ in range(steps):
            v = 2 * v - v @ a @ v
        ctx.save_for_backward(v)
        return v

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (v,) = ctx.saved_tensors
        return -v.mT @ grad @ v.mT, None


def newton_inverse(a: Tensor, steps: int = STEPS) -> Tensor:
    """A^-1 (..., m, m) of symmetric positive definite matrices, by products alone, which is what 16 bits have.

    V_0 = 1.8 A / |A|_1^2 and V <- 2 V - V A V (Ben-Israel and Cohen 1966): 2 m^3 multiplications a step. Where A has a
    large condition, twenty steps are too few; the gradient is that of the inverse in any case, once.
    """
    found: Tensor = _NewtonInverse.apply(a, steps)  # type: ignore[no-untyped-call]
    return found


def softmax_free_attention(
    q: Tensor,
    landmarks: Tensor,
    v: Tensor,
    *,
    mask: Tensor | None = None,
    inverse: Inverse = "cholesky",
    normalize: bool = True,
) -> Tensor:
    """K(q, L) A^-1 K(L, q) v with K the Gaussian kernel and A = K(L, L) + 0.01 I: O(n m d), no n x n matrix.

    Args:
        q: queries, which are keys too, (..., n, d), divided by d^(1/4) already.
        landmarks: L (..., m, d).
        v: values (..., n, e).
        mask: which tokens count, (..., n) bool; the others, whatever they hold, give nothing to any, and get zero.
        inverse: "cholesky", exact and m^3 / 3 multiplications; or "newton", 20 steps of 2 m^3, as published.
        normalize: whether K(q, L) is divided by the roots of A's row sums, D^-1/2 A^-1 D^-1/2 in the middle: the
            paper's symmetric normalization, by which outputs do not grow with tokens that are alike.

    Returns:
        (..., n, e) in the dtype of q; in between in 32 bits, or 64.
    """
    kind, wide = q.dtype, torch.promote_types(q.dtype, torch.float32)
    if mask is not None:  # not by zero, which times NaN is NaN
        q, v = (part.masked_fill(~mask[..., None], 0) for part in (q, v))
    # Of 16 bits the differences of squared lengths are no distances, and A is not definite: 32 bits, and no autocast.
    with torch.autocast(q.device.type, enabled=False):
        found = _attention(q.to(wide), landmarks.to(wide), v.to(wide), mask, inverse, normalize)
    return found.to(kind)


def _attention(
    q: Tensor, landmarks: Tensor, v: Tensor, mask: Tensor | None, inverse: Inverse, normalize: bool
) -> Tensor:
    # Distances lose least near the origin, which may lie anywhere.
    middle = landmarks.detach().mean(-2, keepdim=True)
    q, landmarks = q - middle, landmarks - middle
    across = gaussian(q, landmarks)
    if mask is not None:
        across = across * mask[..., None]
    inner = gaussian(landmarks, landmarks)
    a = inner + RIDGE * torch.eye(inner.shape[-1], dtype=inner.dtype, device=inner.device)
    if normalize:
        across = across * inner.sum(-1).rsqrt()[..., None, :]
    right = across.mT @ v
    if inverse == "newton":
        return across @ (newton_inverse(a) @ right)
    return across @ torch.cholesky_solve(right, torch.linalg.cholesky(a))


@layer(
    "soft",
    paper="Lu et al. 2021, arXiv 2110.11945, and 2022, arXiv 2207.03341",
    expression="K(q, L) (K(L, L) + 0.01 I)^-1 K(L, q) v",
    cost="O(n m d) for n tokens and m landmarks",
)
class SoftmaxFreeAttention(nn.Module):
    """Self-attention whose scores are a Gaussian kernel of the queries, through a few landmarks: linear in the tokens.

    One projection gives queries that are keys too; landmarks are means of stretches of them, or, as published, a
    strided convolution behind LayerNorm and GELU, with which a small network on Fashion-MNIST was four points less
    accurate (0.700, means 0.741, softmax 0.745). The published code inverts by Newton's iteration on a GPU only, for
    square pictures only, and its normalized form starts from the largest row sum in the batch, so that a sample's
    output depends on its neighbours; here an m x m Cholesky factor is the default, sequences have any length, and
    samples are by themselves. What is inverted is A + 0.01 I, not the pseudo-inverse that the paper names. Scores are
    symmetric: it cannot be causal.

    Args:
        dim: of tokens, a multiple of the heads.
        heads: attention heads.
        tokens: m, landmarks; of a shorter sequence as many as it has tokens.
        landmarks: "pool", means of stretches of ceil(n / m) tokens; or "conv", sums of them channel by channel with a
            filter of `filter_size` that is resampled to the stretch and a mean at the start, mixed, normalized and
            behind GELU.
        inverse: "cholesky" or "newton".
        normalize: see `softmax_free_attention`.
        filter_size: of "conv".

    Raises:
        Refused: one of these out of its range.
    """

    def __init__(
        self,
        dim: int,
        heads: int = 8,
        *,
        tokens: int = 49,
        landmarks: Landmarks = "pool",
        inverse: Inverse = "cholesky",
        normalize: bool = True,
        filter_size: int = 16,
    ) -> None:
        super().__init__()
        if min(dim, heads, tokens, filter_size) < 1 or dim % heads:
            raise Refused(f"dim={dim}, heads={heads}, tokens={tokens}, filter_size={filter_size}: heads divide dim")
        if landmarks not in ("conv", "pool") or inverse not in ("cholesky", "newton"):
            raise Refused(f"landmarks={landmarks!r}, inverse={inverse!r}: conv or pool, cholesky or newton")
        self.dim, self.heads, self.tokens, self.inverse, self.normalize = dim, heads, tokens, inverse, normalize
        self.query, self.value, self.out = (nn.Linear(dim, dim) for _ in range(3))
        self.filter: nn.Parameter | None = None
        self.norm: nn.LayerNorm | None = None
        if landmarks == "conv":
            width = dim // heads
            self.filter = nn.Parameter(torch.full((width, filter_size), 1.0))
            self.mixed = nn.Linear(width, width)
            self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attention of tokens x (batch, n, dim), of which those count where the mask (batch, n) says so.

        Raises:
            Refused: shapes that do not fit.
        """
        if x.ndim != 3 or x.shape[-1] != self.dim or not x.shape[1]:
            raise Refused(f"x of shape {tuple(x.shape)} is not (batch, n, {self.dim}) with tokens")
        if mask is not None and (mask.shape != x.shape[:2] or mask.dtype != torch.bool):
            raise Refused(f"a mask of {mask.dtype} {tuple(mask.shape)} is not bool {tuple(x.shape[:2])}")
        if mask is not None:
            x = x.masked_fill(~mask[..., None], 0)
        width = self.dim // self.heads
        q, v = (part(x).unflatten(-1, (self.heads, width)).transpose(1, 2) for part in (self.query, self.value))
        q = q * width**-0.25
        kept = None if mask is None else mask[:, None].expand(-1, self.heads, -1)
        found = softmax_free_attention(
            q, self._landmarks(q, kept), v, mask=kept, inverse=self.inverse, normalize=self.normalize
        )
        made: Tensor = self.out(found.transpose(1, 2).flatten(2))
        return made

    def _landmarks(self, q: Tensor, kept: Tensor | None) -> Tensor:
        """(batch, heads, m, width): weighted sums over stretches, of the tokens that count."""
        n = q.shape[2]
        stride = -(-n // self.tokens)
        weight = q.new_ones(q.shape[-1], stride)
        if self.filter is not None:
            weight = F.interpolate(self.filter[None], stride, mode="linear")[0].to(q.dtype)
        pad = -n % stride
        stretches = (n + pad) // stride
        counted = q.new_ones(q.shape[:3]) if kept is None else kept.to(q.dtype)
        pieces = F.pad(q * counted[..., None], (0, 0, 0, pad)).reshape(*q.shape[:2], stretches, stride, q.shape[-1])
        size = F.pad(counted, (0, pad)).reshape(*q.shape[:2], stretches, stride).sum(-1)
        means: Tensor = torch.einsum("bhmsw,ws->bhmw", pieces, weight) / size.clamp_min(1)[..., None]
        if self.filter is None or self.norm is None:
            return means
        made: Tensor = F.gelu(self.norm(self.mixed(means)))
        return made

    def extra_repr(self) -> str:
        return f"{self.dim}, heads={self.heads}, tokens={self.tokens}, inverse={self.inverse!r}"
