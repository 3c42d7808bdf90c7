"""CrossQuant against equation 5 of the paper, and what it keeps from being zero."""

from __future__ import annotations

import torch
from torch import Tensor

import eckart
from eckart.structures import Chain, Diagonal, RoundedInput
from support import hard
from support.layers import inputs, layer, statistics_of


def published(x: Tensor, c: Tensor) -> Tensor:
    """x_ij rounded with the step t_i^0.15 c_j^0.85 / 127, for largest magnitudes c of the inputs."""
    step = x.abs().amax(1, keepdim=True) ** 0.15 * c**0.85 / 127
    return step * (x / step).round()


def test_the_scales_are_the_paper_s_for_good() -> None:
    weight, x, statistics = layer(12, 20)
    structure = eckart.fit(weight, "crossquant", bits=8, statistics=statistics)
    assert isinstance(structure, Chain)
    rounded, inverse = structure.operands()
    assert isinstance(rounded, RoundedInput)
    assert isinstance(inverse, Diagonal)
    ratio = inverse.weight.detach() * x.abs().amax(0) ** 0.85
    torch.testing.assert_close(ratio, ratio[0].expand(20), rtol=1e-12, atol=0)


def test_inputs_are_rounded_no_coarser_than_published() -> None:
    weight, x, statistics = layer(12, 20)
    structure = eckart.fit(weight, "crossquant", bits=8, statistics=statistics)
    rounded, inverse = structure.operands()
    ours = rounded.rounded(inverse(x)) / inverse.weight.detach()
    theirs = published(x, x.abs().amax(0))
    assert (ours - x).norm() <= 1.05 * (theirs - x).norm()
    # Its step is the published one wherever the largest scaled entry of a token reaches t^0.15.
    assert ((ours - x).abs() <= x.abs().amax(1, keepdim=True) ** 0.15 * x.abs().amax(0) ** 0.85 / 254 + 1e-12).all()


def test_as_published_a_token_depends_on_those_behind_it() -> None:
    weight, x, statistics = layer(12, 20)
    structure = eckart.fit(weight, "crossquant", bits=8, statistics=statistics)
    changed = x.clone()
    changed[1:] *= 50
    assert not torch.equal(published(changed, changed.abs().amax(0))[0], published(x, x.abs().amax(0))[0])
    torch.testing.assert_close(structure(changed)[0], structure(x)[0], rtol=1e-12, atol=1e-12)


def test_fewer_inputs_become_zero_than_with_a_scale_a_token() -> None:
    x = inputs(64)
    x[:, [3, 40]] *= 200
    weight = hard.normal(32, 64, seed=3)
    structure = eckart.fit(weight, "crossquant", bits=8, statistics=statistics_of(x, inputs(32, seed=35)))
    rounded, inverse = structure.operands()
    plain = x.abs().amax(1, keepdim=True) / 127
    zero = ((x / plain).round() == 0).double().mean()
    assert zero > 0.3
    assert (rounded.rounded(inverse(x)) == 0).double().mean() < 0.1 * zero
