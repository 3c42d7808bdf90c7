"""Leverage against its definition."""

from __future__ import annotations

import torch

from eckart.linalg.nystrom import by_leverage
from support import hard


def test_units_are_kept_by_leverage() -> None:
    moment = hard.normal(40, 9, seed=3)
    moment = moment.T @ moment
    scores = (moment @ torch.linalg.inv(moment + 0.7 * torch.eye(9))).diagonal()
    assert torch.equal(by_leverage(moment, 0.7), scores.argsort(descending=True))
