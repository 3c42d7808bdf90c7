"""WeLoRe: the truncated SVD, and one threshold on the normalised singular values of all matrices."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import eckart
from eckart import METHODS, Statistics
from support import hard
from support.low_rank import SHAPES


@SHAPES
def test_candidates_are_truncated_svds(shape: tuple[int, int]) -> None:
    weight = hard.normal(*shape)
    u, s, vh = torch.linalg.svd(weight, full_matrices=False)
    family = METHODS["welore"].entry(weight, Statistics())
    for rank, error in zip(family.sizes, family.errors.tolist(), strict=True):
        expected = u[:, :rank] * s[:rank] @ vh[:rank]
        torch.testing.assert_close(family.build(rank).structure.to_dense().detach(), expected, rtol=1e-9, atol=1e-10)
        assert error == pytest.approx(float(s[rank:].square().sum()))


@pytest.mark.parametrize("keep", [0.3, 0.5, 0.7])
def test_ranks_come_from_one_threshold(keep: float) -> None:
    model = nn.Sequential(*(nn.Linear(40, 40, bias=False, dtype=torch.float64) for _ in range(4)))
    spectra = {}
    with torch.no_grad():
        for i, layer in enumerate(model):
            # Spectra of several lengths and scales; only their shapes count.
            values = hard.decaying(40, 0.2 + 0.8 * i)
            layer.weight.copy_(10.0**i * hard.with_spectrum(40, 40, values, seed=7 * i))  # type: ignore[operator]
            spectra[str(i)] = values
    result = eckart.compress(model, "welore", keep=keep, of="linear-parameters", floor=0.0)
    ranks = {name: 40 if size is None else size for name, size in result.choice.items()}
    assert len(set(ranks.values())) > 2
    cut = max(float(spectra[name][rank]) for name, rank in ranks.items() if rank < 20)
    kept = min(float(spectra[name][rank - 1]) for name, rank in ranks.items() if rank < 20)
    # 19 is the last rank that pays; a matrix that would keep more is dense.
    assert set(ranks.values()) <= {*range(20), 40}
    assert cut < kept
    assert all(float(spectra[name][19]) > cut for name, rank in ranks.items() if rank == 40)
