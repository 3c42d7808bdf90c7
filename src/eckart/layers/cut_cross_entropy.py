"""The loss of a language model without its logits: the head's product by chunks of tokens, dense or structured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Any

import torch
from torch import Tensor, nn

from eckart.errors import Refused, check_type
from eckart.layers._heads import Head, head_of
from eckart.layers.contract import layer

ENTRIES = 2**23
"""Logits that are held at once: 32 MiB."""


@dataclass(frozen=True)
class Terms:
    """What is added up over tokens.

    Attributes:
        softcap: c of c tanh(l / c), which stands for a logit l; None for l.
        z_loss: of the squared logarithm of the sum of exponentials.
        ignore_index: the target of tokens that do not count.
    """

    softcap: float | None
    z_loss: float
    ignore_index: int

    def of(self, logits: Tensor, target: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
        """Losses -l_y + lse(l) + z lse(l)^2 of some tokens, and the gradient of their weighted sum.

        dL/dl = (1 + 2 z lse) softmax(l) - e_y; behind a cap times 1 - (l / c)^2.

        Args:
            logits: (tokens, V), float32 or float64; overwritten by the gradient where there are weights.
            target: (tokens,).
            weight: of each token's loss; None where no gradient is wanted.

        Returns:
            losses (tokens,), zero where they do not count; and dL/dlogits (tokens, V).
        """
        counted = target != self.ignore_index
        index = target.where(counted, 0)[:, None]
        if self.softcap is not None:
            logits.div_(self.softcap).tanh_().mul_(self.softcap)
        lse = logits.logsumexp(1)
        loss = lse - logits.gather(1, index)[:, 0] + self.z_loss * lse.square()
        if weight is None:
            return loss.where(counted, 0), logits
        slope = None if self.softcap is None else 1 - (logits / self.softcap).square_()
        grad = logits.sub_(lse[:, None]).exp_().mul_((1 + 2 * self.z_loss * lse)[:, None])
        grad.scatter_add_(1, index, grad.new_full(index.shape, -1.0))
        grad.mul_(weight.where(counted, 0)[:, None])
        return loss.where(counted, 0), grad if slope is None else grad.mul_(slope)


class _Loss(torch.autograd.Function):
    """Losses of all tokens, or their sum over `count`, whose gradients are computed beside it.

    Gradients are those of the plain sum until the one that comes is known: dividing by tokens, and scaling by a loss
    scale, in the 16 bits of x would lose digits. Those of single losses are computed when theirs come.
    """

    @staticmethod
    def forward(
        ctx: Any,
        made: Callable[[], Head],
        terms: Terms,
        chunk: int,
        count: Tensor | None,
        x: Tensor,
        target: Tensor,
        *leaves: Tensor | None,
    ) -> Tensor:
        ctx.made, ctx.terms, ctx.chunk, ctx.count = made, terms, chunk, count
        ctx.dtypes = [None if leaf is None else leaf.dtype for leaf in leaves]
        head, kind = made(), x.device.type
        ctx.cast = {"enabled": torch.is_autocast_enabled(kind), "dtype": torch.get_autocast_dtype(kind)}
        if count is None:
            ctx.save_for_backward(x, target, *leaves)  # that they are as they were is checked when they are asked for
            return _passed(head, terms, chunk, None, x, target)[0]
        ones = torch.ones(len(x), dtype=torch.promote_types(x.dtype, torch.float32), device=x.device)
        losses, by_x = _passed(head, terms, chunk, ones, x, target)
        ctx.save_for_backward(by_x, *head.gradients())
        return losses.sum() / count

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        if ctx.count is None:
            x, target, *_ = ctx.saved_tensors
            head = ctx.made()
            with torch.autocast(x.device.type, **ctx.cast):
                by_x, scale = _passed(head, ctx.terms, ctx.chunk, grad, x, target)[1], grad.new_ones(())
            sums = head.gradients()
        else:
            by_x, *sums = ctx.saved_tensors
            scale = grad / ctx.count
        pairs = zip(sums, ctx.dtypes, strict=True)
        found = [None if each is None else (each * scale.to(each.dtype)).to(dtype) for each, dtype in pairs]
        return None, None, None, None, (by_x.to(scale.dtype) * scale).to(by_x.dtype), None, *found


def _applied(*inputs: Any) -> Tensor:
    found: Tensor = _Loss.apply(*inputs)  # type: ignore[no-untyped-call]
    return found


def _passed(
    head: Head, terms: Terms, chunk: int, weight: Tensor | None, x: Tensor, target: Tensor
) -> tuple[Tensor, Tensor]:
    """Losses of all tokens, and where they have weights the gradient of x."""
    exact = torch.promote_types(x.dtype, torch.float32)
    losses = torch.empty(len(x), dtype=exact, device=x.device)
    by_x = torch.empty_like(x) if weight is not None else x
    for i in range(0, len(x), chunk):
        part = slice(i, i + chunk)
        logits = head.product(x[part])
        copied = logits.detach().to(exact, copy=not head.fresh)
        losses[part], grad = terms.of(copied, target[part], None if weight is None else weight[part])
        if weight is not None:
            by_x[part] = head.add(x[part], logits, grad)
    return losses, by_x


@layer(
    "cut-cross-entropy",
    paper="Wijmans et al. 2024, arXiv 2411.09009",
    expression="mean of lse(W x) - (W x)_y",
    cost="32 MiB of logits at once, gradients in the forward pass",
)
def linear_cross_entropy(
    x: Tensor,
    head: Tensor | nn.Module,
    target: Tensor,
    bias: Tensor | None = None,
    *,
    reduction: str = "mean",
    ignore_index: int = -100,
    shift: bool = False,
    softcap: float | None = None,
    z_loss: float = 0.0,
    chunk: int | None = None,
) -> Tensor:
    """Cross-entropy of softmax(head(x)) with the target, without all logits being there at once.

    Logits are made for a chunk of tokens, in the dtype of x and W as a model makes them, and summed in float32 or
    float64; the gradients of x and of the head are added up in the same pass, so that what backward does is a scale.
    Nothing is skipped: it is the loss of `F.cross_entropy`, where that of the paper leaves out probabilities below
    2^-12. The head may be any module: an `nn.Linear`, or a structure of factors or codes.

    Args:
        x: (..., d), float.
        head: W (V, d), or a module (tokens, d) -> (tokens, V) that computes the same whenever it is called; its
            parameters get gradients, and one that computes with another tensor that trains is refused.
        target: classes (...), int64 or int32.
        bias: (V,), for a head that is a tensor.
        reduction: `mean` over the tokens that count, which is 0 where none does; `sum`; or `none`, (...), with which
            the logits are made a second time for the gradients.
        ignore_index: the target of tokens that do not count.
        shift: whether the target of a token is the next one of the last dimension, as for a language model whose
            targets are its inputs; the last token does not count.
        softcap: c, where logits are c tanh(l / c).
        z_loss: z of the term z lse(l)^2.
        chunk: tokens at once; as many as make 2^23 logits where left out.

    Returns:
        a number in float32 or float64, or with `none` one a token. It has no second derivative.

    Raises:
        Refused: shapes that do not go together, options out of their range, or a head that computes with a tensor that
            trains and is no parameter of it.
        IndexError: a target that is no class.
    """
    if reduction not in ("mean", "sum", "none"):
        raise Refused(f"reduction={reduction!r} is none of 'mean', 'sum' and 'none'")
    if not isinstance(target, Tensor) or target.dtype not in (torch.int64, torch.int32):
        kind = getattr(target, "dtype", type(target).__name__)
        raise Refused(f"targets are of {kind}, and a tensor of int64 or int32 is wanted")
    if x.ndim < 1 or x.shape[:-1] != target.shape:
        raise Refused(f"a target of shape {tuple(target.shape)} does not go with x of shape {tuple(x.shape)}")
    check_type("chunk", chunk, int | None)
    if (softcap is not None and not 0 < softcap < inf) or (chunk is not None and chunk < 1) or not 0 <= z_loss < inf:
        raise Refused(f"softcap={softcap} and chunk={chunk} must be above zero, z_loss={z_loss} at least 0, all finite")
    if shift and target.ndim:
        target = torch.cat([target[..., 1:], target.new_full((*target.shape[:-1], 1), ignore_index)], -1)
    flat, classes = x.reshape(-1, x.shape[-1]), target.reshape(-1).long()
    made, leaves, width = head_of(head, bias, x)
    if len(classes) and not bool(((classes == ignore_index) | ((classes >= 0) & (classes < width))).all()):
        low, high = int(classes.min()), int(classes.max())
        raise IndexError(f"targets from {low} to {high} are not all in 0..{width - 1}, nor {ignore_index}")
    terms, size = Terms(softcap, z_loss, ignore_index), chunk or max(1, ENTRIES // max(1, width))
    if not torch.is_grad_enabled() or not any(each is not None and each.requires_grad for each in (x, *leaves)):
        losses = _passed(made(), terms, size, None, flat, classes)[0]
    elif reduction == "none":
        losses = _applied(made, terms, size, None, flat, classes, *leaves)
    else:
        count = (classes != ignore_index).sum().clamp_min(1) if reduction == "mean" else flat.new_ones(())
        return _applied(made, terms, size, count, flat, classes, *leaves)
    if reduction == "none":
        return losses.view(target.shape)
    return losses.sum() / ((classes != ignore_index).sum().clamp_min(1) if reduction == "mean" else 1)
