"""Schur complements of paired features: their definition, kernel matrices, and what a prompt shows."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from eckart.diagnostics.contract import Pairs
from eckart.diagnostics.schur_entropy import (
    cosine_features,
    gaussian_features,
    nullify,
    schur,
    schur_entropy,
    split_covariance,
    unscaled_entropy,
)
from support import hard
from support.embeddings import sets


def test_schur_complement_against_its_definition() -> None:
    texts, images = hard.normal(300, 6), hard.normal(300, 9, seed=1)
    images[:, :4] += texts[:, :4]
    joint = np.cov(np.hstack([images, texts]).T, bias=True) * 0 + np.hstack([images, texts]).T @ np.hstack(
        [images, texts]
    ) / len(images)
    c_ii, c_it, c_tt = joint[:9, :9], joint[:9, 9:], joint[9:, 9:]
    expected = c_ii - c_it @ np.linalg.inv(c_tt) @ c_it.T
    found = schur(images, texts, chunk=64)
    assert np.allclose(found.unexplained, expected)
    assert np.allclose(found.unexplained + found.explained, c_ii)
    # det of the joint covariance is det C_TT det S.
    assert np.linalg.slogdet(joint)[1] == pytest.approx(
        np.linalg.slogdet(c_tt)[1] + float(torch.linalg.slogdet(found.unexplained).logabsdet)
    )
    values = np.linalg.eigvalsh(expected)
    assert found.entropy == pytest.approx((values * np.log(values.sum() / values)).sum())


def test_schur_tells_what_the_text_explains() -> None:
    texts = cosine_features(hard.normal(4000, 5))
    rotation = hard.orthogonal(12)
    images = texts @ rotation[:5]
    whole = schur(images, texts)
    assert whole.share == pytest.approx(0, abs=1e-12)
    assert whole.entropy == pytest.approx(0, abs=1e-10)
    hidden = hard.normal(4000, 3, seed=3) @ rotation[5:8]
    half = schur(images + hidden, texts)
    assert half.share == pytest.approx(3 / (3 + 1), rel=0.05)
    torch.testing.assert_close(half.unexplained, hidden.T @ hidden / 4000, atol=0.02, rtol=0)
    # Texts that span less than their dimension leave no direction for a prompt outside of it.
    flat = torch.cat([texts, torch.zeros(4000, 2)], 1)
    same = schur(images + hidden, flat)
    assert same.text_rank == 5
    assert same.entropy == pytest.approx(half.entropy)
    with pytest.raises(ValueError, match="outside of what the texts span"):
        nullify(images, torch.eye(7)[6], same)


def test_a_nullified_prompt_does_not_show() -> None:
    texts = cosine_features(hard.normal(500, 5))
    images = texts @ hard.orthogonal(12)[:5] + 0.1 * hard.normal(500, 12, seed=1)
    found = schur(images, texts)
    prompt = texts[3]
    left = nullify(images, prompt, found)
    direction = found.map @ prompt
    assert float((left @ direction).abs().max()) < 1e-12
    assert float((images @ direction).abs().max()) > 0.1
    torch.testing.assert_close(nullify(left, prompt, found), left)


def test_features() -> None:
    x = hard.normal(20, 6)
    unit = cosine_features(x)
    torch.testing.assert_close((unit @ unit.T).diagonal(), torch.ones(20).double())
    fourier = gaussian_features(x, 2.0, frequencies=20000)
    kernel = (-torch.cdist(x, x).square() / 8).exp()
    assert (fourier @ fourier.T - kernel).abs().max() < 0.03
    with pytest.raises(ValueError, match="embedding 2 is zero"):
        cosine_features(x * (torch.arange(20) != 2)[:, None])
    with pytest.raises(ValueError, match="bandwidth=0"):
        gaussian_features(x, 0)
    with pytest.raises(ValueError, match="19 images do not pair with 20 texts"):
        schur(x[:19], x)
    assert unscaled_entropy(torch.eye(4).double() / 4) == pytest.approx(math.log(4))


def test_the_share_of_shuffled_texts_is_the_mean_over_all_orders() -> None:
    x, y = sets(5, 3, 2)
    orders = [torch.tensor(order) for order in itertools.permutations(range(5))]
    for texts in (y, torch.cat([y[:, :1], torch.ones(5, 1)], 1), torch.ones(5, 1), torch.zeros(5, 1)):
        mean = sum(schur(x, texts[order]).share for order in orders) / len(orders)
        assert schur(x, texts).shuffled == pytest.approx(mean, abs=1e-12)
    assert schur(x[:1], y[:1]).shuffled == schur(x[:1], y[:1]).share == pytest.approx(0, abs=1e-12)
    assert schur(0 * x, y).share == 0


def test_pairs_may_come_in_any_parts() -> None:
    x, y = sets()
    parts = split_covariance(Pairs.gathered(zip(x.split([1, 40, 19]), y.split([1, 40, 19]), strict=True)))
    torch.testing.assert_close(parts.unexplained, schur(x, y).unexplained)
    assert parts.shuffled == pytest.approx(schur(x, y).shuffled)


def test_columns_are_those_of_the_split() -> None:
    x, y = sets()
    numbers, found = schur_entropy(Pairs.gathered([(x, y)])), schur(x, y)
    assert list(numbers.values()) == pytest.approx(
        [found.entropy_whole, found.entropy_explained, found.entropy, found.share, found.shuffled, found.text_rank]
    )
