"""OSF against the SVD: steps have no part in the frozen space."""

from __future__ import annotations

import torch

from eckart.adapters._svd_form import leaves
from eckart.jobs.adapt.bases import dense_of
from support.adapting import adapted, train
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
