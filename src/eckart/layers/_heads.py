"""Heads of a loss: their products for some tokens, and their gradients, summed over chunks of tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eckart.errors import Refused


class Head(Protocol):
    """What a loss asks of a head.

    Attributes:
        fresh: whether what `product` gives may be written to.
    """

    fresh: bool

    def product(self, x: Tensor) -> Tensor:
        """Logits (tokens, V) of x (tokens, d)."""

    def add(self, x: Tensor, logits: Tensor, grad: Tensor) -> Tensor:
        """Adds up the gradients of the head by those of the logits; gives that of x."""

    def gradients(self) -> list[Tensor | None]:
        """The sums, in float32 or float64; None for what does not train."""


class DenseHead:
    """x -> x W^T + b, and gradients of W and b summed in float32 over chunks."""

    fresh = True

    def __init__(self, weight: Tensor, bias: Tensor | None, wanted: tuple[bool, bool]) -> None:
        self.weight, self.bias = weight, bias
        exact = torch.promote_types(weight.dtype, torch.float32)
        self.sums = [
            torch.zeros_like(each, dtype=exact) if each is not None and want else None
            for each, want in zip((weight, bias), wanted, strict=True)
        ]

    def product(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)

    def add(self, x: Tensor, logits: Tensor, grad: Tensor) -> Tensor:
        grad = grad.to(x.dtype)
        by_weight, by_bias = self.sums
        if by_weight is not None:
            if by_weight.dtype == x.dtype:
                by_weight.addmm_(grad.T, x)
            else:
                by_weight += grad.T @ x
        if by_bias is not None:
            by_bias += grad.sum(0)
        return grad @ self.weight

    def gradients(self) -> list[Tensor | None]:
        return self.sums


class ModuleHead:
    """What any module computes, its gradients by autograd a chunk at a time."""

    fresh = False

    def __init__(self, head: nn.Module, leaves: tuple[Tensor, ...]) -> None:
        self.head, self.leaves = head, leaves
        self.sums: list[Tensor | None] = [None] * len(leaves)

    def product(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            self.x = x.detach().requires_grad_()
            found: Tensor = self.head(self.x)
        return found

    def add(self, x: Tensor, logits: Tensor, grad: Tensor) -> Tensor:
        by_x, *found = torch.autograd.grad(logits, [self.x, *self.leaves], grad.to(logits.dtype), allow_unused=True)
        for i, each in enumerate(found):
            if each is not None:
                exact, so_far = each.to(torch.promote_types(each.dtype, torch.float32)), self.sums[i]
                self.sums[i] = exact if so_far is None else so_far.add_(exact)
        return by_x

    def gradients(self) -> list[Tensor | None]:
        return self.sums


def head_of(
    head: Tensor | nn.Module, bias: Tensor | None, x: Tensor
) -> tuple[Callable[[], Head], tuple[Tensor | None, ...], int]:
    """What makes the head's products, the tensors that its gradients are of, and the number of classes."""
    if isinstance(head, nn.Embedding):
        raise Refused("an embedding looks rows up: hand in its weight, head=embedding.weight")
    hooked = isinstance(head, nn.Module) and (head._forward_hooks or head._forward_pre_hooks or head._backward_hooks)
    if isinstance(head, nn.Linear) and type(head) is nn.Linear and bias is None and not hooked:
        return head_of(head.weight, head.bias, x)
    if isinstance(head, Tensor):
        if head.ndim != 2 or head.shape[1] != x.shape[-1] or (bias is not None and bias.shape != head.shape[:1]):
            raise Refused(f"a head of shape {tuple(head.shape)} does not go with x of shape {tuple(x.shape)}")
        if head.dtype != x.dtype and not torch.is_autocast_enabled(x.device.type):
            raise Refused(f"a head of {head.dtype} does not go with x of {x.dtype}: cast one of them")
        wanted = head.requires_grad, bias is not None and bias.requires_grad
        return (
            lambda: DenseHead(head.detach(), None if bias is None else bias.detach(), wanted),
            (head, bias),
            len(head),
        )
    if bias is not None:
        raise Refused("a head that is a module has its own bias: leave bias= out")
    leaves = tuple(each for each in head.parameters() if each.requires_grad)
    logits = head(x.detach().reshape(-1, x.shape[-1])[:1])
    if (other := _other_leaf(logits, leaves)) is not None:
        names = [name for module in head.modules() for name, each in vars(module).items() if each is other]
        raise Refused(
            f"the head computes with a tensor of shape {tuple(other.shape)}"
            + (f", {names[0]}," if names else "")
            + " that trains and is no parameter of it, and would get no gradient: make it an nn.Parameter of the head "
            "(a tied weight too), or detach it"
        )
    return lambda: ModuleHead(head, leaves), leaves, logits.shape[-1]


def _other_leaf(found: Tensor, leaves: tuple[Tensor, ...]) -> Tensor | None:
    """A tensor that gets a gradient from this one and is none of `leaves`; None where there is none."""
    nodes, known = [found.grad_fn], {id(each) for each in leaves}
    seen = {each.grad_fn for each in leaves}  # functional_call puts tensors that are computed in parameters' places
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        variable = getattr(node, "variable", None)
        if isinstance(variable, Tensor) and id(variable) not in known:
            return variable
        nodes += [above for above, _ in node.next_functions]
    return None
