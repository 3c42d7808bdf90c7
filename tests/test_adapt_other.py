"""Adapters that are no product of two thin factors: their formulas written out, and what their schedules do."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.fft import idctn
from torch import Tensor, nn

import eckart
from eckart.adapt import Adapter
from eckart.methods.adapt import flylora, loca, sara, snell, snella, soka
from eckart.methods.adapters import ADAPTERS, Layer, Start
from eckart.statistics import Statistics
from eckart.structures import Chain, Diagonal, Gated, Householder, Kernelized, Kronecker, Scattered, Sparse
from eckart.train import Training, train
from test_adapt import ids, logits
from test_train import examples
from tiny import tiny_llama

OUT, IN, RANK = 24, 36, 2
LAST = torch.tensor([OUT - 1, IN - 1])
OTHERS = ["loca", "soka", "flora", "householder", "flylora", "snell", "snella", "sara"]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def start(method: str, weight: Tensor, rank: int = RANK, scale: float = 1.0) -> Start:
    layer = Layer(weight, Statistics(), rank, scale, torch.Generator().manual_seed(0))
    return ADAPTERS[method].start(layer)


def only(path: nn.Module, kind: type) -> nn.Module:
    (found,) = [module for module in path.modules() if isinstance(module, kind)]
    return found


def stirred(path: nn.Module, seed: int = 5) -> None:
    """Puts random numbers into whatever trains."""
    with torch.no_grad():
        for i, p in enumerate(path.parameters()):
            p.add_(normal(*p.shape, seed=seed + i)) if p.requires_grad else None


def one_layer(method: str, rank: int = RANK, shape: tuple[int, int] = (OUT, IN)) -> tuple[nn.Linear, Adapter]:
    net = nn.Sequential(nn.Linear(shape[1], shape[0], bias=False))
    with torch.no_grad():
        net[0].weight.copy_(normal(*shape, seed=1))
    return net, eckart.adapt(net, method, rank=rank)


def steps(
    net: nn.Module, adapter: Adapter, count: int, rate: float = 1e-2, each: Callable[[int], None] | None = None
) -> None:
    """Fits random outputs; `each` is called after the backward pass of each step."""
    x, y = normal(64, IN, seed=2), normal(64, OUT, seed=3)
    optimizer = torch.optim.AdamW(adapter.trainable_parameters(), lr=rate, weight_decay=0.0)
    adapter.plan(count)
    for step in range(1, count + 1):
        optimizer.zero_grad()
        ((net(x) - y).square().mean() + adapter.regulariser()).backward()
        if each is not None:
            each(step)
        optimizer.step()
        adapter.step()


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


def test_loca_is_the_inverse_cosine_transform_of_a_sparse_spectrum() -> None:
    path = start("loca", normal(OUT, IN)).path
    spectrum = only(path, Scattered)
    assert isinstance(spectrum, Scattered)
    assert len(set(zip(*spectrum.places.tolist(), strict=True))) == RANK * (OUT + IN)
    stirred(path)
    dense = np.zeros((OUT, IN))
    dense[tuple(spectrum.places.numpy())] = spectrum.values.detach().numpy()
    expected = torch.from_numpy(idctn(dense, norm="ortho"))
    torch.testing.assert_close(path.to_dense().double(), expected, atol=1e-5, rtol=1e-5)


def test_loca_slopes_are_central_differences_of_the_loss() -> None:
    # A loss linear in the matrix, so that its differences are those of its gradient.
    path = start("loca", normal(OUT, IN)).path
    spectrum = only(path, Scattered)
    assert isinstance(spectrum, Scattered)
    stirred(path)
    x, g = normal(7, IN, seed=8), normal(7, OUT, seed=9)
    seen: list[Tensor] = []
    spectrum.watch = seen.append
    (path(x) * g).sum().backward()
    spectrum.watch = None
    found = loca.slopes(seen[0], spectrum.values.detach(), spectrum.places.long())
    inside = (spectrum.places > 0).all(0) & (spectrum.places.T < LAST).all(1)
    for i in inside.nonzero()[:4, 0].tolist():
        for axis in (0, 1):
            losses = []
            for move in (1, -1):
                moved = copy.deepcopy(path)
                other = only(moved, Scattered)
                assert isinstance(other, Scattered)
                other.places[axis, i] += move
                losses.append((moved(x) * g).sum().item())
            assert float(found[axis, i]) == pytest.approx((losses[0] - losses[1]) / 2, abs=2e-3)


def test_loca_takes_turns() -> None:
    net, adapter = one_layer("loca")
    spectrum = only(adapter.paths["0"], Scattered)
    assert isinstance(spectrum, Scattered)
    history: list[tuple[Tensor, Tensor]] = []

    def note(step: int) -> None:
        history.append((spectrum.values.detach().clone(), spectrum.places.clone()))

    steps(net, adapter, 50, each=note)
    for before, after, step in zip(history, history[1:], range(1, 50), strict=False):
        places_move = 11 <= step <= 20
        assert torch.equal(before[0], after[0]) == places_move
        if not places_move:
            assert torch.equal(before[1], after[1])
    moved = (history[20][1] - history[10][1]).long()
    assert 0.2 < (moved != 0).float().mean() <= 1
    assert moved.abs().max() > 1
    spectrum.check_values()


def test_loca_goes_on_in_the_middle_of_a_turn_of_places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(loca, "TURN", 3)
    assert_goes_on("loca", tmp_path, steps=16, every=5)


@pytest.mark.parametrize("method", ["sara", "snella", "flylora"])
def test_goes_on_at_every_stage(method: str, tmp_path: Path) -> None:
    for every in (3, 6):
        assert_goes_on(method, tmp_path / str(every), steps=8, every=every)


def assert_goes_on(method: str, directory: Path, steps: int, every: int) -> None:
    class Stop(Exception):
        pass

    def stop(phase: str, done: int, total: int) -> None:
        if phase == "train" and done == every + 1:
            raise Stop

    ends, training = [], Training(steps=steps, every=every, rate=1e-2)
    directory.mkdir(exist_ok=True)
    for file in (directory / "whole", directory / "stopped"):
        if file.name == "stopped":
            adapter = eckart.adapt(tiny_llama(), method, rank=2)
            with pytest.raises(Stop):
                train(adapter, examples(), [], training, checkpoint=file, progress=stop)
        model = tiny_llama()
        adapter = eckart.adapt(model, method, rank=2)
        train(adapter, examples(), [], training, checkpoint=file)
        ends.append({k: t for path in adapter.paths.values() for k, t in path.state_dict().items()})
    assert all(torch.equal(t, ends[1][k]) for k, t in ends[0].items())


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


@pytest.mark.parametrize("rank", [4, 5])
def test_snell_keeps_the_largest_tenth_of_a_kernel(rank: int) -> None:
    path = start("snell", normal(OUT, IN), rank).path
    assert isinstance(path, Kernelized)
    stirred(path)
    (a, a2), (b, b2) = path.left.detach().double(), path.right.detach().double()
    assert a.shape == (OUT, (rank + 1) // 2)
    kernel = 0.1 * (torch.cdist(a, b) - torch.cdist(a2, b2))
    kept = round(0.1 * OUT * IN)
    limit = kernel.abs().flatten().sort().values[-kept]
    dense = path.to_dense().detach().double()
    assert int((dense != 0).sum()) == kept
    torch.testing.assert_close(dense, kernel * (kernel.abs() >= limit), atol=1e-6, rtol=1e-5)
    # Full rank from thin factors, which is what the kernel is for.
    path.kept.fill_(OUT * IN)
    assert torch.linalg.matrix_rank(path.to_dense().detach().double()) > 2 * rank


def test_snella_lets_matrices_compete() -> None:
    assert snella.allocated(torch.tensor([1.0, 3.0]), torch.tensor([100, 100]), 40) == [10, 30]
    assert snella.allocated(torch.tensor([1.0, 9.0]), torch.tensor([100, 50]), 100) == [50, 50]
    assert snella.allocated(torch.tensor([1.0, 1.0, 8.0]), torch.tensor([100, 100, 50]), 70) == [10, 10, 50]
    assert snella.allocated(torch.zeros(2), torch.tensor([30, 10]), 20) == [15, 5]
    assert snella.allocated(torch.tensor([0.0, 1.0]), torch.tensor([30, 10]), 20) == [1, 10]
    model = tiny_llama()
    adapter = eckart.adapt(model, "snella", rank=4)
    sizes = {name: path.shape[0] * path.shape[1] for name, path in adapter.paths.items()}
    assert {name: int(path.kept) for name, path in adapter.paths.items()} == sizes  # type: ignore[arg-type]
    totals: list[int] = []

    def note(phase: str, done: int, total: int) -> None:
        totals.append(sum(int(path.kept) for path in adapter.paths.values()))  # type: ignore[arg-type]

    train(adapter, examples(), [], Training(steps=20, rate=1e-2), progress=note)
    whole = sum(sizes.values())
    assert totals[:3] == [whole] * 3
    assert totals[3:15] == sorted(totals[3:15], reverse=True)
    assert totals[14] == totals[-1] == pytest.approx(snell.DENSITY * whole, rel=0.01)
    shares = [int(path.kept) / sizes[name] for name, path in adapter.paths.items()]  # type: ignore[arg-type]
    assert max(shares) > 2 * min(shares)
    for path in adapter.paths.values():
        path.check_values()
        assert int((path.to_dense() != 0).sum()) == int(path.kept)  # type: ignore[arg-type]


def test_sara_trains_the_smallest_entries() -> None:
    weight = normal(OUT, IN, seed=1)
    path = start("sara", weight).path
    assert isinstance(path, Sparse)
    count = RANK * (OUT + IN)
    limit = weight.abs().flatten().sort().values[count - 1]
    small = weight.abs() <= limit
    assert torch.equal(path.to_dense().detach(), weight * small)
    assert len(path.values) == count
    assert len(sara.smallest(torch.zeros(3, 4), 5, torch.float32).values) == 5
    path.check_values()


def test_sara_freezes_what_has_grown_half_way() -> None:
    net, adapter = one_layer("sara")
    path = adapter.paths["0"]
    assert isinstance(path, Sparse)
    limit = float(path.values.detach().abs().max())
    history: list[Tensor] = []
    steps(net, adapter, 20, each=lambda step: history.append(path.values.detach().clone()))
    middle, end = history[10], path.values.detach()
    grown = middle.abs() > limit
    assert 0 < int(grown.sum()) < len(grown)
    assert torch.equal(middle[grown], end[grown])
    assert not (middle == end)[~grown].any()


def test_sara_has_the_nuclear_norm_of_one_matrix_as_its_penalty() -> None:
    adapter = eckart.adapt(tiny_llama(), "sara", rank=2)
    norms = [torch.linalg.svdvals(path.to_dense().detach()).sum() for path in adapter.paths.values()]
    drawn = set()
    for step in range(6):
        found = adapter.regulariser()
        drawn.add(min(range(len(norms)), key=lambda i: float((sara.PENALTY * norms[i] - found).abs())))
        with torch.no_grad():
            first = next(iter(adapter.paths.values()))
            next(first.parameters()).add_(1e-6 * (step + 1))
    assert len(drawn) > 1
    term = adapter.regulariser()
    assert float(term.detach()) == pytest.approx(float(adapter.regulariser().detach()))
    term.backward()
    assert sum(p.grad is not None for p in adapter.trainable_parameters()) == 1


def test_a_moved_adapter_is_saved_and_loaded(tmp_path: Path) -> None:
    model = tiny_llama()
    adapter = eckart.adapt(model, "loca", rank=2, alpha=4)
    train(adapter, examples(), [], Training(steps=44, rate=1e-2))
    eckart.save_adapter(adapter, tmp_path / "a")
    other = tiny_llama()
    eckart.load_adapter(other, tmp_path / "a")
    assert torch.equal(logits(other, ids()), logits(model, ids()))
