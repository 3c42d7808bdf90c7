"""Monarch, Kronecker sums, block-diagonal regression and CoSpaDi, each against a slow computation of its own."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import eckart
from eckart import METHODS, Metric, Statistics
from eckart.compressors._nested_sums import MOST
from eckart.compressors.block_diagonal import BLOCKS, spectral_order
from eckart.compressors.cospadi import signals
from eckart.linalg.batched_svd import batched_svd
from eckart.linalg.dictionary import conjugate_gradients, largest, least_squares_atoms, sparse_codes
from eckart.linalg.kronecker import largest_divisor
from eckart.structures import BlockDiagonal, Chain, Kronecker, Masked
from eckart.structures.transposed import apply_transposed
from support import hard

few = settings(deadline=None, max_examples=25)
NOTHING = Statistics()
SHAPES = [(12, 20), (20, 12), (16, 16), (13, 12), (12, 13), (13, 17), (7, 9), (3, 40), (40, 3), (36, 64)]
shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)


def moment(columns: int, tokens: int = 200, seed: int = 0) -> Tensor:
    mixing = hard.orthogonal(columns, seed) * hard.decaying(columns, 1.5)
    x = hard.normal(tokens, columns, seed=seed) @ mixing.T
    return x.T @ x / tokens


def statistics(columns: int, tokens: int = 200) -> Statistics:
    return Statistics(tokens=tokens, input_second_moment=moment(columns, tokens))


def dense(structure: eckart.StructuredMatrix) -> Tensor:
    return structure.to_dense().detach()


# --- sums known from one decomposition ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["monarch", "kronecker"])
@shapes
def test_the_curve_is_that_of_what_is_built(name: str, shape: tuple[int, int]) -> None:
    weight = hard.normal(*shape, seed=1)
    family = METHODS[name].entry(weight, NOTHING)
    every = len(family.tails) - 1
    previous = family.zero_error
    assert previous == pytest.approx(float(weight.square().sum()))
    for terms in range(1, every + 1):
        fitted = family.build(terms)
        error = float((weight - dense(fitted.structure)).square().sum())
        assert error == pytest.approx(fitted.error, rel=1e-9, abs=1e-20)
        assert error <= previous
        previous = error
        assert fitted.structure.cost() == family.cost(terms)
    torch.testing.assert_close(dense(family.build(every).structure), weight)
    assert family.errors.tolist() == [float(family.tails[t]) for t in family.sizes]


@pytest.mark.parametrize("name", ["monarch", "kronecker"])
@shapes
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_only_terms_that_pay_are_offered(name: str, shape: tuple[int, int], dtype: torch.dtype) -> None:
    weight = hard.normal(*shape).to(dtype)
    family = METHODS[name].entry(weight, NOTHING)
    limit = weight.numel() * weight.element_size()
    assert len(family.sizes) <= MOST
    assert all(cost.bytes < limit for cost in family.costs)
    every = len(family.tails) - 1
    if family.sizes:
        step = family.sizes[0]
        assert family.sizes[-1] + step > every or family.cost(family.sizes[-1] + step).bytes >= limit
    else:
        assert family.cost(1).bytes >= limit
    for terms in (0, -1, every + 1):
        with pytest.raises(ValueError, match=f"terms={terms}: a matrix of shape .* has 1 to {every} terms"):
            eckart.fit(weight, name, terms=terms)


def test_what_is_built_does_not_share_memory_with_the_family() -> None:
    weight = hard.normal(12, 16)
    for name in ("monarch", "kronecker"):
        family = METHODS[name].entry(weight, NOTHING)
        for terms in (1, 2, len(family.tails) - 1):
            before = dense(family.build(terms).structure).clone()
            with torch.no_grad():
                for p in family.build(terms).structure.parameters():
                    p.zero_()
            assert torch.equal(dense(family.build(terms).structure), before)


def test_batched_svd_of_one_block_and_of_many() -> None:
    blocks = hard.normal(2, 3, 5, 4)
    left, right, tails = batched_svd(blocks)
    torch.testing.assert_close(left @ right, blocks)
    for r in range(5):
        rest = sum(float(torch.linalg.svdvals(blocks[i, j])[r:].square().sum()) for i in range(2) for j in range(3))
        assert float(tails[r]) == pytest.approx(rest, abs=1e-12)
        error = (blocks - left[..., :r] @ right[..., :r, :]).square().sum()
        assert float(error) == pytest.approx(rest, abs=1e-12)
    torch.testing.assert_close(left.square().sum(-2), right.square().sum(-1))
    with pytest.raises(ValueError, match=r"overflows float64: entries of the weight are up to .*e\+20"):
        batched_svd(1e200 * blocks)


@few
@given(st.integers(1, 200), st.integers(1, 20))
def test_largest_divisor(n: int, most: int) -> None:
    assert largest_divisor(n, most) == max(d for d in range(1, most + 1) if n % d == 0)


# --- monarch -----------------------------------------------------------------------------------------------------


def blocks_of(n: int) -> int:
    return max(d for d in range(1, 5) if n % d == 0 and (d == 1 or n // d >= 3))


@shapes
@pytest.mark.parametrize("terms", [1, 2, 3])
def test_monarch_is_the_svd_of_every_block(shape: tuple[int, int], terms: int) -> None:
    weight = hard.normal(*shape, seed=2)
    p, q = (n // blocks_of(n) for n in shape)
    terms = min(terms, p, q)
    expected = torch.zeros_like(weight)
    a = blocks_of(shape[0])
    for i in range(a):
        for j in range(0, shape[1], q):
            u, s, vh = torch.linalg.svd(weight[i::a, j : j + q], full_matrices=False)
            for t in range(terms):
                expected[i::a, j : j + q] += s[t] * torch.outer(u[:, t], vh[t])
    structure = eckart.fit(weight, "monarch", terms=terms)
    torch.testing.assert_close(dense(structure), expected)
    a, b = map(blocks_of, shape)
    assert structure.cost().parameters == terms * (a * shape[1] + b * shape[0])


def monarch_of(left: Tensor, right: Tensor) -> Tensor:
    """The paper's M = P L P^T R: L and R (blocks, n / blocks, n / blocks), P the transposition of a table."""
    blocks, size, _ = left.shape
    n = blocks * size
    columns = []
    for x in torch.eye(n, dtype=left.dtype):
        y = torch.cat([block @ part for block, part in zip(right, x.view(blocks, size), strict=True)])
        y = y.view(size, blocks).T.flatten()
        y = torch.cat([block @ part for block, part in zip(left, y.view(blocks, size), strict=True)])
        columns.append(y.view(blocks, size).T.flatten())
    return torch.stack(columns, 1)


@pytest.mark.parametrize("n", [16, 32, 48])
def test_monarch_matrices_of_the_paper_are_recovered(n: int) -> None:
    M = monarch_of(hard.normal(4, n // 4, n // 4), hard.normal(4, n // 4, n // 4, seed=1))
    family = METHODS["monarch"].entry(M, NOTHING)
    torch.testing.assert_close(dense(family.build(n // 16).structure), M)
    assert n == 16 or family.build(n // 16 - 1).error > 1e-3 * family.zero_error


def test_the_fourier_transform_of_16_is_monarch() -> None:
    # The cosine of a sum of two angles has rank two in them, and so has the sine.
    angle = 2 * math.pi / 16 * torch.arange(16.0).double().outer(torch.arange(16.0).double())
    order = torch.arange(16).view(4, 4).T.flatten()  # decimation in time
    for part in (angle.cos(), angle.sin()):
        family = METHODS["monarch"].entry(part[:, order], NOTHING)
        torch.testing.assert_close(dense(family.build(2).structure), part[:, order])


@shapes
def test_a_matrix_of_rank_one_blocks_is_recovered_by_one_term(shape: tuple[int, int]) -> None:
    a, b = map(blocks_of, shape)
    p, q = shape[0] // a, shape[1] // b
    weight = torch.zeros(shape, dtype=torch.float64)
    for i in range(a):
        for j in range(b):
            u, v = hard.normal(p, seed=i * b + j), hard.normal(q, seed=100 + i * b + j)
            weight[i::a, j * q : (j + 1) * q] = torch.outer(u, v)
    torch.testing.assert_close(dense(eckart.fit(weight, "monarch", terms=1)), weight)


def test_monarch_is_two_batched_products() -> None:
    structure = eckart.fit(hard.normal(24, 16), "monarch", terms=2)
    assert isinstance(structure, Chain)
    outputs, last, order, first = structure.operands()
    assert outputs.shape == (24, 24)
    assert isinstance(last, BlockDiagonal)
    assert isinstance(first, BlockDiagonal)
    assert last.weight.shape == (4, 6, 8)
    assert first.weight.shape == (4, 8, 4)
    assert order.shape == (32, 32)
    low_rank = eckart.fit(hard.normal(13, 17), "monarch", terms=2)
    assert [part.shape for part in low_rank.operands()] == [(13, 2), (2, 17)]


# --- kronecker ---------------------------------------------------------------------------------------------------


def second_factor(n: int) -> int:
    return max(d for d in range(1, 17) if n % d == 0 and d * d <= n)


@shapes
def test_kronecker_terms_are_singular_vectors_of_the_rearranged_matrix(shape: tuple[int, int]) -> None:
    weight = hard.normal(*shape, seed=3)
    (out, columns), (c, d) = shape, map(second_factor, shape)
    rows = [
        weight[i * c : (i + 1) * c, j * d : (j + 1) * d].reshape(-1)
        for i in range(out // c)
        for j in range(columns // d)
    ]
    u, s, vh = torch.linalg.svd(torch.stack(rows), full_matrices=False)
    expected = torch.zeros_like(weight)
    for t in range(min(3, len(s))):
        expected += s[t] * torch.kron(u[:, t].reshape(out // c, columns // d), vh[t].reshape(c, d))
        structure = eckart.fit(weight, "kronecker", terms=t + 1)
        torch.testing.assert_close(dense(structure), expected)
        assert structure.cost().parameters == (t + 1) * (out // c * (columns // d) + c * d)


@few
@given(st.integers(1, 3), st.sampled_from([(12, 24), (24, 16), (16, 36), (64, 7), (5, 48)]))
def test_a_sum_of_kronecker_products_is_recovered(terms: int, shape: tuple[int, int]) -> None:
    (out, columns), (c, d) = shape, map(second_factor, shape)
    weight = torch.zeros(shape, dtype=torch.float64)
    for t in range(terms):
        weight += torch.kron(hard.normal(out // c, columns // d, seed=t), hard.normal(c, d, seed=10 + t))
    family = METHODS["kronecker"].entry(weight, NOTHING)
    terms = min(terms, len(family.tails) - 1)
    torch.testing.assert_close(dense(family.build(terms).structure), weight)
    assert float(family.tails[terms]) <= 1e-25 * family.zero_error


def test_no_pair_of_factors_does_better_than_one_term() -> None:
    weight = hard.normal(16, 36, seed=4)
    least = float(METHODS["kronecker"].entry(weight, NOTHING).tails[1])
    a, b = hard.normal(4, 6, seed=5).requires_grad_(), hard.normal(4, 6, seed=6).requires_grad_()
    optimizer = torch.optim.LBFGS([a, b], max_iter=300, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        error = (weight - torch.kron(a, b)).square().sum()
        error.backward()
        return error

    optimizer.step(loss)
    assert float(loss().detach()) >= least * (1 - 1e-9)


def test_kronecker_is_one_structure_of_any_number_of_terms() -> None:
    weight = hard.normal(24, 36)
    one, three = (eckart.fit(weight, "kronecker", terms=t) for t in (1, 3))
    assert isinstance(one, Kronecker)
    assert isinstance(three, Kronecker)
    assert one.left.shape == (6, 6)
    assert three.left.shape == (3, 6, 6)
    prime = METHODS["kronecker"].entry(hard.normal(13, 17), NOTHING)
    assert list(prime.sizes) == []


# --- block-diagonal ----------------------------------------------------------------------------------------------


@shapes
@pytest.mark.parametrize("blocks", BLOCKS)
def test_every_block_is_a_regression_on_its_inputs(shape: tuple[int, int], blocks: int) -> None:
    weight, known = hard.normal(*shape, seed=7), statistics(shape[1])
    family = METHODS["block-diagonal"].entry(weight, known)
    if blocks not in family.sizes:
        assert blocks > min(shape) or shape[0] * shape[1] < 8 * blocks * blocks
        return
    got = dense(family.build(blocks).structure)
    rows, columns = (order.tensor_split(blocks) for order in spectral_order(weight))
    C = known.input_second_moment
    assert C is not None
    damped = C + 1e-3 * C.trace() / len(C) * torch.eye(len(C)).double()
    root = torch.linalg.cholesky(damped)  # rows of root^T are as good as inputs
    expected = torch.zeros_like(weight)
    for i, j in zip(rows, columns, strict=True):
        solution = torch.linalg.lstsq(root.T[:, j], root.T @ weight[i].T).solution
        expected[i[:, None], j] = solution.T
    torch.testing.assert_close(got, expected, rtol=1e-8, atol=1e-9)
    sizes = [len(run) for run in (*rows, *columns)]
    assert max(sizes[:blocks]) - min(sizes[:blocks]) <= 1
    assert max(sizes[blocks:]) - min(sizes[blocks:]) <= 1


@pytest.mark.parametrize("shape", [(16, 24), (18, 16)], ids=str)
def test_a_block_diagonal_matrix_in_any_order_is_recovered(shape: tuple[int, int]) -> None:
    weight = torch.block_diag(*hard.normal(2, shape[0] // 2, shape[1] // 2))
    generator = torch.Generator().manual_seed(0)
    weight = weight[torch.randperm(shape[0], generator=generator)][:, torch.randperm(shape[1], generator=generator)]
    structure = eckart.fit(weight, "block-diagonal", statistics=statistics(shape[1]), blocks=2)
    torch.testing.assert_close(dense(structure), weight, rtol=1e-8, atol=1e-9)


def test_white_inputs_leave_the_blocks_as_they_are() -> None:
    weight = hard.normal(12, 20)
    for C in (torch.eye(20), torch.zeros(20, 20)):
        known = Statistics(input_second_moment=C.double())
        got = dense(eckart.fit(weight, "block-diagonal", statistics=known, blocks=4))
        inside = got != 0
        assert inside.sum() == 12 * 20 / 4
        torch.testing.assert_close(got[inside], weight[inside])


def test_the_order_gathers_what_belongs_together() -> None:
    for seed in range(5):
        weight = hard.normal(40, 60, seed=seed) * torch.block_diag(torch.ones(20, 30), torch.ones(20, 30))
        weight += 0.2 * hard.normal(40, 60, seed=seed + 50)
        generator = torch.Generator().manual_seed(seed)
        rows, columns = torch.randperm(40, generator=generator), torch.randperm(60, generator=generator)
        i, j = spectral_order(weight[rows][:, columns])
        assert {frozenset((rows[i[:20]] < 20).tolist()), frozenset((columns[j[:30]] < 30).tolist())} <= {
            frozenset({True}),
            frozenset({False}),
        }


def test_a_second_moment_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(5, 5\) does not fit a weight of shape \(4, 6\)"):
        METHODS["block-diagonal"].entry(hard.normal(4, 6), Statistics(input_second_moment=torch.eye(5)))
    family = METHODS["cospadi"].entry(hard.normal(14, 16), Statistics(input_second_moment=torch.eye(5)))
    with pytest.raises(ValueError, match="5"):
        family.build(1)


# --- cospadi -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(20, 12), (12, 20)], ids=str)
def test_signals_stand_for_the_matrix_in_the_metric(shape: tuple[int, int]) -> None:
    weight, C = hard.normal(*shape), moment(shape[1])
    y = signals(weight, C)
    gram = weight @ C @ weight.T
    torch.testing.assert_close(y @ y.T, gram * shape[0] / gram.trace())
    assert (y.square().sum(0).diff() <= 1e-12).all()
    # The best dictionary of any codes is the same, and so is its error up to that factor.
    codes = hard.normal(shape[0], 4) * largest(hard.normal(shape[0], 4, seed=1), 2)
    other = (y - codes @ least_squares_atoms(codes, y)).square().sum()
    error = Metric(right=C).error(weight - codes @ least_squares_atoms(codes, weight))
    torch.testing.assert_close(error * shape[0] / gram.trace(), other)
    assert not signals(torch.zeros(shape).double(), C).any()


def test_least_squares_atoms_are_those_of_lstsq() -> None:
    codes, y = hard.normal(30, 6), hard.normal(30, 9, seed=1)
    torch.testing.assert_close(least_squares_atoms(codes, y), torch.linalg.lstsq(codes, y).solution)
    codes[:, 2] = 0
    atoms = least_squares_atoms(codes, y)
    assert not atoms[2].any()
    others = torch.tensor([0, 1, 3, 4, 5])
    torch.testing.assert_close(atoms[others], torch.linalg.lstsq(codes[:, others], y).solution)


def test_conjugate_gradients_lower_the_error_of_every_row() -> None:
    atoms, y = hard.normal(8, 12), hard.normal(40, 12, seed=1)
    kept = largest(hard.normal(40, 8, seed=2), 3)
    codes = conjugate_gradients(atoms @ atoms.T, y @ atoms.T, torch.zeros(40, 8).double(), kept)
    assert not codes[~kept].any()
    for row, signal, places in zip(codes, y, kept, strict=True):
        best = torch.linalg.lstsq(atoms[places].T, signal[:, None]).solution[:, 0]
        # Three entries take three steps.
        torch.testing.assert_close(row[places], best, rtol=1e-6, atol=1e-8)


def matching_pursuit(y: Tensor, atoms: Tensor, s: int) -> Tensor:
    """Orthogonal matching pursuit, one signal after the other."""
    codes = y.new_zeros(len(y), len(atoms))
    for i, signal in enumerate(y):
        chosen: list[int] = []
        rest = signal
        for _ in range(s):
            score = (atoms @ rest).abs()
            score[chosen] = -1
            chosen.append(int(score.argmax()))
            solution = torch.linalg.lstsq(atoms[chosen].T, signal[:, None]).solution[:, 0]
            rest = signal - solution @ atoms[chosen]
        codes[i, chosen] = solution
    return codes


@pytest.mark.parametrize("seed", range(3))
def test_codes_are_no_worse_than_those_of_matching_pursuit_and_least_squares(seed: int) -> None:
    y = hard.normal(120, 24, seed=seed) * hard.decaying(24, 1)
    k, s = 16, 8
    atoms, least = torch.eye(k, 24).double(), float("inf")
    for _ in range(8):
        codes = matching_pursuit(y, atoms, s)
        atoms = least_squares_atoms(codes, y)
        least = min(least, float((y - codes @ atoms).square().sum()))
        atoms = atoms / atoms.norm(dim=1, keepdim=True).clamp_min(1e-12)
    codes = sparse_codes(y, k, s)
    assert ((codes != 0).sum(1) <= s).all()
    assert float((y - codes @ least_squares_atoms(codes, y)).square().sum()) <= least


def test_codes_are_no_worse_than_the_truncated_svd_of_the_same_numbers() -> None:
    y = hard.normal(120, 40, seed=3) * hard.decaying(40, 1.5)
    u, sigma, _ = torch.linalg.svd(y, full_matrices=False)
    codes = sparse_codes(u * sigma, 20, 10)
    error = (u * sigma - codes @ least_squares_atoms(codes, u * sigma)).square().sum()
    # 10 x 120 + 20 x 40 numbers
    rank = (10 * 120 + 20 * 40) // (120 + 40)
    assert sigma[20:].square().sum() <= error < sigma[rank:].square().sum()


def test_signals_on_a_few_lines_are_recovered() -> None:
    # Each output is a multiple of one of two atoms.
    atoms = hard.normal(2, 10)
    codes = torch.zeros(50, 2, dtype=torch.float64)
    codes[torch.arange(50), torch.arange(50) % 2] = hard.normal(50, seed=1)
    weight = codes @ atoms
    structure = eckart.fit(weight, "cospadi", statistics=statistics(10), terms=1)
    difference = weight - dense(structure)
    assert Metric(right=moment(10)).error(difference) <= 1e-10 * Metric(right=moment(10)).error(weight)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_known_codes_give_back_the_matrix(dtype: torch.dtype) -> None:
    codes = hard.normal(40, 8) * largest(hard.normal(40, 8, seed=1), 3)
    weight = (codes @ hard.normal(8, 14, seed=2)).to(dtype)
    atoms = least_squares_atoms(codes, weight.double())
    torch.testing.assert_close((codes @ atoms).to(dtype), weight)
    # and given the atoms, enough steps of coding give back codes of no error
    gram, products = atoms @ atoms.T, weight.double() @ atoms.T
    found = conjugate_gradients(gram, products, torch.zeros_like(codes), codes != 0)
    torch.testing.assert_close((found @ atoms).to(dtype), weight, rtol=1e-4, atol=1e-4)


@shapes
def test_cospadi_stores_s_of_2s_atoms_for_every_output(shape: tuple[int, int]) -> None:
    weight, known = hard.normal(*shape, seed=8), statistics(shape[1])
    family = METHODS["cospadi"].entry(weight, known)
    errors = family.errors
    assert (errors.diff() <= 0).all()
    assert len(family.sizes) <= 12
    for s, cost in zip(family.sizes, family.costs, strict=True):
        structure = family.build(s).structure
        codes, atoms = structure.operands()
        assert isinstance(codes, Masked)
        assert codes.shape == (shape[0], 2 * s)
        assert atoms.shape == (2 * s, shape[1])
        assert len(codes.values) == s * shape[0]
        assert cost == structure.cost()
        assert cost.bytes == 8 * s * (shape[0] + 2 * shape[1]) + shape[0] * math.ceil(2 * s / 8)
        x = hard.normal(3, shape[1])
        torch.testing.assert_close(structure(x), x @ dense(structure).T)
        torch.testing.assert_close(apply_transposed(structure, structure(x)), structure(x) @ dense(structure))
    dense_bytes = weight.numel() * 8
    if family.sizes:
        assert family.costs[-1].bytes < dense_bytes
        assert METHODS["cospadi"].entry(weight, known).build(family.sizes[-1]).error < family.zero_error


def test_cospadi_fits_the_metric() -> None:
    weight = hard.normal(60, 40, seed=9)
    known, white = statistics(40), Statistics(input_second_moment=torch.eye(40, dtype=torch.float64))
    here, there = (eckart.fit(weight, "cospadi", statistics=k, terms=8) for k in (known, white))
    metric = Metric(right=known.input_second_moment)
    assert metric.error(weight - dense(here)) < 0.5 * metric.error(weight - dense(there))
    assert Metric().error(weight - dense(there)) < Metric().error(weight - dense(here))
