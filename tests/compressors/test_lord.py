"""LoRD against principal components of the outputs, and against whitening."""

from __future__ import annotations

import pytest
import torch

from eckart import METHODS, Metric, Need
from eckart.linalg import project
from support.layers import layer, metric_of
from support.low_rank import SHAPES


@SHAPES
@pytest.mark.parametrize("rank", [1, 4, 9])
def test_lord_projects_on_the_principal_outputs(shape: tuple[int, int], rank: int) -> None:
    weight, x, statistics = layer(*shape)
    outputs = (x - x.mean(0)) @ weight.T
    basis = torch.linalg.eigh(outputs.T @ outputs)[1].flip(1)[:, :rank]
    fitted = METHODS.find("lord").entry(weight, statistics).build(rank)
    dense = fitted.structure.to_dense().detach()
    torch.testing.assert_close(dense, basis @ basis.T @ weight, rtol=1e-8, atol=1e-9)
    assert fitted.bias is not None
    torch.testing.assert_close(fitted.bias, (weight - dense) @ x.mean(0), rtol=1e-8, atol=1e-9)


@SHAPES
@pytest.mark.parametrize("rank", [1, 4, 9])
def test_lord_is_never_worse_than_whitening(shape: tuple[int, int], rank: int) -> None:
    weight, x, statistics = layer(*shape)
    fitted = METHODS.find("lord").entry(weight, statistics).build(rank)
    centred = (x @ weight.T - x @ fitted.structure.to_dense().detach().T - fitted.bias).square().sum(1).mean()
    moment = statistics.get(Need.INPUT_SECOND_MOMENT)
    errors = project(weight, Metric(right=moment)).errors
    assert centred <= errors[rank] * (1 + 1e-9)
    torch.testing.assert_close(centred, project(weight, metric_of("lord", statistics)).errors[rank], rtol=1e-9, atol=0)
    # SVD-LLM (Wang et al. 2024): C = S S^T by Cholesky, W ~ (W S)_r S^-1.
    s = torch.linalg.cholesky(moment)
    u, sigma, vh = torch.linalg.svd(weight @ s, full_matrices=False)
    whitened = torch.linalg.solve_triangular(s, u[:, :rank] * sigma[:rank] @ vh[:rank], upper=False, left=False)
    measured = (x @ (weight - whitened).T).square().sum(1).mean()
    torch.testing.assert_close(measured, errors[rank], rtol=1e-9, atol=0)
    torch.testing.assert_close(sigma[rank:].square().sum(), errors[rank], rtol=1e-9, atol=1e-13)
