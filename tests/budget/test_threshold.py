"""One threshold on the normalised singular values of all matrices."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from eckart.budget import Candidates, allocate
from eckart.budget.contract import Array

few = settings(deadline=None, max_examples=25)


def spent(sites: Sequence[Candidates], choice: Sequence[int]) -> float:
    return sum(float(c.costs[i]) for c, i in zip(sites, choice, strict=True))


def spectrum_site(out: int, columns: int, spectrum: Array, step: int) -> tuple[Candidates, list[int]]:
    """The plain SVD of a matrix with these singular values at every rank that pays, and those ranks."""
    ranks = [r for r in range(step, len(spectrum) + 1, step) if r * (out + columns) < out * columns]
    tails = np.array([(spectrum[r:] ** 2).sum() for r in ranks])
    costs = np.array([r * (out + columns) for r in ranks] + [out * columns], dtype=float)
    slope = ((spectrum**2).sum() - tails[0]) / costs[0]
    return Candidates(costs, np.append(tails, 0.0), slope), ranks


def kept_above(t: float, spectrum: Array, ranks: Sequence[int], shape: tuple[int, int], step: int) -> int:
    """Which candidate has all steps of mean square at least t^2 times the first's; the dense one if it has that too.

    What the dense matrix adds to the last rank that pays is spread over what it costs more, in ranks.
    """
    means = [float((spectrum[r - step : r] ** 2).mean()) for r in ranks]
    more = (shape[0] * shape[1]) / (shape[0] + shape[1]) - ranks[-1]
    means.append(min(means[-1], float((spectrum[ranks[-1] :] ** 2).sum()) / more))
    return sum(m >= t**2 * means[0] * (1 - 1e-9) for m in means) - 1


@few
@given(seed=st.integers(0, 10**6), step=st.sampled_from([1, 4]), least=st.sampled_from([0.0, 0.3]))
def test_threshold_is_one_threshold_on_normalised_singular_values(seed: int, step: int, least: float) -> None:
    rng = np.random.default_rng(seed)
    sites, spectra, values = [], [], []
    for out, columns in ((24, 24), (24, 40), (48, 32), (32, 32)):
        spectrum = np.sort(rng.uniform(0.5, 1, min(out, columns)) ** rng.integers(1, 3))[::-1] * rng.lognormal(sigma=4)
        site, ranks = spectrum_site(out, columns, spectrum, step)
        sites.append(site)
        spectra.append((spectrum, ranks, (out, columns)))
        values += [((spectrum[r - step : r] ** 2).mean() / (spectrum[:step] ** 2).mean()) ** 0.5 for r in ranks]
    total = sum(c.costs[-1] for c in sites)
    for t in rng.choice(values, 6):
        # Where the floor takes the first ranks away, the largest singular value stays what the others are measured by.
        lowest = [int(np.argmax(c.costs >= least * c.costs[-1])) for c in sites]
        expected = [max(i, kept_above(t, *s, step)) for i, s in zip(lowest, spectra, strict=True)]
        budget = spent(sites, expected)
        if budget >= 2 * least * total:
            assert allocate(sites, budget, "threshold", floor=least) == expected


def test_threshold_does_not_see_the_scale_of_a_site() -> None:
    site, _ = spectrum_site(24, 40, np.linspace(1, 0.1, 24), 1)
    louder = Candidates(site.costs, site.errors * 1e6, site.slope * 1e6)
    budget = 1.2 * site.costs[-1]
    quiet, loud = allocate([site, louder], budget, "threshold", floor=0)
    assert abs(quiet - loud) <= 1
    quiet, loud = allocate([site, louder], budget, "greedy", floor=0)
    assert loud - quiet > 5


def test_threshold_keeps_a_flat_spectrum_dense_first() -> None:
    flat, _ = spectrum_site(32, 32, np.linspace(1, 0.9, 32), 1)
    steep, ranks = spectrum_site(32, 32, 0.5 ** np.arange(32.0), 1)
    for keep in (0.6, 0.7, 0.8):
        choice = allocate([flat, steep], keep * 2 * 1024, "threshold")
        assert choice[0] == len(flat.costs) - 1
        assert choice[1] < len(ranks)
