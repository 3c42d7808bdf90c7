"""Moments of gradients in 8 bits: logarithmic codes by blocks, rounded at random."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

BITS = 8
BLOCK = 256
LEAST = 4096
"""Entries from which on a tensor is worth coding."""
RANGE = 16.0
"""Nats between the largest entry of a block and the smallest above zero, a factor of 9e6; of squares twice that."""
FINENESS = RANGE / 126
"""Nats between two neighbouring codes, of squares too: 32 / 254."""
LEAST_SHARE = math.exp(-RANGE)
"""Of the largest, that a code for both signs stands for."""
PIECE = 256 * BLOCK
"""Entries that are coded at a time, few enough to stay in a processor's cache from one operation to the next."""


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
    return _encode(x, torch.int8, generator)


def encode_squares(x: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The same of entries that are never negative, in 255 codes over twice the logarithms: roots have those of x.

    What is not zero is never coded as zero, since it is divided by. Where 0.999 of an average stays in a step, and the
    average is coded in every step, its roots come to be off by a standard deviation of a seventh.

    Returns:
        codes of the shape of x, uint8; and the largest of each block, (blocks, 1), in float32.
    """
    return _encode(x, torch.uint8, generator)


def decode(codes: Tensor, largest: Tensor) -> Tensor:
    """What `encode` or `encode_squares` coded, in float32."""
    values = _values(codes.dtype).to(codes.device)
    flat, found = codes.reshape(-1), torch.empty(codes.shape, device=codes.device)
    out, first = found.view(-1), 127 if codes.dtype == torch.int8 else 0
    for i in range(0, len(flat), PIECE):
        piece = values.index_select(0, flat[i : i + PIECE].int() + first)
        _by_block(out[i : i + PIECE], piece, largest[i // BLOCK : (i + PIECE) // BLOCK])
    return found


def _by_block(out: Tensor, piece: Tensor, scale: Tensor) -> Tensor:
    """Every entry of a piece times the scale of its block, into `out`; the last block may be short."""
    whole = len(piece) // BLOCK
    torch.mul(piece[: whole * BLOCK].view(-1, BLOCK), scale[:whole], out=out[: whole * BLOCK].view(-1, BLOCK))
    if len(piece) > whole * BLOCK:
        torch.mul(piece[whole * BLOCK :], scale[whole], out=out[whole * BLOCK :])
    return out


def _encode(x: Tensor, dtype: torch.dtype, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    flat = x.reshape(-1)
    codes = torch.empty(flat.shape, dtype=dtype, device=x.device)
    largest = [
        _encode_piece(flat[i : i + PIECE].float(), codes[i : i + PIECE], generator) for i in range(0, len(flat), PIECE)
    ]
    return codes.view(x.shape), torch.cat(largest) if largest else flat.new_zeros(0, 1, dtype=torch.float32)


def _encode_piece(x: Tensor, codes: Tensor, generator: torch.Generator) -> Tensor:
    """The codes of some blocks, into `codes`; returns the largest of each block.

    |x| as a share s of the largest lies between two values that codes k and k + 1 stand for, a factor f = exp(FINENESS)
    apart, and has to go up with the chance (s / value - 1) / (f - 1): where a number u that is evenly drawn from (0, 1)
    is below it, which is where k + 1 is below top + 1 + log(s / (1 + u (f - 1))) / FINENESS.
    """
    size, top = x.abs(), 127 if codes.dtype == torch.int8 else 255
    whole = torch.nn.functional.pad(size, (0, -len(x) % BLOCK)) if len(x) % BLOCK else size
    largest: Tensor = whole.view(-1, BLOCK).amax(1, keepdim=True)
    share = _by_block(size, size, 1 / largest.clamp_min(torch.finfo(torch.float32).tiny))
    even = _even(len(x), generator).to(x.device)
    place = (even * math.expm1(FINENESS)).add_(1)
    place = torch.div(share, place, out=place).log_().mul_(1 / FINENESS).add_(top + 1).clamp_(0, top)
    if codes.dtype == torch.uint8:
        torch.maximum(place, x.sign(), out=place)
    else:
        if bool(share.amin() < LEAST_SHARE):  # is coded as zero or the least
            place = torch.where(share < LEAST_SHARE, (even * LEAST_SHARE < share).float(), place)
        place.copysign_(x)
    codes.copy_(place)  # without what is behind the point
    return largest


def _even(count: int, generator: torch.Generator) -> Tensor:
    """Numbers in (0, 1), each of 65536 equally likely; four of every 64 bits that are drawn."""
    bits = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(2**63), None, generator=generator)
    return bits.view(torch.int16)[:count].float().mul_(2**-16).add_(0.5 + 2**-17)


def _values(dtype: torch.dtype) -> Tensor:
    """The shares of the largest that codes stand for, in order: exp(FINENESS (code - top)), and 0 of 0."""
    top = 127 if dtype == torch.int8 else 255
    found = ((torch.arange(top + 1) - top) * FINENESS).exp()
    found[0] = 0
    return torch.cat([-found[1:].flip(0), found]) if dtype == torch.int8 else found


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
