"""Batches cut to their real tokens, and padding that cannot be left out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from eckart.errors import Refused
from eckart.statistics.padding import without_padding
from support.statistics import tokens
from support.tiny import tiny_llama


def test_the_place_of_an_answer_moves_with_the_text() -> None:
    batch = {
        "input_ids": torch.tensor([[0, 0, 5, 6, 7], [5, 6, 7, 8, 9]]),
        "attention_mask": torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]]),
        "start_positions": torch.tensor([3, 1]),
    }
    first, second = without_padding(nn.Module(), batch)
    assert (first["input_ids"].tolist(), first["start_positions"].tolist()) == ([[5, 6, 7]], [1])
    assert (second["input_ids"].tolist(), second["start_positions"].tolist()) == ([[5, 6, 7, 8, 9]], [1])


@pytest.mark.parametrize("shape", [(2, 4), (2, 3, 4), (2, 1, 4, 6), (1, 1, 4, 4)])
def test_masks_without_padding_may_have_any_shape(shape: tuple[int, ...]) -> None:
    for mask in (torch.ones(shape), torch.ones(shape, dtype=torch.bool)):
        batch = {"input_ids": tokens(2, 4), "attention_mask": mask}
        assert without_padding(tiny_llama(), batch) == [batch]


def test_regions_of_an_image_are_no_tokens() -> None:
    """However many they are."""
    ids, mask, regions = tokens(2, 4), torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]]), torch.rand(2, 4, 8)
    groups = without_padding(tiny_llama(), {"input_ids": ids, "attention_mask": mask, "visual_embeds": regions})
    assert [tuple(group["visual_embeds"].shape) for group in groups] == [(1, 4, 8)] * 2


def test_sequences_of_one_length_stay_together() -> None:
    ids, mask = tokens(5, 6), torch.ones(5, 6, dtype=torch.long)
    mask[1, 4:] = mask[3, :2] = mask[4] = 0
    groups = without_padding(tiny_llama(), {"input_ids": ids, "attention_mask": mask})
    assert [group["input_ids"].tolist() for group in groups] == [
        ids[[0, 2]].tolist(),
        [ids[1, :4].tolist(), ids[3, 2:].tolist()],
    ]
    assert all(group["attention_mask"].all() for group in groups)
    whole = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    assert without_padding(tiny_llama(), whole) == [whole]


MROPE = {"attention_mask": torch.ones(3, 4).triu(), "position_ids": torch.ones(3, 3, 4)}
GAP = torch.tensor([[1, 0, 1, 1], [1, 1, 1, 1]])


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({"input_ids": tokens(2, 4), "attention_mask": GAP}, "leaves out tokens between others"),
        ({"input_ids": tokens(2, 4), "padding_mask": GAP}, "'padding_mask' of shape"),
        ({"pixel_values": torch.ones(2, 3, 8, 8), "pixel_mask": torch.eye(8).expand(2, 8, 8)}, "'pixel_mask' of shape"),
        ({"x": torch.ones(4, 2, 8), "attention_mask": GAP}, "one row for each of 4 samples"),
        ({"x": torch.ones(2, 8), "attention_mask": GAP.cumprod(1)}, "no entry of the batch has its 4 tokens"),
        ({"input_ids": tokens(2, 4), "attention_mask": torch.ones(2, 1, 4, 6).triu()}, "one row and one column"),
        (
            {"input_ids": tokens(3, 4), "attention_mask": torch.ones(3, 4).triu(), "position_ids": torch.ones(3, 3, 4)},
            "'p",
        ),
        (
            {"input_ids": tokens(2, 4), "attention_mask": GAP.cumprod(1), "images": torch.ones(5, 3)},
            "'images' of shape",
        ),
    ],
    ids=["gap", "unknown", "pixels", "second", "elsewhere", "cache", "positions", "unsorted"],
)
def test_padding_that_cannot_be_left_out_is_named(batch: dict[str, Tensor], message: str) -> None:
    with pytest.raises(Refused, match=message):
        without_padding(tiny_llama(), batch)
