"""A key-value cache of 4-bit integers: channels made alike by scales that the queries undo."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from eckart.errors import Refused
from eckart.inference._cache_bases import samples
from eckart.inference._coded_cache import coded_cache
from eckart.inference.contract import inside
from eckart.machine import wide
from eckart.models.transformers_attention import attending, exact_attention, in_groups
from eckart.statistics.batches import Batch, call
from eckart.structures._checks import size_option

_LARGEST = 7
"""Codes are -8 to 7; the largest entry of a group is given 7."""
_FP8 = torch.float8_e4m3fn
_FP8_LARGEST = 448.0
_HEADROOM = 64.0
"""How much larger than any of the calibration a scale may be before it saturates."""


@inside(
    "fireq-cache",
    paper="Baek et al. 2025, arXiv 2505.20839",
    saves="memory of the cache",
    approximates="keys and values in 4 bits",
    calibrated=True,
)
@contextmanager
def int4_cache(model: nn.Module, calibration: Tensor | Sequence[Batch], group: int = 128) -> Iterator[list[str]]:
    """Inside, the key-value cache holds integers of 4 bits, with a scale in float8 for each token, head and group.

    Of a key k after its rotation, (k - m) / s is rounded to -8..7 times the scale of its group, m and s (d) being of
    its head and channel, from the calibration; the query is multiplied by s, and the mean, which adds the same to all
    scores, falls out of the softmax. Values are scaled likewise, and s put back behind the sum over tokens; they keep
    their mean, since the first token of a text, which most heads rest on, has values near zero that a mean would lose.
    A scale is float8 (E4M3) times one number, without which small scales would vanish.

    The attention half of FireQ (Baek et al. 2025, arXiv 2505.20839). There a scale that the two channels share which
    the rotation mixes is folded into the projections, and the outlier channels that are left get one after it; held
    behind the rotation both are one s. Queries are not rounded here, so the error of a score, sum (q_i s_i delta)^2
    with delta = max |k_i / s_i| / 7, is least at s_i = max |k_i|: every channel has a scale of its own. FireQ does not
    take the mean out. Keys and values are unpacked for each call: bytes are saved, not time.

    Args:
        model: in eval mode, with `sdpa` attention, of transformers.
        calibration: tokens (samples, length), or batches.
        group: channels that share a scale; all of a head where it has fewer.

    Yields:
        The names of the attentions.

    Raises:
        Refused: a model in training mode or without such attentions, no tokens, keys or values that are not finite,
            an odd head size, or groups that do not divide it.
    """
    size_option("int4_cache", "group", group)
    ranges = cache_ranges(model, calibration)
    codes = {name: Int4Code(keys.centred(), values.about_zero(), group) for name, (keys, values) in ranges.items()}
    with coded_cache(model, codes, "int4_cache") as names:
        yield names


class Ranges:
    """Mean, least and largest of every channel of an attention's keys or values, (heads, d)."""

    def __init__(self, x: Tensor) -> None:
        self.count, self.sum = 0, wide(x.new_zeros(()))
        self.low = self.high = x[0, :, 0]

    def add(self, x: Tensor) -> None:
        """Some keys or values (sequences, heads, tokens, d)."""
        self.count += x.shape[0] * x.shape[2]
        self.sum = self.sum + wide(x).sum((0, 2))
        self.low, self.high = torch.minimum(self.low, x.amin((0, 2))), torch.maximum(self.high, x.amax((0, 2)))

    def about_zero(self) -> Channels:
        """No mean, and the largest size of each channel."""
        return Channels(torch.zeros_like(self.low), torch.maximum(self.high.abs(), self.low.abs()))

    def centred(self) -> Channels:
        """The mean of each channel, and the largest distance from it."""
        mean = (self.sum / self.count).to(self.low.dtype)
        return Channels(mean, torch.maximum(self.high - mean, mean - self.low))


@dataclass(frozen=True)
class Channels:
    """What is taken out of the channels of keys or values before they are rounded.

    Attributes:
        mean: (heads, d).
        scale: (heads, d); what is rounded is (x - mean) / scale, whose entries are about 1 at most.
    """

    mean: Tensor
    scale: Tensor


def cache_ranges(model: nn.Module, calibration: Tensor | Sequence[Batch]) -> dict[str, tuple[Ranges, Ranges]]:
    """Ranges of the keys and of the values of each attention on a calibration.

    Raises:
        Refused: as `int4_cache`.
    """
    found: dict[str, tuple[Ranges, Ranges]] = {}

    def record(
        name: str, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, scale: float, causal: bool
    ) -> Tensor:
        of_keys, of_values = found.setdefault(name, (Ranges(keys), Ranges(values)))
        of_keys.add(keys)
        of_values.add(values)
        return exact_attention(query, keys, values, mask, scale, causal)

    with attending(model, record, "int4_cache"), torch.no_grad():
        for sample in samples(model, calibration, "int4_cache"):
            call(model, sample)
    for name, both in found.items():
        if not all(torch.isfinite(ranges.high - ranges.low).all() for ranges in both):
            raise Refused(f"int4_cache: keys or values of {name} are NaN or infinite on the calibration")
    return found


class Int4Code:
    """A `Code`: of each token and head, two codes a byte and behind them the scales of its groups."""

    def __init__(self, keys: Channels, values: Channels, group: int) -> None:
        size = keys.mean.shape[-1]
        group = min(group, size)
        if size % 2 or size % group:
            raise Refused(f"int4_cache: heads of size {size} cannot be cut in pairs and in groups of {group}")
        self.group = group
        self.keys, self.values = (
            Channels(c.mean[:, None], torch.where(c.scale > 0, c.scale, torch.ones_like(c.scale))[:, None])
            for c in (keys, values)
        )

    def encode(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Bytes of all heads: (sequences, 1, tokens, heads (d / 2 + d / group)), uint8."""
        return self._pack(keys, self.keys), self._pack(values, self.values)

    def attend(
        self, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, scale: float, causal: bool
    ) -> Tensor:
        """Attention over unpacked codes; scales are in the queries and behind the sum."""
        heads = len(self.keys.mean)
        k, v = (self._unpack(x, heads, query.dtype) for x in (keys, values))
        grouped = in_groups(query, heads)
        q = (grouped * self.keys.scale[:, None]).flatten(1, 2)
        y = in_groups(exact_attention(q, k, v, mask, scale, causal), heads)
        return (y * self.values.scale[:, None] + self.values.mean[:, None]).flatten(1, 2)

    def _pack(self, x: Tensor, channels: Channels) -> Tensor:
        whole = ((x - channels.mean) / channels.scale).float()
        whole = whole.view(*x.shape[:-1], -1, self.group)
        # An entry that is as large as any of the calibration is 1 here: scales are 1/7 at most there.
        scales = whole.abs().amax(-1, keepdim=True) / _LARGEST
        unit = _HEADROOM / _LARGEST / _FP8_LARGEST
        stored = (scales / unit).clamp_max(_FP8_LARGEST).to(_FP8)
        steps = stored.to(whole.dtype) * unit
        codes = (whole / torch.where(steps > 0, steps, torch.ones_like(steps))).round().clamp(-8, 7).nan_to_num()
        low, high = (codes + 8).to(torch.uint8).flatten(-2).chunk(2, -1)
        held = torch.cat([low | high << 4, stored.squeeze(-1).view(torch.uint8)], -1)
        return held.transpose(1, 2).flatten(2)[:, None]

    def _unpack(self, held: Tensor, heads: int, dtype: torch.dtype) -> Tensor:
        each = held[:, 0].view(len(held), held.shape[2], heads, -1).transpose(1, 2)
        size = self.keys.mean.shape[-1]
        packed, stored = each[..., : size // 2], each[..., size // 2 :]
        codes = torch.cat([packed & 15, packed >> 4], -1).to(dtype) - 8
        steps = stored.contiguous().view(_FP8).to(dtype) * (_HEADROOM / _LARGEST / _FP8_LARGEST)
        whole: Tensor = codes.view(*steps.shape, self.group) * steps[..., None]
        return whole.flatten(-2)
