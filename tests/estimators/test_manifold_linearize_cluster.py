"""Clusters by coding rates: gradients, what rises, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from eckart.errors import Refused
from eckart.estimators.manifold_linearize_cluster import CodingRateClustering, mapped, reduction, spectral_clusters
from eckart.linalg.coding_rate import doubly_stochastic


def test_the_reduction_has_its_gradients_and_no_groups_save_nothing() -> None:
    draws = torch.Generator().manual_seed(0)
    x, w, a, b = (torch.randn(s, dtype=torch.float64, generator=draws) for s in ((6, 4), (4, 3), (4, 5), (5, 3)))
    weights = [each.requires_grad_() for each in (w, a, b)]
    assert torch.autograd.gradcheck(lambda *v: reduction(x, list(v), [v[0]], 0.5, 0.3), weights)
    assert abs(float(reduction(x, weights, [w], 0.5, 1e6).detach())) < 1e-5
    torch.testing.assert_close(mapped(x, weights).norm(dim=1), torch.ones(6, dtype=x.dtype))


def test_blocks_of_a_plan_are_clusters() -> None:
    z = torch.eye(3, dtype=torch.float64).repeat_interleave(4, 0)
    labels = spectral_clusters(doubly_stochastic(z @ z.T, 0.1), 3, torch.Generator().manual_seed(0))
    assert len(labels.unique()) == 3
    assert all(len(labels[i : i + 4].unique()) == 1 for i in (0, 4, 8))


@pytest.mark.parametrize("network", ["linear", "mlp"])
def test_the_reduction_rises(network: str) -> None:
    rng = np.random.default_rng(0)
    x = np.concatenate([np.outer(rng.standard_normal(20), rng.standard_normal(4)) for _ in range(3)])
    fitted = CodingRateClustering(3, network=network, random_state=0).fit(x)  # type: ignore[arg-type]
    assert fitted.history_[-1] > fitted.history_[0]
    assert fitted.embedding_.shape == (60, 3)
    again = CodingRateClustering(3, network=network, random_state=0).fit(x * 2.0**300)  # type: ignore[arg-type]
    np.testing.assert_array_equal(again.labels_, fitted.labels_)


def test_what_cannot_be_met_is_refused() -> None:
    for options, words in (
        ({"n_clusters": 9}, "at most 4"),
        ({"network": "cnn"}, "network='cnn'"),
        ({"error": 0.0}, "error=0.0"),
    ):
        with pytest.raises(Refused, match=words):
            CodingRateClustering(**{"n_clusters": 2} | options).fit(np.eye(4))
