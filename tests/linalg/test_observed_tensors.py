"""Sweeps over known entries against regressions on each index's own."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch

from eckart.linalg.cp import sweep
from eckart.linalg.observed_tensors import Entries, cp_sweep, cp_sweep_of_the_whole, few_gaps, known_rows, tucker_sweep


def some(seed: int = 0) -> tuple[Entries, np.ndarray]:
    rng = np.random.default_rng(seed)
    whole = rng.standard_normal((5, 4, 3))
    index = np.nonzero(rng.random(whole.shape) < 0.7)
    return Entries(whole.shape, index, whole[index]), whole


def test_with_all_entries_it_is_a_sweep_of_the_whole_tensor() -> None:
    rng = np.random.default_rng(0)
    whole = rng.standard_normal((4, 3, 2))
    factors = [rng.standard_normal((n, 2)) for n in whole.shape]
    index = np.nonzero(np.ones(whole.shape))
    ours, error = cp_sweep(Entries(whole.shape, index, whole[index]), factors, 1e-14)
    theirs, again = sweep(torch.from_numpy(whole), [torch.from_numpy(f) for f in factors], 0.0)
    np.testing.assert_allclose(error, again)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b.numpy(), rtol=1e-7, atol=1e-9)


def test_a_row_is_the_regression_on_its_own_entries() -> None:
    entries, _ = some()
    rng = np.random.default_rng(1)
    design, factor = rng.standard_normal((len(entries.values), 2)), rng.standard_normal((5, 2))
    found, error = entries.step(0, factor, design, 1e-14)
    for i in range(5):
        own = entries.index[0] == i
        np.testing.assert_allclose(
            found[i], np.linalg.lstsq(design[own], entries.values[own], rcond=None)[0], rtol=1e-6
        )
    np.testing.assert_allclose(error, np.square(entries.values - (design * found[entries.index[0]]).sum(1)).sum())


def test_a_sweep_of_the_whole_less_its_gaps_is_one_over_the_entries() -> None:
    rng = np.random.default_rng(4)
    whole = rng.standard_normal((6, 5, 4))
    seen = rng.random(whole.shape) > 0.2
    entries = Entries(whole.shape, np.nonzero(seen), whole[seen])
    gaps = Entries(whole.shape, np.nonzero(~seen), np.zeros((~seen).sum()))
    assert few_gaps(gaps, 1e-6)
    assert not few_gaps(gaps, 0.0)
    factors = [rng.standard_normal((n, 2)) for n in whole.shape]
    plain, error = cp_sweep(entries, factors, 1e-9)
    quick, again = cp_sweep_of_the_whole(np.where(seen, whole, 0.0), entries, gaps, factors, 1e-9)
    np.testing.assert_allclose(again, error, rtol=1e-7)
    for a, b in zip(plain, quick, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-6)


def test_sweeps_of_tucker_never_go_up_and_state_their_error() -> None:
    entries, _ = some()
    rng = np.random.default_rng(2)
    core, factors, errors = rng.standard_normal((2, 2, 2)), [rng.standard_normal((n, 2)) for n in entries.shape], []
    for _ in range(8):
        core, factors, error = tucker_sweep(entries, core, factors, 1e-9)
        model = np.einsum("pqr,ap,bq,cr->abc", core, *factors)
        np.testing.assert_allclose(error, np.square(entries.values - model[entries.index]).sum())
        errors.append(error)
    assert all(b <= a * (1 + 1e-9) for a, b in pairwise(errors))


def test_a_row_that_nothing_is_known_of_is_the_mean_of_the_others() -> None:
    entries, _ = some()
    kept = entries.index[0] != 2
    less = Entries(entries.shape, tuple(at[kept] for at in entries.index), entries.values[kept])
    factors = [np.random.default_rng(3).standard_normal((n, 2)) for n in entries.shape]
    found = known_rows(less, factors)
    np.testing.assert_allclose(found[0][2], np.delete(factors[0], 2, 0).mean(0))
    np.testing.assert_array_equal(found[1], factors[1])
