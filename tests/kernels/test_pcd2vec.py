"""Sequences: shares that differ, the distance that is no metric, definiteness, and points through landmarks."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from eckart.errors import Refused
from eckart.kernels.pcd2vec import SequenceEmbedding, SequenceKernel, poisson_correction


def drawn(n: int, length: int, seed: int = 0, letters: str = "ACGT") -> list[str]:
    rng = np.random.default_rng(seed)
    return ["".join(rng.choice(list(letters), length)) for _ in range(n)]


def test_shares_are_scipys() -> None:
    x = drawn(9, 31)
    codes = np.array([[ord(a) for a in s] for s in x])
    np.testing.assert_allclose(SequenceKernel().differ(x), cdist(codes, codes, "hamming"), atol=1e-15)
    np.testing.assert_allclose(SequenceKernel("hamming", 0.2)(x), np.exp(-cdist(codes, codes, "hamming") / 0.2))
    d = -np.log(1 - cdist(codes, codes, "hamming"))
    np.testing.assert_allclose(SequenceKernel("poisson", 0.7)(x), np.exp(-(d**2) / (2 * 0.49)), rtol=1e-12)
    assert SequenceKernel("poisson")(["AA"], ["CC"]) == 0


def test_gaps_are_a_letter_or_nothing() -> None:
    x = ["AC-T", "ACG-", "TC-T"]
    counted, ignored = (SequenceKernel(gaps=gaps).differ(x) for gaps in ("count", "ignore"))
    np.testing.assert_allclose(counted[0], [0, 0.5, 0.25])
    np.testing.assert_allclose(ignored[0], [0, 0, 1 / 3])
    with pytest.raises(Refused, match="no position in common"):
        SequenceKernel(gaps="ignore").differ(["A-", "-A"])


def test_words_are_counted() -> None:
    x = ["ABABA", "BABAB", "CCC", "ABA"]
    counts = [Counter(s[i : i + 2] for i in range(len(s) - 1)) for s in x]

    def dot(a: Counter[str], b: Counter[str]) -> float:
        return sum(a[word] * b[word] for word in a)

    expected = [[dot(a, b) / np.sqrt(dot(a, a) * dot(b, b)) for b in counts] for a in counts]
    np.testing.assert_allclose(1 - SequenceKernel("kmer", word=2).differ(x), expected, atol=1e-14)
    kernel = SequenceKernel("kmer", 0.3, word=8)
    assert np.linalg.eigvalsh(kernel(drawn(12, 30)))[0] > -1e-12


def test_the_corrected_distance_is_no_metric_and_its_kernel_not_definite() -> None:
    p = torch.from_numpy(SequenceKernel().differ(["AAAAA", "BBAAA", "BBBBA"]))
    d = poisson_correction(p)
    assert float(d[0, 2]) == pytest.approx(np.log(5))
    assert d[0, 2] > d[0, 1] + d[1, 2]
    x = drawn(200, 12, seed=1)
    kernel = SequenceKernel("poisson", 1.0)
    assert not kernel.psd
    assert np.linalg.eigvalsh(kernel(x))[0] < -0.5
    assert SequenceKernel().psd
    assert np.linalg.eigvalsh(SequenceKernel()(x))[0] > -1e-10


def test_with_all_sequences_as_landmarks_it_is_kernel_pca() -> None:
    from sklearn.decomposition import KernelPCA

    x = drawn(30, 25, seed=2)
    kernel = SequenceKernel("hamming", 0.5)
    ours = SequenceEmbedding(kernel, 4, n_landmarks=30)
    points = ours.fit_transform(x)
    theirs = KernelPCA(4, kernel="precomputed", eigen_solver="dense").fit_transform(kernel(x))
    np.testing.assert_allclose(np.abs(points), np.abs(theirs), atol=1e-8)
    np.testing.assert_allclose(ours.transform(x[3:5]), points[3:5], atol=1e-10)
    assert ours.negative_ < 1e-12
    few = SequenceEmbedding(kernel, 2, n_landmarks=8).fit(x)
    assert len(few.landmarks_) == 8
    assert few.transform(drawn(3, 25, seed=3)).shape == (3, 2)
    clipped = SequenceEmbedding(SequenceKernel("poisson"), 3).fit(drawn(60, 12, seed=4))
    assert clipped.negative_ > 0.001
    assert np.isfinite(clipped.transform(x[:0] + drawn(2, 12))).all()


def test_what_cannot_be_met_is_refused() -> None:
    for make, said in (
        (lambda: SequenceKernel()(["AB", "ABC"]), "align them first"),
        (lambda: SequenceKernel()(["AB"], ["ABC"]), "not of one space"),
        (lambda: SequenceKernel()(["AB", ""]), "no sequence of letters"),
        (lambda: SequenceKernel()([1.0]), "no sequence of letters"),
        (lambda: SequenceKernel()(["A\u2603"]), "more than a byte"),
        (lambda: SequenceKernel("edit"), "distance='edit'"),
        (lambda: SequenceKernel("kmer", word=4)(["ABC"]), "no word of 4"),
        (lambda: SequenceKernel(word=9), "word=9"),
    ):
        with pytest.raises(Refused, match=said):
            make()
