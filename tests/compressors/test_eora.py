"""EoRA against its formula written out: a whitened SVD of what a compression lost, and the other metrics."""

from __future__ import annotations

import pytest
import torch

from eckart import METHODS, Need
from eckart.compressors.eora import METRICS, branches
from eckart.errors import Refused
from support import hard
from support.layers import layer
from support.low_rank import SHAPES


@SHAPES
@pytest.mark.parametrize("rank", [1, 4, 9])
def test_eora_is_the_svd_in_the_eigenspace_of_the_inputs(shape: tuple[int, int], rank: int) -> None:
    weight, x, statistics = layer(*shape)
    # Liu et al. 2024, equations 3 to 6: X X^T = Q L Q^T, B A = ((W - What) Q L^1/2)_r L^-1/2 Q^T.
    values, vectors = torch.linalg.eigh(x.T @ x / len(x))
    u, s, vh = torch.linalg.svd(weight @ vectors * values.sqrt(), full_matrices=False)
    expected = u[:, :rank] * s[:rank] @ vh[:rank] / values.sqrt() @ vectors.T
    fitted = METHODS.find("eora").entry(weight, statistics).build(rank)
    torch.testing.assert_close(fitted.structure.to_dense().detach(), expected, rtol=1e-7, atol=1e-8)
    assert fitted.bias is None
    lost = ((weight - expected) @ x.T).square().sum() / len(x)
    assert fitted.error == pytest.approx(float(lost), rel=1e-9)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("rebiased", [False, True])
def test_each_metric_is_minimized(metric: str, rebiased: bool) -> None:
    """No other branch of that rank is better where the metric measures, the bias included."""
    weight, x, statistics = layer(24, 16)
    mean = x.mean(0)
    family = branches(weight, statistics, metric, rebiased=rebiased)
    found = family.build(3)
    assert (found.bias is not None) == rebiased
    moment = statistics.get(Need.INPUT_SECOND_MOMENT) - (mean.outer(mean) if rebiased else 0)
    measure = {"diagonal": torch.diag(moment.diagonal()), "svd": torch.eye(16, dtype=torch.float64)}
    right = measure.get(metric, moment)
    left = statistics.get(Need.GRADIENT_SECOND_MOMENT) if metric == "kfac" else torch.eye(24, dtype=torch.float64)

    def error(branch: torch.Tensor) -> float:
        lost = weight - branch
        return float((left @ lost @ right * lost).sum())

    dense = found.structure.to_dense().detach()
    slack = 1.1 if metric == "kfac" else 1 + 1e-9  # both sides are damped there
    for seed in range(5):
        step = 1e-2 * (hard.normal(24, 3, seed=seed) @ hard.normal(3, 16, seed=seed + 9))
        u, s, vh = torch.linalg.svd(dense + step, full_matrices=False)
        assert error(dense) <= slack * error(u[:, :3] * s[:3] @ vh[:3])
    if rebiased:
        torch.testing.assert_close(found.bias, (weight - dense) @ mean, rtol=1e-8, atol=1e-9)


def test_an_unknown_metric_is_refused() -> None:
    weight, _, statistics = layer(8, 8)
    with pytest.raises(Refused, match="unknown metric 'best'; there are eigen, diagonal, svd, kfac"):
        branches(weight, statistics, "best")
