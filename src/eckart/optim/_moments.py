"""Moments of gradients in 8 bits: logarithmic codes by blocks, rounded at random."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

BITS = 8
BLOCK = 256
LEAST = 4096
"""Entries from which on a tensor is worth coding."""
RANGE = 16.0
"""Nats between the largest entry of a block and the smallest that is not zero: a factor of 9e6."""


def encode(x: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Codes of x by blocks of 256 of its entries, in its order: sign and logarithm of |x| by the block's largest.

    Neighbouring codes are a factor of exp(16 / 126) = 1.135 apart; each entry goes to one of its two neighbours at
    random, so that its mean is kept. Averages would stand still otherwise: a step adds less than the rounding takes.

    Args:
        x: of any shape, float.
        generator: of the rounding, on the CPU.

    Returns:
        codes (blocks, 256), int8, 0 for zero; and the largest of each block, (blocks, 1), in float32.
    """
    flat = x.reshape(-1)
    blocks = torch.nn.functional.pad(flat, (0, -len(flat) % BLOCK)).view(-1, BLOCK).float()
    largest = blocks.abs().amax(1, keepdim=True)
    share = blocks.abs() / largest.clamp_min(torch.finfo(torch.float32).tiny)
    place = 127 + share.log() * (126 / RANGE)
    low = place.floor().clamp(0, 127)
    below, above = (_value(code) for code in (low, (low + 1).clamp_max(127)))
    chance = ((share - below) / (above - below).clamp_min(1e-30)).clamp(0, 1)
    drawn = torch.rand(blocks.shape, generator=generator).to(x.device)
    code = (low + (drawn < chance)).clamp_max(127)
    return (code * blocks.sign()).to(torch.int8), largest


def decode(codes: Tensor, largest: Tensor, shape: Sequence[int]) -> Tensor:
    """What `encode` coded, in float32."""
    values = _value(codes.abs().float()) * codes.sign() * largest
    return values.view(-1)[: torch.Size(shape).numel()].view(shape)


def _value(code: Tensor) -> Tensor:
    """exp(16 (code - 127) / 126), and 0 of 0."""
    return torch.where(code > 0, ((code - 127) * (RANGE / 126)).exp(), 0.0)


def coded(state: dict[str, Tensor], names: Sequence[str], generator: torch.Generator) -> None:
    """Puts codes in the places of some tensors of a state, those of 4096 entries or more; in place."""
    for name in names:
        if name in state and state[name].numel() >= LEAST:
            x = state.pop(name)
            state[f"{name}.codes"], state[f"{name}.largest"] = encode(x, generator)
            state[f"{name}.shape"] = torch.tensor(x.shape, device="cpu")


def decoded(state: dict[str, Tensor], names: Sequence[str]) -> None:
    """Undoes `coded`."""
    for name in names:
        if f"{name}.codes" in state:
            codes, largest, shape = (state.pop(f"{name}.{part}") for part in ("codes", "largest", "shape"))
            state[name] = decode(codes, largest, shape.tolist())
