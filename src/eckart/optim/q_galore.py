"""GaLore with its projection in 4 bits, moments in 8, and subspaces that are looked for less often once they last."""

from __future__ import annotations

from collections.abc import Iterable
from math import inf
from typing import Any, ClassVar

import torch
from torch import Tensor

from eckart.ops.packing import pack, unpack
from eckart.optim._adam import adam
from eckart.optim._subspace import back, project, top_subspace
from eckart.optim.contract import Group, Matrix, MatrixOptimizer, State, optimizer

GROUP = 256
LOOKS = 5
"""Looks in a row whose mean overlap is judged."""


def overlap(old: Tensor, new: Tensor) -> Tensor:
    """The mean squared cosine of the r principal angles between two subspaces: ||P^T P'||_F^2 / r, 1 for equal ones."""
    return (old.T @ new).square().sum() / old.shape[1]


def pack_basis(basis: Tensor) -> tuple[Tensor, Tensor]:
    """P in 4 bits, two codes a byte, by groups of 256 entries in its order: a minimum and a step each.

    Args:
        basis: P (k, r).

    Returns:
        packed (groups, 128), uint8; and minima and steps (groups, 2), in the dtype of P.
    """
    rows = torch.nn.functional.pad(basis.reshape(-1), (0, -basis.numel() % GROUP)).view(-1, GROUP)
    low = rows.amin(1, keepdim=True)
    width = (rows.amax(1, keepdim=True) - low) / 15
    codes = ((rows - low) / torch.where(width > 0, width, 1.0)).round().clamp(0, 15).to(torch.uint8)
    return pack(codes, 4), torch.cat([low, width], 1)


def unpack_basis(packed: Tensor, grid: Tensor, shape: tuple[int, int]) -> Tensor:
    """P (k, r), as `pack_basis` rounded it."""
    rows = unpack(packed, 4, GROUP).to(grid.dtype) * grid[:, 1:] + grid[:, :1]
    return rows.view(-1)[: shape[0] * shape[1]].view(shape)


def in_eight_bits(weight: Tensor, generator: torch.Generator) -> Tensor:
    """W on a grid of 256 values from the smallest to the largest of every 256 entries, in its order.

    Each entry goes to one of its two neighbours at random, so that its mean is kept: a step that is smaller than the
    grid's would be lost otherwise.

    Args:
        weight: W, of any shape, float.
        generator: of the rounding, on the CPU.

    Returns:
        a new tensor of the shape and dtype of W; 8 bits and a 128th of two numbers an entry are enough to store it.
    """
    flat = weight.reshape(-1).to(torch.promote_types(weight.dtype, torch.float32))
    short = -len(flat) % GROUP
    rows = torch.cat([flat, flat[-1:].expand(short)]).view(-1, GROUP)
    low = rows.amin(1, keepdim=True)
    width = (rows.amax(1, keepdim=True) - low) / 255
    drawn = torch.rand(rows.shape, generator=generator).to(rows)
    codes = ((rows - low) / torch.where(width > 0, width, 1.0) + drawn).floor().clamp(0, 255)
    return (low + codes * width).view(-1)[: len(flat)].view(weight.shape).to(weight.dtype)


@optimizer(
    "q-galore",
    paper="Zhang et al. 2024, arXiv 2407.08296",
    expression="W <- W - lr scale P4 Adam8(P4^T G)",
    state="P (n, r) in 4 bits, m and v (m, r) in 8 bits",
)
class QGaLore(MatrixOptimizer):
    """GaLore with P in 4 bits, moments in 8 bits, and twice as many steps between looks once the subspace lasts.

    A look finds the new P; where the mean overlap of the last five with the one before is at least `lasting`, the gap
    doubles. The overlap is that of the whole subspaces, ||P^T P'||^2 / r; the published code asks for the signed cosine
    of the first vector alone, which a change of sign takes for a change of the subspace. P is two codes a byte, which
    the published code leaves at one. With `weight_bits=8` matrices are rounded at random to 8 bits behind every step,
    as published, so that they can be stored as such: 1.03 bytes a number. The authors' saving of memory is not realised
    for weights: while they train they are held in the dtype of the model, 4 bytes a number in float32, as PyTorch
    wants parameters to be of the dtype of their gradients; what is saved is of the state alone.

    As good as GaLore at a quarter of its state is reproduced in steps: 0.015 ± 0.02 nats a token apart in 100 steps of
    a small Llama; that it looks less and less often cannot be seen in so few.

    Args:
        params: parameters, or groups of them with options of their own.
        lr: the rate.
        betas: of Adam.
        eps: of Adam.
        weight_decay: decoupled, times lr.
        rank: r.
        every: steps between two looks at first.
        scale: of the step.
        lasting: overlap from which on a subspace lasts.
        bits: 8, or 32 for moments in 32 bits.
        weight_bits: 8 as published, or 32 for weights as they are.
        common: see `MatrixOptimizer`.
    """

    MOMENTS = ("m",)
    SQUARES = ("v",)
    LIMITS: ClassVar = {"rank": (1, inf), "every": (1, inf), "scale": (0, inf), "lasting": (0, inf)}
    CHOICES: ClassVar = {"weight_bits": (32, 8)}

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-2,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        rank: int = 128,
        every: int = 50,
        scale: float = 0.25,
        lasting: float = 0.4,
        bits: int = 8,
        weight_bits: int = 32,
        **common: Any,
    ) -> None:
        options = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "rank": rank,
            "every": every,
            "scale": scale,
            "lasting": lasting,
            "bits": bits,
            "weight_bits": weight_bits,
        }
        super().__init__(params, options, common)

    def direction(self, matrix: Matrix) -> Tensor:
        grad, state, group = matrix.grad, matrix.state, matrix.group
        shape = min(grad.shape), min(group["rank"], *grad.shape)
        if "due" not in state:
            state["due"], state["gap"] = (torch.tensor(x, device="cpu") for x in (matrix.step, group["every"]))
        if matrix.step >= int(state["due"]):
            old = unpack_basis(state["packed"], state["grid"], shape) if "packed" in state else None
            new = top_subspace(grad, shape[1], old)
            if new is not None:
                state["packed"], state["grid"] = pack_basis(new)
                if old is not None:
                    _judge(state, overlap(old, new), group["lasting"])
                state["due"] = matrix.step + state["gap"]
        if "packed" not in state:
            return torch.zeros_like(grad)
        basis = unpack_basis(state["packed"], state["grid"], shape)
        moved = adam(project(grad, basis), state, matrix.step, group["betas"], group["eps"])
        return back(moved.mul_(group["scale"]), basis, grad.shape)

    def _move(self, parameter: Tensor, group: Group, number: int) -> None:
        super()._move(parameter, group, number)
        if group["weight_bits"] == 8 and group["rule"] != "adamw" and parameter.ndim > 1:
            state = self.state[parameter]
            whole = Matrix(parameter, parameter, state, group, int(state["step"]), number)
            parameter.copy_(in_eight_bits(parameter, whole.generator(2**40 + whole.step)))


def _judge(state: State, found: Tensor, lasting: float) -> None:
    """Doubles the gap where the subspaces of the last looks were near enough to each other."""
    before = state.get("overlaps", found.new_zeros(0))
    state["overlaps"] = torch.cat([before, found.reshape(1)])[-LOOKS:]
    if len(state["overlaps"]) == LOOKS and float(state["overlaps"].mean()) >= lasting:
        state["gap"] = state["gap"] * 2
