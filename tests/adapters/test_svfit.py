"""SVFit against the SVD."""

from __future__ import annotations

from support.starts import SHAPES, assert_triplets


@SHAPES
def test_the_leading_singular_values_train(shape: tuple[int, int]) -> None:
    path = assert_triplets("svfit", shape, leading=True)
    assert [p.numel() for p in path.parameters() if p.requires_grad] == [3]
