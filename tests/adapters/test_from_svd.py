"""What only the adapters from singular values and from data promise: their formulas, compared with another way."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

import eckart
from eckart.adapters._svd_form import leaves, orthonormality, triplets
from eckart.adapters.adalora import Budget
from eckart.adapters.contract import ADAPTERS, Layer, Start
from eckart.adapters.eva import shared_out
from eckart.jobs.adapt.adapted import dense_of
from eckart.statistics import Statistics
from eckart.structures import Chain, Dense, Quantized
from support import hard
from support.adapting import adapted, close, ids, logits, train
from support.tiny import tiny_llama

RANK = 3


def layer(weight: Tensor, *, rank: int = RANK, scale: float = 1.0, moment: Tensor | None = None) -> Layer:
    out, columns = weight.shape
    x, g = hard.normal(40, columns, seed=1) + torch.linspace(-2, 2, columns), hard.normal(40, out, seed=2)
    known = Statistics(
        tokens=40,
        input_second_moment=x.T @ x / 40 if moment is None else moment,
        input_mean=x.mean(0),
        fisher_rows=g.square().mean(0) * torch.logspace(0, -3, out, dtype=torch.float64),
        fisher_columns=x.square().mean(0),
    )
    return Layer(weight, known, rank, scale, torch.Generator().manual_seed(0), (g.T @ x / 40).float())


def begin(method: str, made: Layer) -> tuple[Start, Tensor]:
    start = ADAPTERS[method].entry(made)
    return start, made.scale * start.path.to_dense().detach().double()


def factors(start: Start) -> list[Tensor]:
    assert isinstance(start.path, Chain)
    return [part.to_dense().detach().double() for part in start.path.operands() if isinstance(part, Dense)]


@pytest.mark.parametrize("shape", [(12, 20), (20, 12)])
@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_corda_is_the_decomposition_of_w_c_undone(shape: tuple[int, int], scale: float) -> None:
    w = hard.normal(*shape)
    made = layer(w, scale=scale)
    c = made.statistics.input_second_moment
    assert c is not None
    c = c + 0.01 * c.diagonal().mean() * torch.eye(len(c))
    u, s, vh = torch.linalg.svd(w @ c, full_matrices=False)
    for method, chosen in (("corda", slice(0, RANK)), ("corda-keep", slice(min(shape) - RANK, min(shape)))):
        start, product = begin(method, made)
        expected = (u[:, chosen] * s[chosen]) @ vh[chosen] @ torch.linalg.inv(c)
        torch.testing.assert_close(product, expected, rtol=1e-9, atol=1e-9)
        left, right = factors(start)
        # The factors share S evenly: B has the root of S, A the same root times V^T C^-1.
        root = (s[chosen] / c.diagonal().mean() / scale).sqrt()
        torch.testing.assert_close(left.norm(dim=0), root)
        assert start.split
        assert right.shape == (RANK, shape[1])
    _, product = begin("corda", layer(w, moment=torch.eye(shape[1], dtype=torch.float64)))
    torch.testing.assert_close(product, begin("pissa", layer(w))[1])


@pytest.mark.parametrize("name", hard.second_moments(14))
def test_corda_of_singular_moments(name: str) -> None:
    w = hard.normal(10, 14)
    for method in ("corda", "corda-keep"):
        start, product = begin(method, layer(w, moment=hard.second_moments(14)[name]))
        assert all(torch.isfinite(factor).all() and factor.abs().max() < 1e6 for factor in factors(start))
        # A projection of W, whatever C is.
        left = factors(start)[0]
        torch.testing.assert_close(left @ torch.linalg.lstsq(left, w).solution, product, rtol=1e-6, atol=1e-6)


def test_eva_starts_from_principal_components_of_centred_inputs() -> None:
    made = layer(hard.normal(10, 14))
    start, product = begin("eva", made)
    mean, moment = made.statistics.input_mean, made.statistics.input_second_moment
    assert mean is not None
    assert moment is not None
    vectors = torch.linalg.eigh(moment - torch.outer(mean, mean)).eigenvectors.flip(1)[:, :RANK]
    a = factors(start)[1]
    torch.testing.assert_close((a @ vectors).abs(), torch.eye(RANK, dtype=torch.float64))
    assert float(product.abs().max()) == 0
    assert not start.split


def test_eva_shares_out_ranks_by_explained_variance() -> None:
    def known(*variances: float) -> Statistics:
        moment = torch.tensor(variances, dtype=torch.float64).diag()
        return Statistics(tokens=9, input_second_moment=moment, input_mean=torch.zeros(4, dtype=torch.float64))

    shapes = {"steep": (4, 4), "flat": (4, 4), "middle": (4, 4)}
    data = {"steep": known(100, 1, 1e-3, 0), "flat": known(5, 5, 5, 5), "middle": known(6, 3, 1, 0)}
    # Shares: .99 .01 | .25 .25 .25 .25 | .6 .3 .1: the largest 6 with at most 4 each.
    assert shared_out(shapes, data, 2) == {"steep": 1, "flat": 3, "middle": 2}
    assert shared_out(shapes, data, 1) == {"steep": 1, "flat": 0, "middle": 2}
    model = tiny_llama()
    adapter = adapted(model, "eva", alpha=8.0)
    asked = 4
    assert sum(adapter.ranks.values()) == asked * len(eckart.adapt(tiny_llama(), "lora", rank=asked).places)
    assert max(adapter.ranks.values()) <= 2 * asked
    assert set(adapter.ranks) == set(adapter.places)
    assert {place.path().scale for place in adapter.places.values()} == {2.0}


def test_ranks_that_go_to_larger_matrices_keep_to_the_parameters() -> None:
    asked = 4000
    adapter = eckart.adapt(tiny_llama(), "eva", parameters=asked, calibration=ids(8))
    assert asked // 2 < sum(p.numel() for p in adapter.trainable_parameters()) <= asked


def test_the_first_change_of_lora_ga_is_the_gradients_best_of_twice_the_rank() -> None:
    made = layer(hard.normal(12, 20), scale=0.5)
    gradient = made.gradient
    assert gradient is not None
    start, _ = begin("lora-ga", made)
    assert start.split
    left, right = factors(start)
    size = 12**0.25 / 4
    torch.testing.assert_close(left.T @ left, size**2 * torch.eye(RANK, dtype=torch.float64), rtol=1e-5, atol=1e-6)
    # d(BA) = dB A + B dA with dB = G A^T and dA = B^T G.
    change = (gradient.double() @ right.T @ right + left @ left.T @ gradient.double()) / size**2
    u, s, vh = torch.linalg.svd(gradient.double())
    torch.testing.assert_close(change, (u[:, : 2 * RANK] * s[: 2 * RANK]) @ vh[: 2 * RANK], rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="loss does not depend"):
        ADAPTERS["lora-ga"].entry(Layer(made.weight, made.statistics, RANK, 1.0, made.generator))


def test_what_quantization_loses_is_what_the_product_starts_at() -> None:
    w = hard.normal(40, 64).float() * torch.logspace(0, -2, 40)[:, None]
    made = layer(w, rank=4)
    rows, columns = made.statistics.fisher_rows, made.statistics.fisher_columns
    assert rows is not None
    assert columns is not None
    errors = {}
    for method in ("loftq", "lq-lora"):
        for scale in (1.0, 0.5):
            start, product = begin(method, layer(w, rank=4, scale=scale))
            assert isinstance(start.frozen, Quantized)
            assert (start.frozen.bits, start.frozen.group) == (4, 64)
            rest = w.double() - start.frozen.to_dense().detach().double() - product
            errors[method] = float(rest.norm()), float((rows[:, None] * rest.square() * columns).sum())
    plain = (
        w.double()
        - Quantized.quantize(w, 4, 64, codebook=eckart.structures.packing.normal_float(4)).to_dense().detach().double()
    )
    tail = torch.linalg.svdvals(plain)[4:].norm()
    assert errors["loftq"][0] <= float(tail) * (1 + 1e-6)
    assert errors["loftq"][0] < errors["lq-lora"][0]
    assert errors["lq-lora"][1] < errors["loftq"][1]


def test_the_best_turn_of_loftq_is_kept() -> None:
    codebook = eckart.structures.packing.normal_float(4)
    last_is_best = set()
    for seed in range(4):
        w = hard.normal(8, 6, seed=seed)
        product, found = torch.zeros_like(w), []
        for _ in range(5):
            rest = w - Quantized.quantize(w - product, 4, 64, codebook=codebook).to_dense().detach()
            u, s, vh = torch.linalg.svd(rest, full_matrices=False)
            product = (u[:, :2] * s[:2]) @ vh[:2]
            found.append(float((rest - product).norm()))
        start, product = begin("loftq", layer(w, rank=2))
        assert start.frozen is not None
        assert float((w - start.frozen.to_dense().detach() - product).norm()) == pytest.approx(min(found), rel=1e-6)
        last_is_best.add(min(found) == found[-1])
    assert False in last_is_best


@pytest.mark.parametrize("shape", [(12, 20), (20, 12)])
def test_olora_is_the_head_of_the_whole_qr(shape: tuple[int, int]) -> None:
    w = hard.normal(*shape)
    left, right = factors(begin("olora", layer(w))[0])
    q, r = torch.linalg.qr(w)
    torch.testing.assert_close(left, q[:, :RANK])
    torch.testing.assert_close(right, r[:RANK])


@pytest.mark.parametrize("shape", [(12, 20), (20, 12), (12, 12)])
@pytest.mark.parametrize("method", ["svfit", "sorsa", "osf"])
def test_triplets_are_singular(method: str, shape: tuple[int, int]) -> None:
    w = hard.normal(*shape)
    start, product = begin(method, layer(w))
    u, s, vh = torch.linalg.svd(w, full_matrices=False)
    part = slice(-RANK, None) if method == "osf" else slice(0, RANK)
    torch.testing.assert_close(product, (u[:, part] * s[part]) @ vh[part])
    trained = [p.shape for p in start.path.parameters() if p.requires_grad]
    assert len(trained) == (1 if method == "svfit" else 3)


def test_the_regulariser_is_the_distance_from_orthonormal() -> None:
    left, right = hard.normal(6, 2), hard.normal(2, 5)
    paths = {"a": triplets(left, torch.ones(2).double(), right)}
    expected = ((left.T @ left - torch.eye(2)).norm() + (right @ right.T - torch.eye(2)).norm()) / 2
    torch.testing.assert_close(orthonormality(paths).detach(), expected)
    model = tiny_llama()
    adapter = adapted(model, "sorsa")
    # Singular vectors are orthonormal, and the gradient of the norm at its minimum is finite.
    assert float(adapter.regulariser()) < 1e-8
    adapter.regulariser().backward()  # type: ignore[no-untyped-call]
    assert all(torch.isfinite(p.grad).all() for p in adapter.trainable_parameters() if p.grad is not None)


def test_salt_is_the_identity_at_the_start_and_keeps_its_parts_apart() -> None:
    model = tiny_llama()
    before = logits(model, ids())
    adapter = adapted(model, "salt")
    assert torch.equal(logits(model, ids()), before)
    assert set(adapter.errors.values()) == {0.0}
    train(model, adapter, steps=8)
    for place in adapter.places.values():
        u, _, vh = torch.linalg.svd(dense_of(place.base).double(), full_matrices=False)
        core = u.T @ place.path().to_dense().detach().double() @ vh.T
        top, size = core[:4, :4], core.abs().max()
        assert float(top.diagonal().abs().max()) > 1e-3
        assert float((top - top.diagonal().diag()).abs().max()) < 1e-5 * size
        assert float(torch.maximum(core[:4, 4:].abs().max(), core[4:, :4].abs().max())) < 1e-5 * size
        assert float(core[4:, 4:].abs().max()) > 1e-3


@pytest.mark.parametrize("name", ["general", "tall", "zero", "rank-deficient", "repeated", "1xn", "nx1", "kahan"])
def test_loldu_is_a_decomposition_of_the_matrix(name: str) -> None:
    w = hard.weights()[name]
    full = min(w.shape)
    _, product = begin("loldu", layer(w, rank=full))
    torch.testing.assert_close(product, w, rtol=1e-9, atol=1e-9)
    start, _ = begin("loldu", layer(w, rank=1))
    assert sum(p.numel() for p in start.path.parameters() if p.requires_grad) == 2


def test_steps_of_osf_have_no_part_in_the_frozen_space() -> None:
    model = tiny_llama()
    adapter = adapted(model, "osf", seed=1)
    starts = {name: [leaf.detach().double() for leaf in leaves(path)] for name, path in adapter.paths.items()}
    bases = {name: dense_of(place.base).double() for name, place in adapter.places.items()}
    train(model, adapter, steps=6)
    for name, path in adapter.paths.items():
        u, _, vh = torch.linalg.svd(bases[name], full_matrices=False)
        kept = min(bases[name].shape) - 4
        left, _, right = (
            leaf.detach().double() - start for leaf, start in zip(leaves(path), starts[name], strict=True)
        )
        assert min(left.norm(), right.norm()) > 1e-2
        assert float((u[:, :kept].T @ left).norm()) < 1e-5 * float(left.norm())
        assert float((right @ vh[:kept].T).norm()) < 1e-5 * float(right.norm())


def test_adalora_ends_with_the_triplets_asked_for() -> None:
    model = tiny_llama()
    adapter = adapted(model, "adalora")
    parts = [leaves(path) for path in adapter.paths.values()]
    assert all(len(values) == 6 for _, values, _ in parts)
    train(model, adapter, steps=20)
    alive = sum(int((values != 0).sum()) for _, values, _ in parts)
    assert alive == 4 * len(parts)
    assert len({int((values != 0).sum()) for _, values, _ in parts}) > 1
    schedule = Budget(adapter.paths, 100, lambda name: torch.zeros(0))
    counts = [schedule.budget(step) for step in range(1, 101)]
    assert counts[:10] == [6 * len(parts)] * 10
    assert counts[69:] == [4 * len(parts)] * 31
    assert all(a >= b for a, b in pairwise(counts))
    assert counts[39] == int(2 * len(parts) * 0.5**3 + 4 * len(parts))
    for part in parts:
        for leaf in part:
            leaf.grad = None
    with pytest.raises(ValueError, match="before gradients are set to zero"):
        schedule.step(1)


def test_what_pissa_freezes_is_nearly_as_small_as_can_be() -> None:
    w = hard.normal(300, 200).float()
    _, product = begin("pissa", layer(w, rank=8))
    rest = torch.linalg.svdvals(w.double())[8:].norm()
    assert float((w.double() - product).norm()) < 1.001 * float(rest)
    assert close(product, begin("pissa", layer(w, rank=8))[1], 1e-12)


@pytest.mark.parametrize("scale", [1e-300, 1e300])
def test_loftq_where_squares_overflow_or_vanish(scale: float) -> None:
    weight = hard.normal(24, 20, seed=3)
    errors = []
    for factor in (1.0, scale):
        start = ADAPTERS["loftq"].entry(layer(weight * factor))
        assert start is not None
        assert start.frozen is not None
        found = (start.frozen.to_dense() + start.path.to_dense()).detach() / factor
        errors.append(float(torch.linalg.matrix_norm(found - weight)))
    assert errors[1] < 1.1 * errors[0]
