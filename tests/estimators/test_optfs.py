"""Gates on values of features: the machine written out, what closes, what is kept."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from eckart.errors import Refused
from eckart.estimators.optfs import GatedFeatureValues, Weights, machine, soft_gates


def data(n: int = 400) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 5, (n, 3)).astype(float)
    y = np.where((x[:, 0] > 2) ^ (x[:, 1] > 1), "yes", "no")
    return x, y


def test_the_machine_is_a_sum_over_pairs_of_gated_embeddings() -> None:
    draws = torch.Generator().manual_seed(0)
    weights = Weights(*(torch.randn(s, dtype=torch.float64, generator=draws) for s in ((), (7,), (7, 2))))
    gates = torch.rand(7, dtype=torch.float64, generator=draws)
    codes = torch.tensor([[0, 3, 5], [1, 4, 7]])
    e = weights.embedding * gates[:, None]
    first = weights.bias + (weights.linear * gates)[[0, 3, 5]].sum() + e[0] @ e[3] + e[0] @ e[5] + e[3] @ e[5]
    second = weights.bias + (weights.linear * gates)[[1, 4]].sum() + e[1] @ e[4]  # the value 7 is not known
    torch.testing.assert_close(machine(codes, weights, gates), torch.stack([first, second]))
    torch.testing.assert_close(soft_gates(torch.tensor([0.5, -0.1, 0.1]), 1e4).clamp(max=1), torch.tensor([1.0, 0, 1]))
    assert float(soft_gates(torch.tensor(0.5), 1.0)) == pytest.approx(1)


def test_interactions_are_learned_and_what_says_nothing_closes() -> None:
    x, y = data()
    fitted = GatedFeatureValues(penalty=4.0, random_state=0).fit(x, y)
    assert fitted.score(x, y) > 0.95
    useful, useless = fitted.kept_[:10].mean(), fitted.kept_[10:].mean()
    assert useful > useless
    assert not fitted.embedding_[~fitted.kept_].any()
    # A value that was never seen says nothing.
    assert np.isfinite(fitted.predict_proba(x + 100)).all()
    assert fitted.predict_proba(x + 100).std(axis=0).max() < 1e-12


def test_without_a_penalty_all_stay_and_by_frequency_the_frequent_ones() -> None:
    x, y = data()
    assert GatedFeatureValues(penalty=0.0, max_iter=3, random_state=0).fit(x, y).kept_.mean() > 0.8
    x[:390, 2] = 0
    fitted = GatedFeatureValues(method="frequency", keep=0.7, max_iter=1, random_state=0).fit(x, y)
    assert fitted.kept_.sum() == round(0.7 * len(fitted.kept_))
    assert fitted.kept_[10]


def test_what_cannot_be_met_is_refused() -> None:
    x, y = data()
    for options, words in (
        ({"method": "hash"}, "method='hash'"),
        ({"penalty": -1.0}, "penalty=-1.0"),
        ({"keep": 0.0}, "keep=0.0"),
    ):
        with pytest.raises(Refused, match=words):
            GatedFeatureValues(**options).fit(x, y)
    with pytest.raises(Refused, match="Only binary"):
        GatedFeatureValues().fit(x, x[:, 0])


def test_one_class_and_steps_too_large_are_refused_by_name() -> None:
    x, y = np.arange(40).reshape(20, 2) % 3, np.arange(20) % 2
    with pytest.raises(Refused, match="one class"):
        GatedFeatureValues().fit(x, 0 * y)
    with np.errstate(all="ignore"), pytest.raises(Refused, match="learning_rate"):
        GatedFeatureValues(learning_rate=1e300, random_state=0, max_iter=2).fit(x, y)


def test_weights_are_as_many_samples() -> None:
    x, y = data()
    weights = np.random.default_rng(1).integers(0, 4, len(x))
    options: dict = {"penalty": 4.0, "random_state": 0, "batch_size": 4 * len(x), "max_iter": 5}
    # In one batch the order of samples does not matter, and a weight is a number of them.
    weighted = GatedFeatureValues(**options).fit(x, y, weights)
    repeated = GatedFeatureValues(**options).fit(x.repeat(weights, axis=0), y.repeat(weights))
    np.testing.assert_allclose(weighted.predict_proba(x), repeated.predict_proba(x), atol=1e-9)
    np.testing.assert_allclose(weighted.history_, repeated.history_, atol=1e-9)
    often = GatedFeatureValues(**options, method="frequency", keep=0.4)
    assert (
        often.fit(x, y, weights).kept_.tolist()
        == often.fit(x.repeat(weights, axis=0), y.repeat(weights)).kept_.tolist()
    )
