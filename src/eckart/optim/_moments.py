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
"""Nats between the largest entry of a block and the smallest above zero, a factor of 9e6; of squares twice that."""


def encode(x: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Codes of x by blocks of 256 of its entries, in its order: sign and logarithm of |x| by the block's largest.

    Neighbouring codes are a factor of exp(16 / 126) = 1.135 apart; each entry goes to one of its two neighbours at
    random, so that its mean is kept. Averages would stand still otherwise: a step adds less than the rounding takes.

    Args:
        x: of any shape, float.
        generator: of the rounding, on the CPU.

    Returns:
        codes of the shape of x, int8, 0 for zero; and the largest of each block, (blocks, 1), in float32.
    """
    codes, largest = _magnitudes(x, 127, RANGE, generator, least=0)
    return (codes * x.sign()).to(torch.int8), largest


def encode_squares(x: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The same of entries that are never negative, in 255 codes over twice the logarithms: roots have those of x.

    What is not zero is never coded as zero, since it is divided by. Where 0.999 of an average stays in a step, and the
    average is coded in every step, its roots come to be off by a standard deviation of a seventh.

    Returns:
        codes of the shape of x, uint8; and the largest of each block, (blocks, 1), in float32.
    """
    codes, largest = _magnitudes(x, 255, 2 * RANGE, generator, least=1)
    return (codes * (x > 0)).to(torch.uint8), largest


def decode(codes: Tensor, largest: Tensor) -> Tensor:
    """What `encode` or `encode_squares` coded, in float32."""
    top, span = (127, RANGE) if codes.dtype == torch.int8 else (255, 2 * RANGE)
    blocks = _blocks(codes.float())
    values = _value(blocks.abs(), top, span) * blocks.sign() * largest
    return values.view(-1)[: codes.numel()].view(codes.shape)


def _magnitudes(x: Tensor, top: int, span: float, generator: torch.Generator, least: int) -> tuple[Tensor, Tensor]:
    blocks = _blocks(x.abs().float())
    largest = blocks.amax(1, keepdim=True)
    share = blocks / largest.clamp_min(torch.finfo(torch.float32).tiny)
    low = (top + share.log() * ((top - 1) / span)).floor().clamp(least, top)
    below, above = (_value(code, top, span) for code in (low, (low + 1).clamp_max(top)))
    chance = ((share - below) / (above - below).clamp_min(torch.finfo(torch.float32).tiny)).clamp(0, 1)
    drawn = torch.rand(blocks.shape, generator=generator).to(x.device)
    code = (low + (drawn < chance)).clamp_max(top)
    return code.view(-1)[: x.numel()].view(x.shape), largest


def _blocks(x: Tensor) -> Tensor:
    flat = x.reshape(-1)
    return torch.nn.functional.pad(flat, (0, -len(flat) % BLOCK)).view(-1, BLOCK)


def _value(code: Tensor, top: int, span: float) -> Tensor:
    """The share of the largest that a code stands for: exp(span (code - top) / (top - 1)), and 0 of 0."""
    return torch.where(code > 0, ((code - top) * (span / (top - 1))).exp(), 0.0)


def coded(state: dict[str, Tensor], moments: Sequence[str], squares: Sequence[str], generator: torch.Generator) -> None:
    """Puts codes in the places of some tensors of a state, those of 4096 entries or more; in place."""
    for name in (*moments, *squares):
        if name in state and state[name].numel() >= LEAST:
            how = encode_squares if name in squares else encode
            state[f"{name}_codes"], state[f"{name}_largest"] = how(state.pop(name), generator)


def decoded(state: dict[str, Tensor], dtype: torch.dtype) -> None:
    """Undoes `coded`."""
    for name in [name.removesuffix("_codes") for name in state if name.endswith("_codes")]:
        state[name] = decode(state.pop(f"{name}_codes"), state.pop(f"{name}_largest").float()).to(dtype)
