"""Adapters that train few entries of a matrix or of its spectrum, and what their schedules do."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.fft import idctn
from torch import Tensor

import eckart
from eckart.adapters import loca, sara, snell, snella
from eckart.jobs.adapt.train import Training, train
from eckart.structures import Kernelized, Scattered, Sparse
from eckart.structures.scattered import slopes
from support.adapting import examples, ids, logits
from support.one_layer import IN, OUT, RANK, normal, one_layer, only, start, steps, stirred
from support.tiny import tiny_llama

LAST = torch.tensor([OUT - 1, IN - 1])


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
    found = slopes(seen[0], spectrum.values.detach(), spectrum.places.long())
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


def test_loca_goes_on_in_the_middle_of_a_turn_of_places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(loca, "TURN", 3)
    assert_goes_on("loca", tmp_path, steps=16, every=5)


@pytest.mark.parametrize("method", ["sara", "snella", "flylora"])
def test_goes_on_at_every_stage(method: str, tmp_path: Path) -> None:
    for every in (3, 6):
        assert_goes_on(method, tmp_path / str(every), steps=8, every=every)


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
    # The slopes are those that autograd finds; what does not act has none.
    leaves = [leaf.detach().double().requires_grad_() for leaf in (path.left, path.right)]
    (a, a2), (b, b2) = leaves
    kernel = 0.1 * (torch.cdist(a, b) - torch.cdist(a2, b2))
    toward = normal(OUT, IN, seed=2)
    wanted = torch.autograd.grad((kernel * (dense != 0) * toward).sum(), leaves)
    found = torch.autograd.grad((path.to_dense() * toward).sum(), [path.left, path.right])
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one.double(), other, atol=1e-5, rtol=1e-4)
    # In bfloat16 arithmetic the distances are still those of the factors.
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(path.to_dense(), dense.float())
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
        found = adapter.regulariser().detach()
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
