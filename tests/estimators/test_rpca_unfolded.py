"""Unrolled robust PCA: stages written out, the loss, and pixels that are far from the median."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from eckart.errors import Refused
from eckart.estimators.rpca_unfolded import (
    PARTS,
    UnfoldedRobustPCA,
    convolved,
    far_from_median,
    soft_iou_loss,
    unrolled,
)


def filters(draws: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    return tuple(torch.randn(s, generator=draws, dtype=torch.float64) for s in ((2, 1, 3, 3), (1, 2, 3, 3)))  # type: ignore[return-value]


def test_stages_are_the_equations_and_have_their_gradients() -> None:
    draws = torch.Generator().manual_seed(0)
    data = torch.randn(2, 1, 4, 5, generator=draws, dtype=torch.float64)
    stages = [{part: filters(draws) for part in PARTS} | {"step": torch.tensor(0.3, dtype=torch.float64)} for _ in "ab"]
    for overwrite in (False, True):
        seen, objects = data, torch.zeros_like(data)
        for stage in stages:
            background = seen - objects + convolved(seen - objects, stage["background"])
            both = objects + seen - background
            objects = both - 0.3 * convolved(both, stage["object"])
            if overwrite:
                seen = background + objects + convolved(background + objects, stage["image"])
        found = unrolled(data, stages, overwrite=overwrite)
        torch.testing.assert_close(found, (objects, background))
    one, two = (each.requires_grad_() for each in filters(draws))
    assert torch.autograd.gradcheck(lambda *pair: unrolled(data[:1], [stages[0] | {"object": pair}])[0], (one, two))


def test_the_loss_is_zero_where_all_overlaps_and_one_where_nothing_does() -> None:
    masks = torch.zeros(1, 1, 4, 4, dtype=torch.float64)
    masks[..., :2, :] = 1
    assert float(soft_iou_loss(200 * (masks - 0.5), masks)) == pytest.approx(0, abs=1e-6)
    assert float(soft_iou_loss(-200 * (masks - 0.5), masks)) == pytest.approx(1, abs=1e-6)


def test_without_masks_what_moves_is_an_object() -> None:
    rng = np.random.default_rng(0)
    images = rng.random((1, 8, 8)) + 0.01 * rng.standard_normal((9, 8, 8))
    for i, image in enumerate(images[:7]):
        image[i, i] += 1
    found = far_from_median(images)
    assert all(found[i, i, i] for i in range(7))
    assert found.sum() < 12
    fitted = UnfoldedRobustPCA(1, 2, max_iter=2, random_state=0).fit(images)
    assert fitted.history_[1] < fitted.history_[0]
    assert fitted.backgrounds(images).shape == images.shape
    with pytest.raises(Refused, match="of 0 and 1"):
        UnfoldedRobustPCA().fit(images, images)
