"""Samples of rows."""

from __future__ import annotations

import torch

from eckart.statistics.sample import SAMPLED_TOKENS, Sample


def test_a_sample_is_evenly_spaced() -> None:
    rows = torch.arange(3000.0)[:, None]
    whole, parts = Sample(), Sample()
    whole.add(rows)
    for part in rows.split(7):
        parts.add(part)
    assert torch.equal(whole.rows, parts.rows)
    assert SAMPLED_TOKENS / 2 <= len(whole.rows) <= SAMPLED_TOKENS
    assert whole.rows.diff(dim=0).unique().numel() == 1
