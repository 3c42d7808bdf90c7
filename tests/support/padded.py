"""Sequences of several lengths, by themselves and together in a batch with padding."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from support.zoo import Batch

Sample = dict[str, Tensor]

MASKS = {"input_ids": "attention_mask", "decoder_input_ids": "decoder_attention_mask"}
"""Which mask is about what."""


def cut(batch: Batch, lengths: Sequence[int]) -> list[Sample]:
    """Each sample of a batch by itself, its text so long; what is written has the lengths the other way round."""
    entries = {"input_ids": batch} if isinstance(batch, Tensor) else dict(batch)
    written = list(reversed(lengths))
    samples = []
    for i, length in enumerate(lengths):
        sample = {name: value[i : i + 1] for name, value in entries.items() if not name.endswith("mask")}
        for name in MASKS.keys() & sample.keys():
            sample[name] = sample[name][:, : written[i] // 2 if name.startswith("decoder") else length].clone()
        if "pixel_values" in sample and "input_ids" in sample:
            sample["input_ids"][:, -1] = 2  # where CLIP looks for what a text means
        samples.append(sample)
    return samples


def padded(samples: Sequence[Sample], left: bool = False) -> Sample:
    """The samples as one batch; padding is made of numbers that would be seen if anything looked at them."""
    batch: Sample = {}
    for name in samples[0]:
        parts = [sample[name][0] for sample in samples]
        if name not in MASKS:
            batch[name] = torch.stack(parts)
            continue
        batch[name] = _filled(parts, left, 50.0 if parts[0].is_floating_point() else 7)
        batch[MASKS[name]] = _filled([torch.ones(len(part), dtype=torch.long) for part in parts], left, 0)
    return batch


def _filled(parts: Sequence[Tensor], left: bool, value: float) -> Tensor:
    longest = max(map(len, parts))
    rows = []
    for part in parts:
        fill = part.new_full((longest - len(part), *part.shape[1:]), value)
        rows.append(torch.cat([fill, part] if left else [part, fill]))
    return torch.stack(rows)
