"""Adapters that are no product of two thin factors: their formulas written out, and what their schedules do."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import eckart
from eckart.adapters import flylora, soka
from eckart.adapters.contract import ADAPTERS
from eckart.structures import Chain, Diagonal, Gated, Householder, Kronecker
from support.one_layer import IN, OUT, RANK, normal, one_layer, only, start, steps, stirred
from support.tiny import tiny_llama

OTHERS = ["loca", "soka", "flora", "householder", "flylora", "snell", "snella", "sara"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("method", OTHERS)
def test_exactly_the_matrix_at_the_start(method: str, dtype: torch.dtype) -> None:
    net = nn.Sequential(nn.Linear(IN, OUT).to(dtype))
    weight, x = net[0].weight.detach().clone(), normal(5, IN, seed=4).to(dtype)
    before = net(x).detach()
    adapter = eckart.adapt(net, method, rank=RANK)
    path = adapter.paths["0"]
    if method == "soka":
        total = adapter.places["0"].weight.double() + path.to_dense().double()
        assert (total - weight.double()).norm() <= torch.finfo(dtype).eps * weight.double().norm()
    elif method == "sara":
        assert torch.equal(adapter.places["0"].weight + path.to_dense(), weight.float())
    else:
        assert torch.equal(net(x), before)
        assert torch.equal(path(x.float()), torch.zeros(5, OUT))


@pytest.mark.parametrize("method", OTHERS)
def test_the_budget_is_near_that_of_a_low_rank_adapter(method: str) -> None:
    for out, columns in ((1536, 576), (576, 576), (4096, 11008)):
        for rank in (4, 16):
            theirs = ADAPTERS["lora"].parameters(out, columns, rank)
            assert 0.7 * theirs <= ADAPTERS[method].parameters(out, columns, rank) <= 1.15 * theirs


def test_soka_is_the_best_sum_of_kronecker_products() -> None:
    weight = normal(OUT, IN, seed=1).double()
    c, d = soka.sides(OUT, IN)
    assert (c, d) == (4, 6)
    found = start("soka", weight, 3)
    assert isinstance(found.path, Kronecker)
    assert found.rank == len(found.path.left)
    # The rearrangement by index: row (i, j) is block (i, j).
    rows = [weight[i * c : (i + 1) * c, j * d : (j + 1) * d].flatten() for i in range(OUT // c) for j in range(IN // d)]
    s = torch.linalg.svdvals(torch.stack(rows))
    error = torch.linalg.matrix_norm(weight - found.path.to_dense().detach())
    assert float(error) == pytest.approx(float(s[found.rank :].norm()), rel=1e-9)


def test_soka_takes_no_more_terms_than_it_needs() -> None:
    c, d = soka.sides(OUT, IN)
    two = sum(torch.kron(normal(OUT // c, IN // d, seed=i), normal(c, d, seed=i + 9)) for i in range(2))
    assert isinstance(two, Tensor)
    found = start("soka", two, 6)
    assert found.rank == 2
    torch.testing.assert_close(found.path.to_dense(), two, atol=1e-4, rtol=1e-4)
    _, adapter = one_layer("soka", rank=6)
    assert adapter.ranks["0"] == 6
    flat = torch.ones(6, dtype=torch.float64)
    assert soka.enough(flat, 60.0) == 6
    assert soka.enough(flat, 6.0) == 6
    assert soka.enough(torch.tensor([9.0, 8.0, 1.0, 0.5, 0.2, 0.1]).double(), 147.0) == 2


def test_flora_is_a_tucker_product() -> None:
    path = start("flora", normal(OUT, IN)).path
    stirred(path)
    u, core, v = (p.detach() for p in path.parameters())
    assert (u.shape, core.shape, v.shape) == ((OUT, RANK), (RANK, RANK), (RANK, IN))
    torch.testing.assert_close(path.to_dense(), torch.einsum("ia,ab,bj->ij", u, core, v))


def test_reflections_are_orthogonal_and_their_product() -> None:
    vectors = normal(4, 9).double()
    vectors[2] = 0
    dense = Householder(vectors).to_dense().detach()
    expected = torch.eye(9, dtype=torch.float64)
    for v in vectors:
        if v.any():
            expected = expected @ (torch.eye(9, dtype=torch.float64) - 2 * torch.outer(v, v) / (v @ v))
    torch.testing.assert_close(dense, expected)
    torch.testing.assert_close(dense @ dense.T, torch.eye(9, dtype=torch.float64))
    torch.testing.assert_close(Householder(1e3 * vectors).to_dense(), dense)
    wide = Householder(normal(12, 9) * torch.tensor([0.0, 1e-30, 1e-18, 1e12]).repeat(3)[:, None])
    wide(normal(2, 9)).sum().backward()
    gradient = wide.vectors.grad
    assert gradient is not None
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("shape", [(6, 9), (9, 6), (7, 7)])
def test_householder_has_the_singular_values_that_are_on_its_diagonal(shape: tuple[int, int]) -> None:
    path = start("householder", normal(*shape)).path
    assert isinstance(path, Chain)
    stirred(path)
    diagonal = only(path, Diagonal).weight.detach()
    first, last = path.operands()[0].to_dense(), path.operands()[-1].to_dense()
    middle = torch.zeros(shape)
    middle.diagonal().copy_(diagonal)  # type: ignore[arg-type]
    torch.testing.assert_close(path.to_dense(), first @ middle @ last, atol=1e-5, rtol=1e-5)
    found = torch.linalg.svdvals(path.to_dense().detach())
    torch.testing.assert_close(found, diagonal.abs().sort(descending=True).values, atol=1e-5, rtol=1e-5)  # type: ignore[operator]


def test_flylora_lets_a_quarter_act() -> None:
    weight = normal(32, 64)
    path = start("flylora", weight, 4).path
    assert isinstance(path, Gated)
    n = flylora.width(32, 64, 4)
    assert (n, path.active) == (12, 3)
    assert not path.linear
    a = path.right.to_dense().detach()
    assert (a != 0).sum(1).tolist() == [16] * n
    stirred(path)
    path.bias.copy_(normal(n, seed=3) * 0.1)
    x = normal(5, 64, seed=4)
    b, y = path.left.to_dense().detach(), x @ a.T
    for i in range(5):
        score = (y[i] + path.bias).abs()
        acting = score >= score.sort().values[-3]
        assert acting.sum() == 3
        torch.testing.assert_close(path(x)[i].detach(), b[:, acting] @ y[i][acting])
    with pytest.raises(ValueError, match="depends on its input"):
        path.to_dense()
    with torch.no_grad():
        path.tally = None
        path(x)
        assert path.tally is None


def test_flylora_balances_and_refuses_to_be_merged() -> None:
    net, adapter = one_layer("flylora", rank=4)
    path = adapter.paths["0"]
    assert isinstance(path, Gated)
    seen: list[Tensor] = []
    steps(net, adapter, 1, each=lambda step: seen.append(path.tally))  # type: ignore[arg-type]
    counts = seen[0].float()
    assert counts.sum() == 64 * path.active
    torch.testing.assert_close(path.bias, flylora.RATE * (counts.mean() - counts).sign())
    assert path.tally is None
    with pytest.raises(ValueError, match="depends on its input"):
        adapter.merge()
    scaled = eckart.adapt(tiny_llama(), "flylora", rank=2, alpha=4)
    assert not any(each.linear for each in scaled.paths.values())
    with pytest.raises(ValueError, match="depends on its input"):
        scaled.merge()
