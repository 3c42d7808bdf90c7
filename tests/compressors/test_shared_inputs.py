"""What matrices of one input share: made once, and gone with the statistic it was made of."""

from __future__ import annotations

import weakref

import torch

from eckart import METHODS
from eckart.compressors import _shared_inputs
from eckart.compressors._shared_inputs import KEPT, input_metric, made_of
from eckart.compressors.gptq import gptq_quantize
from eckart.statistics import Statistics
from support import hard


def test_it_is_made_once_of_each_tensor_and_again_of_one_that_changed() -> None:
    tensor, other, count = torch.eye(3), torch.eye(3), []

    def make() -> int:
        count.append(1)
        return len(count)

    assert [made_of(tensor, "a", make), made_of(tensor, "a", make), made_of(tensor, "b", make)] == [1, 1, 2]
    assert made_of(other, "a", make) == 3
    tensor.mul_(2)
    assert made_of(tensor, "a", make) == 4
    others = [torch.eye(2) for _ in range(KEPT)]
    for each in others:
        made_of(each, "a", make)
    assert made_of(other, "a", make) == 5 + KEPT


def test_what_was_made_goes_with_its_tensor() -> None:
    tensor = torch.eye(3)
    gone = weakref.ref(made_of(tensor, "a", lambda: torch.ones(1)))
    assert gone() is not None
    del tensor
    assert gone() is None


def test_a_family_holds_neither_a_copy_of_its_statistics_nor_what_was_made_of_them() -> None:
    weight, moment = hard.normal(6, 8), torch.eye(8)
    statistics = Statistics(tokens=4, input_second_moment=moment)
    assert input_metric(weight, statistics).right is moment
    family = METHODS["gptq"].entry(weight, statistics)
    family.build(4)
    assert id(moment) in _shared_inputs._MADE.entries
    last = weakref.ref(moment)
    del moment, statistics, family
    assert last() is None


def test_two_matrices_of_one_input_come_out_as_each_alone() -> None:
    x = hard.normal(40, 16)
    moment = x.T @ x / 40
    statistics = Statistics(tokens=40, input_second_moment=moment)
    for seed in (1, 2):
        weight = hard.normal(8, 16, seed=seed).float()
        together = METHODS["gptq"].entry(weight, statistics).build(3).structure.to_dense()
        torch.testing.assert_close(together, gptq_quantize(weight, moment.clone(), 3).to_dense(), rtol=0, atol=0)
