"""EVA against the principal components of centred inputs."""

from __future__ import annotations

import torch

import eckart
from eckart.adapters.eva import shared_out
from eckart.statistics import Statistics
from eckart.structures import Dense
from support import hard
from support.adapting import adapted, ids
from support.starts import RANK, begin, factors, layer
from support.tiny import tiny_llama


def test_eva_starts_from_principal_components_of_centred_inputs() -> None:
    made = layer(hard.normal(10, 14))
    start, product = begin("eva", made)
    mean, moment = made.statistics.input_mean, made.statistics.input_second_moment
    assert mean is not None
    assert moment is not None
    vectors = torch.linalg.eigh(moment - torch.outer(mean, mean)).eigenvectors.flip(1)[:, :RANK]
    a = factors(start)[1]
    torch.testing.assert_close((a @ vectors).abs(), torch.eye(RANK, dtype=torch.float64))
    assert float(product.abs().max()) == 0
    assert not start.split


def test_eva_shares_out_ranks_by_explained_variance() -> None:
    def known(*variances: float) -> Statistics:
        moment = torch.tensor(variances, dtype=torch.float64).diag()
        return Statistics(tokens=9, input_second_moment=moment, input_mean=torch.zeros(4, dtype=torch.float64))

    matrices = {name: Dense(torch.zeros(4, 4)) for name in ("steep", "flat", "middle")}
    data = {"steep": known(100, 1, 1e-3, 0), "flat": known(5, 5, 5, 5), "middle": known(6, 3, 1, 0)}
    # Shares: .99 .01 | .25 .25 .25 .25 | .6 .3 .1: the largest 6 with at most 4 each.
    assert shared_out(matrices, data, 2) == {"steep": 1, "flat": 3, "middle": 2}
    assert shared_out(matrices, data, 1) == {"steep": 1, "flat": 0, "middle": 2}
    model = tiny_llama()
    adapter = adapted(model, "eva", alpha=8.0)
    asked = 4
    assert sum(adapter.ranks.values()) == asked * len(eckart.adapt(tiny_llama(), "lora", rank=asked).places)
    assert max(adapter.ranks.values()) <= 2 * asked
    assert set(adapter.ranks) == set(adapter.places)
    assert {place.path().scale for place in adapter.places.values()} == {2.0}


def test_ranks_that_go_to_larger_matrices_keep_to_the_parameters() -> None:
    asked = 4000
    adapter = eckart.adapt(tiny_llama(), "eva", parameters=asked, calibration=ids(8))
    assert asked // 2 < sum(p.numel() for p in adapter.trainable_parameters()) <= asked
