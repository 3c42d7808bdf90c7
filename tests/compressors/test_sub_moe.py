"""Sub-MoE: merged experts against their outputs on sampled inputs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import eckart
from eckart.compressors._merged_experts import merging
from eckart.compressors.contract import METHODS, Members
from eckart.layouts.experts import Mixture
from eckart.models.fused_experts import unfuse
from eckart.statistics import Statistics
from eckart.structures import Shared
from support import hard
from support.mixtures import ids, logits
from support.tiny import tiny_mixtral


def test_all_experts_are_the_model_itself() -> None:
    model, dense = tiny_mixtral(), tiny_mixtral()
    unfuse(dense)
    result = eckart.compress(model, "sub-moe", keep=1.0, of="linear-parameters", calibration=ids())
    assert set(result.choice.values()) == {None}
    assert torch.equal(logits(model, ids()), logits(dense, ids()))


def mixture(seeds: list[int], visits: list[int], seed: int = 7) -> Members:
    """Experts drawn from seeds, (6 -> 5 -> 6), each with inputs of its own."""
    weights = [hard.normal(*s, seed=10 * e + i) for e in seeds for i, s in enumerate([(5, 6), (5, 6), (6, 5)])]
    known = [
        Statistics(tokens=n, input_sample=hard.normal(40, k, seed=seed + 10 * e + i) if n else None)
        for e, n in enumerate(visits)
        for i, k in enumerate((6, 6, 5))
    ]
    return Members(tuple(weights), tuple(known), mixture=Mixture(len(seeds), lambda y: y[0].relu() * y[1]))


def test_equal_experts_are_merged_first_and_for_nothing() -> None:
    family = METHODS["sub-moe"].together["experts"](mixture([1, 2, 1, 3, 2], [30, 20, 10, 5, 0]))
    assert list(family.sizes) == [1, 2, 3, 4]
    assert float(family.errors[2]) <= 1e-12 * family.zero_error < float(family.errors[1])
    parts = family.build(3)
    for one, other in (0, 2), (1, 4):
        for role in range(3):
            structure = parts[3 * other + role].structure
            assert isinstance(structure, Shared)
            assert structure.owner is parts[3 * one + role].structure
    assert not any(isinstance(part.structure, Shared) for part in parts[9:12])
    for part, weight in zip(parts, mixture([1, 2, 1, 3, 2], [30, 20, 10, 5, 0]).weights, strict=True):
        assert torch.allclose(part.structure.to_dense(), weight)


def test_the_error_is_that_of_the_outputs_on_sampled_inputs() -> None:
    visits = [30, 20, 10, 0]
    members = mixture([1, 2, 3, 4], visits)
    family = METHODS["sub-moe"].together["experts"](members)
    for size in family.sizes:
        for i, part in enumerate(family.build(size)):
            x = members.statistics[i].input_sample
            if x is None:
                assert part.error == 0
                continue
            lost = x @ (members.weights[i] - part.structure.to_dense().detach()).T
            assert part.error == pytest.approx(visits[i // 3] / 60 * float(lost.square().sum()) / len(x), rel=1e-9)


@pytest.mark.parametrize("rank", [10, 5, 2])
def test_merging_in_the_joint_decomposition_is_a_projected_mean(rank: int) -> None:
    """U S sum f_i V_i is the mean of the W_i at full rank, and that mean projected on U_r below it."""
    weights = [hard.normal(10, 8, seed=i) for i in range(3)]
    shares = torch.tensor([0.5, 0.3, 0.2]).double()
    u, s, vt = torch.linalg.svd(torch.cat(weights, 1), full_matrices=False)
    u, s, vt = u[:, :rank], s[:rank], vt[:rank]
    merged = u * s @ sum(f * v for f, v in zip(shares, vt.split(8, 1), strict=True))
    mean = sum(f * w for f, w in zip(shares, weights, strict=True))
    assert torch.allclose(merged, u @ (u.T @ mean))

    def lost(a: Tensor) -> float:
        return sum(float(f * (a - w).square().sum()) for f, w in zip(shares, weights, strict=True))

    assert lost(mean) <= lost(merged) * (1 + 1e-12)
    assert rank < 10 or torch.allclose(merged, mean)


def test_shares_of_a_cluster() -> None:
    shares = merging(torch.tensor([0, 1, 0, 2, 2]), torch.tensor([30.0, 5.0, 10.0, 0.0, 0.0]).double())
    expected = torch.tensor([[0.75, 0, 0.25, 0, 0], [0, 1, 0, 0, 0]]).double()
    assert torch.allclose(shares[:2], expected)
    assert torch.allclose(shares[3:, 3:], torch.full((2, 2), 0.5).double())


def test_experts_nobody_visits_stay_as_they_are() -> None:
    with pytest.raises(ValueError, match="reached any of the experts"):
        METHODS["sub-moe"].together["experts"](mixture([1, 2], [0, 0]))
