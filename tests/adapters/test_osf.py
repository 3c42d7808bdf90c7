"""OSF against the SVD: steps have no part in the frozen space, in one task and in a sequence of them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import eckart
from eckart.adapters._svd_form import leaves
from eckart.adapters.osf import LEAST_KEPT, by_similarity
from eckart.jobs.adapt.adapter import adapted_layers
from eckart.jobs.adapt.bases import dense_of
from eckart.models.sites import linear_layers
from eckart.statistics import Statistics
from eckart.structures import Dense
from support import hard
from support.adapting import adapted, ids, logits, train
from support.starts import SHAPES, assert_triplets
from support.tiny import tiny_llama


@SHAPES
def test_all_parts_of_the_last_triplets_train(shape: tuple[int, int]) -> None:
    path = assert_triplets("osf", shape, leading=False)
    assert [p.numel() for p in path.parameters() if p.requires_grad] == [3 * shape[0], 3, 3 * shape[1]]


def test_steps_of_osf_have_no_part_in_the_frozen_space() -> None:
    model = tiny_llama()
    adapter = adapted(model, "osf", seed=1)
    starts = {name: [leaf.detach().double() for leaf in leaves(path)] for name, path in adapter.paths.items()}
    bases = {name: dense_of(place.base).double() for name, place in adapter.places.items()}
    train(model, adapter, steps=6)
    for name, path in adapter.paths.items():
        u, _, vh = torch.linalg.svd(bases[name], full_matrices=False)
        kept = min(bases[name].shape) - 4
        left, _, right = (
            leaf.detach().double() - start for leaf, start in zip(leaves(path), starts[name], strict=True)
        )
        assert min(left.norm(), right.norm()) > 1e-2
        assert float((u[:, :kept].T @ left).norm()) < 1e-5 * float(left.norm())
        assert float((right @ vh[:kept].T).norm()) < 1e-5 * float(right.norm())


def test_a_matrix_is_decomposed_once_and_again_only_at_another_time(monkeypatch: pytest.MonkeyPatch) -> None:
    decompose, shapes = torch.linalg.svd, []
    monkeypatch.setattr(torch.linalg, "svd", lambda a, **how: shapes.append(a.shape) or decompose(a, **how))
    adapter = adapted(tiny_llama(), "osf", seed=1)
    count = len(adapter.paths)
    assert len(shapes) == count
    adapter.plan(3)
    known = adapter._schedule
    assert len(shapes) == count
    adapter.plan(3)  # as a run that goes on in another process does
    again = adapter._schedule
    assert len(shapes) == 2 * count
    for (_, _, _, u, vh), (_, _, _, other, another) in zip(known.kept, again.kept, strict=True):
        torch.testing.assert_close(u @ u.T, other @ other.T, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(vh.T @ vh, another.T @ another, rtol=1e-4, atol=1e-5)


def test_ranks_of_osf_next_follow_the_similarity_of_inputs_and_outputs() -> None:
    x = hard.normal(50, 16, seed=3).float()
    weights = {"near": torch.eye(16) + 0.2 * hard.normal(16, 16).float(), "far": hard.normal(16, 16, seed=1).float()}
    weights |= {"back": -torch.eye(16), "wide": hard.normal(24, 16, seed=2).float()}
    known = {name: Statistics(tokens=50, input_sample=x) for name in weights}
    matrices = {name: Dense(weight) for name, weight in weights.items()}
    cosines = {}
    for name in ("near", "far", "back"):
        pairs = [(row, weights[name] @ row) for row in x]
        cosines[name] = max(0.0, float(sum(a @ b / (a.norm() * b.norm()) for a, b in pairs)) / 50)
    mean = sum(cosines.values()) / 3
    # 12 of 16 triplets train on average, so that a quarter stays.
    expected = {
        name: round(16 * max(0.0, 1 - LEAST_KEPT - c / mean * (0.25 - LEAST_KEPT))) for name, c in cosines.items()
    }
    assert by_similarity(matrices, known, 12) == expected | {"wide": 12}
    assert expected["near"] < expected["far"] <= expected["back"]
    assert by_similarity(matrices, known, 16) == dict.fromkeys(matrices, 16)
    alike = {name: matrices[name] for name in ("back", "wide")}
    assert by_similarity(alike, known, 5) == {"back": 5, "wide": 5}
    for rank in (0, 17):
        with pytest.raises(eckart.Refused, match=f"rank={rank} "):
            by_similarity(matrices, known, rank)


def test_a_sequence_keeps_what_is_protected_and_protects_more_and_more() -> None:
    model = tiny_llama()
    sequence = eckart.TaskSequence(model, tasks=3, protected=(0.25, 0.75))
    kept = []
    for task in range(3):
        before = logits(model, ids())
        adapter = sequence.next(calibration=ids(8, seed=task))
        torch.testing.assert_close(logits(model, ids()), before, rtol=1e-4, atol=1e-4)
        weights = {
            name: (dense_of(place.base) + leaf_product(place)).double() for name, place in adapter.places.items()
        }
        train(model, adapter, steps=4)
        trained = logits(model, ids())
        if task == 2:
            sequence.end()
            torch.testing.assert_close(logits(model, ids()), trained, rtol=1e-4, atol=1e-4)
            after = {name: dense_of(linear_layers(model)[name]).double() for name in weights}
        else:
            after = {n: (dense_of(place.base) + leaf_product(place)).double() for n, place in adapter.places.items()}
        for name, weight in weights.items():
            u, s, vh = torch.linalg.svd(weight, full_matrices=False)
            count = len(s) - adapter.ranks[name]
            right, left = vh[:count].T, u[:, :count].T
            assert float((after[name] - weight).norm()) > 1e-3 * float(weight.norm())
            assert float(((after[name] - weight) @ right).norm()) < 1e-4 * float(weight.norm())
            assert float((left @ (after[name] - weight)).norm()) < 1e-4 * float(weight.norm())
        kept.append(sum(min(weight.shape) - adapter.ranks[name] for name, weight in weights.items()))
    assert kept[0] < kept[1] < kept[2]
    assert sequence.adapter is None
    assert not adapted_layers(model)
    assert len(sequence.errors) == 3
    assert max(sequence.errors) < 1e-3
    assert [sequence.share(task) for task in range(3)] == [0.25, 0.5, 0.75]
    with pytest.raises(eckart.Refused, match="3 tasks were announced"):
        sequence.next(calibration=ids(8))


def leaf_product(place: nn.Module) -> torch.Tensor:
    return place.path().to_dense().detach()  # type: ignore[operator,no-any-return]


def test_a_sequence_refuses_what_it_cannot_do() -> None:
    with pytest.raises(eckart.Refused, match="tasks=0"):
        eckart.TaskSequence(tiny_llama(), tasks=0)
    for shares in ((0.5, 0.2), (-0.1, 0.2), (0.2, 1.0), (0.5,)):
        with pytest.raises(eckart.Refused, match="two shares"):
            eckart.TaskSequence(tiny_llama(), tasks=2, protected=shares)  # type: ignore[arg-type]
    sequence = eckart.TaskSequence(tiny_llama(), tasks=2)
    sequence.next(calibration=ids(8))
    assert sequence.adapter is not None
    sequence.adapter.deactivate()
    with pytest.raises(eckart.Refused, match="not active"):
        sequence.next(calibration=ids(8))
