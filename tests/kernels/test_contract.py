"""What every kernel does, over the register and those without a paper: symmetry, definiteness, kinds, files, limits."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import numpy as np
import pytest
import torch

from eckart import linalg
from eckart.errors import Refused
from eckart.kernels import (
    KERNELS,
    AdditiveChiSquared,
    Angle,
    ChiSquared,
    Cosine,
    DigitalNet,
    Even,
    Grid,
    Kernel,
    Laplacian,
    Lattice,
    Linear,
    Polynomial,
    Sigmoid,
)
from eckart.kernels._kernel import KINDS
from eckart.kernels._options import from_options
from eckart.kernels.contract import Example, KernelCard
from eckart.kernels.matern import Matern
from eckart.kernels.quantum_kernel import QuantumKernel
from eckart.kernels.rational_quadratic import RationalQuadratic
from eckart.kernels.rbf import RBF
from eckart.kernels.spectral_mixture import SpectralMixture


def examples() -> dict[str, Example]:
    """An example of each kernel of the register, and of those without a paper, alone and together."""
    found = {name: card.example for name, card in KERNELS.items() if card.example is not None}
    made = {name: example(np.random.default_rng(0)) for name, example in found.items()}
    rng = np.random.default_rng(1)
    x, z = rng.standard_normal((11, 2)), rng.standard_normal((4, 2))
    plain = {
        "linear": Linear(),
        "polynomial": Polynomial(2, 0.5),
        "sigmoid": Sigmoid(0.5, 0.3),
        "angle": Angle(),
        "laplacian": Laplacian([0.7, 2.0]),
        "sum": 0.3 * RBF(0.5) + Linear(),
        "product": Matern(2.5, 2.0) * RBF([1.0, 0.4]),
    }
    one = {"cosine": Cosine(0.3)}
    counts = {"chi2": ChiSquared(0.7), "additive chi2": AdditiveChiSquared()}
    return {
        **made,
        **{name: Example(kernel, x, z) for name, kernel in plain.items()},
        **{name: Example(kernel, x[:, :1], z[:, :1]) for name, kernel in one.items()},
        **{name: Example(kernel, np.abs(x), np.abs(z)) for name, kernel in counts.items()},
    }


EXAMPLES = [pytest.param(example, id=name) for name, example in examples().items()]
POINTS = [
    each for each in EXAMPLES if isinstance(each.values[0].inputs, np.ndarray) and each.values[0].inputs.ndim == 2
]


def repeated(x: Any) -> Any:
    """Inputs with the first of them three times more."""
    return x[[0, 0, 0, *range(len(x))]] if isinstance(x, np.ndarray) else [x[0]] * 3 + list(x)


@pytest.mark.parametrize("example", EXAMPLES)
def test_a_matrix_is_symmetric_and_that_of_all_pairs(example: Example) -> None:
    k = example.kernel
    whole, across = k(example.inputs), k(example.inputs, example.others)
    n, m = len(example.inputs), len(example.others)
    assert whole.shape == (n, n)
    assert across.shape == (n, m)
    assert whole.dtype == across.dtype == np.float64
    size = np.abs(whole).max()
    np.testing.assert_allclose(whole, whole.T, atol=1e-13 * size)
    np.testing.assert_allclose(k.diag(example.inputs), whole.diagonal(), atol=1e-13 * size)
    np.testing.assert_allclose(k(example.others, example.inputs), across.T, atol=1e-13 * size)
    np.testing.assert_allclose(k(example.inputs[:2], example.others[1:3]), across[:2, 1:3], atol=1e-12 * size)
    np.testing.assert_allclose(k.gram(example.inputs).to_dense().detach().numpy(), whole, atol=1e-13 * size)


@pytest.mark.parametrize("example", EXAMPLES)
def test_a_kernel_that_says_so_is_positive_semi_definite_on_duplicates_too(example: Example) -> None:
    if example.kernel.psd:
        for x in (example.inputs, repeated(example.inputs), example.inputs[:1]):
            values = np.linalg.eigvalsh(example.kernel(x))
            assert values[0] >= -1e-10 * max(values.sum(), 1e-300)
    else:
        assert np.linalg.eigvalsh(example.kernel(example.inputs))[0] < 0, "it is said to be indefinite, and is not here"


@pytest.mark.parametrize("example", EXAMPLES)
def test_what_it_does_not_see_changes_nothing(example: Example) -> None:
    for change in example.same:
        moved = example.kernel(change(example.inputs), change(example.others))
        np.testing.assert_allclose(moved, example.kernel(example.inputs, example.others), atol=1e-10)


@pytest.mark.parametrize("example", EXAMPLES)
def test_a_kernel_is_copied_by_its_options(example: Example) -> None:
    k = example.kernel
    assert type(k).__name__ in KINDS
    for again in (from_options(type(k).__name__, k.options()), copy.deepcopy(k)):
        np.testing.assert_allclose(again(example.inputs), k(example.inputs), rtol=1e-14)
    assert type(k).__name__ in repr(k)


@pytest.mark.parametrize("example", POINTS)
def test_points_are_checked_and_come_back_as_they_came(example: Example) -> None:
    k, x = example.kernel, example.inputs
    tensor = k(torch.from_numpy(x), torch.from_numpy(example.others))
    assert isinstance(tensor, torch.Tensor)
    np.testing.assert_array_equal(tensor.detach().numpy(), k(x, example.others))
    np.testing.assert_allclose(k(x.astype(np.float32)), k(x), rtol=1e-4, atol=1e-4 * np.abs(k(x)).max())
    np.testing.assert_allclose(k(np.asfortranarray(np.repeat(x, 2, 0))[::2]), k(x))
    for wrong in (x[0], x * np.nan, np.where(x == x[0, 0], np.inf, x), x + 1j):
        with pytest.raises(Refused):
            k(wrong)
    with pytest.raises(Refused):
        k(x, np.hstack([x, x]))


@pytest.mark.parametrize("example", POINTS)
def test_huge_and_tiny_points_give_finite_numbers_or_are_refused(example: Example) -> None:
    for factor in (0.0, 1e-150, 1e100):
        try:
            found = example.kernel(example.inputs * factor)
        except Refused:
            continue
        assert np.isfinite(found).all() or (factor > 1 and not np.isnan(found).any())


DEGENERATE = {
    "one dimension": lambda x: x[:, :1],
    "a thousand dimensions": lambda x: x,
    "constant columns": lambda x: np.hstack([x[:, :1], np.full((len(x), 2), 0.5)]),
    "constant columns only": lambda x: np.full((len(x), 3), 0.5),
}


@pytest.mark.parametrize("shape", DEGENERATE)
@pytest.mark.parametrize("example", POINTS)
def test_one_dimension_a_thousand_and_constant_columns(example: Example, shape: str) -> None:
    k, x = example.kernel, DEGENERATE[shape](np.random.default_rng(2).uniform(0, 1, (7, 1000)))
    # One lengthscale a dimension says how many there are, and a thousand qubits are 2^1000 numbers.
    stated = any(p.ndim for p in k.parameters()) or isinstance(k, Cosine | QuantumKernel)
    try:
        found = k(x)
    except Refused:
        assert stated
        return
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found, found.T, atol=1e-13 * np.abs(found).max())
    np.testing.assert_allclose(k.diag(x), found.diagonal(), atol=1e-12 * np.abs(found).max())
    if k.psd:
        assert np.linalg.eigvalsh(found)[0] >= -1e-10 * max(float(np.trace(found)), 1e-300)


@pytest.mark.parametrize("example", POINTS)
def test_gradients_reach_points_and_parameters(example: Example) -> None:
    k = copy.deepcopy(example.kernel)
    x = torch.from_numpy(example.inputs[:4]).requires_grad_()
    z = torch.from_numpy(example.others[:3])
    weight = torch.randn(4, len(z), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    (k(x, z) * weight).sum().backward()
    step = 1e-6
    with torch.no_grad():
        for leaf in [x, *k.parameters()]:
            assert leaf.grad is not None
            flat = leaf.view(-1)
            held = float(flat[0])
            values = []
            for moved in (held - step, held + step):
                flat[0] = moved
                values.append(float((k(x, z) * weight).sum()))
            flat[0] = held
            assert (values[1] - values[0]) / (2 * step) == pytest.approx(
                float(leaf.grad.view(-1)[0]), rel=1e-5, abs=1e-8
            )


DIFFERENCES = {
    "rbf": RBF(0.7),
    "matern 3/2": Matern(1.5, 0.7),
    "matern 5/2": Matern(2.5, 0.7),
    "rational quadratic": RationalQuadratic(0.8, 0.7),
    "cosine": Cosine(0.4),
    "mixture": SpectralMixture([1.2, 0.3], [0.2, 0.6], [0.1, 0.2]),
    "waves that fade": 0.5 * (Matern(2.5, 0.9) * Cosine(0.3)) + RBF(0.4) * Cosine(1.1),
}


@pytest.mark.parametrize("name", DIFFERENCES)
def test_derivatives_by_a_difference_are_right_at_zero_too(name: str) -> None:
    kernel, step = DIFFERENCES[name], 1e-5
    t = torch.tensor([-1.3, -0.2, 0.0, 0.4, 2.0], dtype=torch.float64)
    first = (kernel.along(t + step) - kernel.along(t - step)) / (2 * step)
    second = (kernel.along(t + step, 1) - kernel.along(t - step, 1)) / (2 * step)
    with torch.no_grad():
        torch.testing.assert_close(kernel.along(t), kernel(t[:, None], torch.zeros(1, 1))[:, 0])
        torch.testing.assert_close(kernel.along(t, 1), first, rtol=1e-6, atol=1e-7)
        close = 2e-4 if name == "matern 3/2" else 1e-7  # the third derivative jumps at zero
        torch.testing.assert_close(kernel.along(t, 2), second, rtol=1e-6, atol=close)


DENSITIES = {
    "rbf": RBF([0.7, 1.5]),
    "matern 1/2": Matern(0.5, 1.5),
    "matern 5/2": Matern(2.5, 1.5),
    "rational quadratic": RationalQuadratic(0.8, 1.2),
    "laplacian": Laplacian(1.5),
    "mixture": SpectralMixture([0.7, 0.4], [[0.1, 0.4], [0.9, 0.0]], [[0.1, 0.2], [0.3, 0.1]]),
    "product": 2.0 * (RBF(0.8) * Matern(1.5, 2.0)),
    "sum": 0.5 * RBF(0.8) + 1.5 * Laplacian(1.5),
}


@pytest.mark.parametrize("name", DENSITIES)
def test_frequencies_are_of_the_spectral_density(name: str) -> None:
    kernel = DENSITIES[name]
    t = torch.tensor([[0.3, -0.4], [1.0, 0.2], [-0.5, 1.5]], dtype=torch.float64)
    waves = (kernel.frequencies(40000, 2, torch.Generator().manual_seed(3)) @ t.T).cos()
    with torch.no_grad():
        expected = kernel(t, torch.zeros(1, 2))[:, 0] / kernel.diag(t)
    assert ((waves.mean(0) - expected).abs() < 4 * waves.std(0) / 200).all()


@pytest.mark.parametrize("name", DENSITIES)
def test_features_are_the_kernel_on_average_and_their_error_falls_as_the_root(name: str) -> None:
    kernel, x = DENSITIES[name], 0.7 * np.random.default_rng(0).standard_normal((9, 2))
    exact, errors = kernel(x), {}
    for count in (32, 512):
        drawn = [kernel.features(count, 2, torch.Generator().manual_seed(seed))(x) for seed in range(60)]
        assert drawn[0].shape == (9, count)
        products = np.stack([phi @ phi.T for phi in drawn])
        assert (np.abs(products.mean(0) - exact) < 5 * products.std(0) / 60**0.5 + 1e-9).all()
        errors[count] = np.sqrt(np.square(products - exact).mean())
    assert 3.3 < errors[32] / errors[512] < 4.8
    assert errors[512] < (2 / 512) ** 0.5 * exact[0, 0]


def test_features_come_with_their_state_and_are_of_an_even_number() -> None:
    x = torch.randn(5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    made = (2.0 * RBF(0.5)).features(6, 2, torch.Generator().manual_seed(1))
    again = Laplacian(1.0).features(6, 2, torch.Generator().manual_seed(2))
    again.load_state_dict(made.state_dict())
    torch.testing.assert_close(again(x), made(x), rtol=0, atol=0)
    torch.testing.assert_close(made(x).square().sum(1), torch.full((5,), 2.0, dtype=torch.float64))
    for call in (lambda: RBF().features(5, 2), lambda: RBF().features(0, 2), lambda: Linear().features(4, 2)):
        with pytest.raises(Refused):
            call()
    with pytest.raises(Refused, match="points of 3 dimensions: these features are of 2"):
        made(torch.zeros(4, 3))


LOW = {
    "rbf": RBF([0.7, 1.3]),
    "multiple of a sum": 1.5 * (Matern(2.5, 0.8) + Linear()),
    "polynomial": Polynomial(2, 0.5),  # of rank 6 on points of two dimensions
    "counts": ChiSquared(0.7),
}


@pytest.mark.parametrize("name", LOW)
def test_low_rank_plus_diagonal_is_dense(name: str) -> None:
    kernel, x = LOW[name], torch.from_numpy(np.random.default_rng(3).uniform(0, 2, (40, 2)))
    gram, n = kernel.gram(x, rank=6, generator=torch.Generator().manual_seed(0)), len(x)
    product, rest = gram.operands()
    dense, whole = gram.to_dense(), kernel(x)
    assert product.operands()[0].shape[1] <= 6
    torch.testing.assert_close(dense.diagonal(), kernel.diag(x))
    at = rest.weight < 1e-9
    torch.testing.assert_close(dense[:, at], whole[:, at], rtol=1e-6, atol=1e-6)
    assert bool(at.all()) == (name == "polynomial")
    b = torch.randn(n, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    shifted = dense + 0.1 * torch.eye(n, dtype=torch.float64)
    solved = linalg.solve(gram, b, shift=0.1)
    torch.testing.assert_close(solved, torch.linalg.solve(shifted, b), rtol=1e-8, atol=1e-8)
    evidence = linalg.logdet(gram, shift=0.1) + (b * solved).sum()
    expected = shifted.logdet() + (b * torch.linalg.solve(shifted, b)).sum()
    torch.testing.assert_close(evidence, expected, rtol=1e-9, atol=1e-9)
    leaves = list(kernel.parameters())
    slopes = (torch.autograd.grad(value, leaves, retain_graph=True) for value in (evidence, expected))
    for found, wanted in zip(*slopes, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-8)
    drawn = linalg.sample(gram, 4000, shift=0.1, generator=torch.Generator().manual_seed(1))
    assert (drawn.T @ drawn / 4000 - shifted).abs().max() < 0.25 * shifted.max()


def test_a_rank_is_of_any_rows_and_as_many_as_there_are_are_dense() -> None:
    x = np.random.default_rng(0).standard_normal((5, 2))
    for found in (
        RBF().gram(x, rank=9),
        RBF().gram(Grid([0.0, 1.0], [0.0, 1.0]), rank=4),
        Linear().gram(0 * x, rank=2),
    ):
        assert type(found).__name__ == "Dense"
    graph = KERNELS["log-graph-kernels"].entry(np.ones((6, 6)) - np.eye(6))
    torch.testing.assert_close(graph.gram(np.arange(6), rank=4).to_dense().diagonal(), graph.diag(torch.arange(6)))
    letters, words = KERNELS["pcd2vec"].entry(), KERNELS["pcd2vec"].entry("kmer")
    told = ["AACA", "ACCA", "AAAA", "CCCC"]
    found = letters.gram(told, rank=2, generator=torch.Generator().manual_seed(0)).to_dense().detach().numpy()
    np.testing.assert_allclose(found.diagonal(), letters.diag(told))
    for call in (lambda: RBF().gram(x, rank=0), lambda: words.gram(told, rank=1)):
        with pytest.raises(Refused, match="rank"):
            call()


PLACES = {
    "even": (Even(-1.0, 0.25, 9), RBF(0.7) + 0.5 * Matern(1.5)),
    "grid": (Grid([0.0, 0.4, 1.0], Even(0.0, 0.5, 4)), 1.5 * RBF([0.7, 0.5])),
    "grid of exponentials": (Grid([0.0, 0.4, 1.0], Even(0.0, 0.5, 4)), 1.5 * Laplacian([0.7, 0.5])),
    "grid of three": (Grid([0.0, 0.4], [0.1, 0.7, 0.9], [0.0, 0.5]), RBF(0.6) * (2.0 * RBF([1.0, 0.5, 0.7]))),
    "grid of one": (Grid(Even(0.0, 0.3, 5)), Matern(2.5)),
    "lattice": (
        Lattice(10, 2, [0.3, 0.7]),
        0.7 * KERNELS["fast-qmc-kernels"].entry(1, [0.5, 0.2]) + KERNELS["fast-qmc-kernels"].entry(2),
    ),
    "net": (DigitalNet(8, 2, [0.3, 0.7]), 1.5 * KERNELS["fast-qmc-kernels-digital"].entry(2, [0.5, 0.2])),
}


@pytest.mark.parametrize("name", PLACES)
def test_structured_is_dense(name: str) -> None:
    points, kernel = PLACES[name]
    gram, dense = kernel.gram(points), kernel(points)
    n = len(points)
    assert type(gram).__name__ in ("Toeplitz", "Kronecker", "Circulant", "Chain")
    b = torch.randn(n, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    shifted = dense + 0.1 * torch.eye(n, dtype=torch.float64)
    torch.testing.assert_close(gram.to_dense(), dense)
    torch.testing.assert_close(linalg.solve(gram, b, shift=0.1), torch.linalg.solve(shifted, b), rtol=1e-8, atol=1e-8)
    evidence = linalg.logdet(gram, shift=0.1) + (b * linalg.solve(gram, b, shift=0.1)).sum()
    expected = shifted.logdet() + (b * torch.linalg.solve(shifted, b)).sum()
    torch.testing.assert_close(evidence, expected, rtol=1e-9, atol=1e-9)
    parameters = list(kernel.parameters())
    for found, wanted in zip(
        torch.autograd.grad(evidence, parameters), torch.autograd.grad(expected, parameters), strict=True
    ):
        torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-9)
    drawn = linalg.sample(gram, 4000, shift=0.1, generator=torch.Generator().manual_seed(1))
    assert (drawn.T @ drawn / 4000 - shifted).abs().max() < 0.25 * shifted.max()


@pytest.mark.parametrize("example", [each for each in POINTS if "difference" in each.values[0].kernel.sees_only])
def test_what_all_points_have_in_common_changes_no_gradient(example: Example) -> None:
    x = torch.from_numpy(np.round(example.inputs * 64) / 64)  # a shift of 2^20 rounds nothing
    weight = torch.randn(len(x), len(x), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = []
    for shift in (0.0, 2.0**20):
        k = copy.deepcopy(example.kernel)
        (k(x + shift) * weight).sum().backward()
        found.append([leaf.grad for leaf in k.parameters()])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("example", [each for each in POINTS if "difference" in each.values[0].kernel.sees_only])
def test_far_points_have_nothing_in_common_and_themselves_all(example: Example) -> None:
    k, d = example.kernel, example.inputs.shape[1]
    if "torus" in k.sees_only or any("mean" in name or "frequency" in name for name, _ in k.named_parameters()):
        return  # waves go on
    x = np.zeros((3, d))
    x[1, 0], x[2, 0] = 1e160, -1e250
    np.testing.assert_allclose(k(x), np.diag(k.diag(x)), atol=1e-12)
    wide = np.zeros((2, 40))
    wide[1, 3] = 1e200
    for kernel in (RBF(), Matern(2.5)):
        np.testing.assert_array_equal(kernel(wide), np.eye(2))


@pytest.mark.parametrize("factor", [1e-100, 1e-13, 1e100])
def test_an_angle_is_of_rows_of_any_scale(factor: float) -> None:
    x = np.random.default_rng(0).standard_normal((5, 3))
    np.testing.assert_allclose(Angle()(x * factor), Angle()(x), rtol=1e-12)


def test_kernels_add_up_and_are_scaled_as_numbers_are() -> None:
    x = np.random.default_rng(0).standard_normal((4, 2))
    np.testing.assert_allclose(sum([RBF(), Linear(), RBF()])(x), 2 * RBF()(x) + Linear()(x))
    np.testing.assert_allclose((RBF() / 4)(x), RBF()(x) / 4)
    for wrong in (lambda: RBF() + 1, lambda: RBF() / RBF()):
        with pytest.raises(TypeError):
            wrong()


def test_bad_arguments_are_refused() -> None:
    for make in (
        lambda: RBF(0.0),
        lambda: RBF([1.0, -1.0]),
        lambda: RBF([1.0, 1.0])(np.zeros((2, 3))),
        lambda: Matern(1.0),
        lambda: Matern(0.5).along(torch.zeros(1), 1),
        lambda: Polynomial(2.5),
        lambda: -1.0 * RBF(),
        lambda: Linear().frequencies(3, 2),
        lambda: Matern(2.5).factors(2),
        lambda: Grid(),
        lambda: Even(0.0, 0.0, 3),
        lambda: from_options("Nothing", {}),
        lambda: RBF(0.5)(np.array([[0.0], [1.7e308]])),
        lambda: RBF(None),
        lambda: RBF("wide"),
        lambda: RBF(np.ones((2, 2))),
        lambda: RBF() * [1.0, 2.0],
        lambda: RationalQuadratic([1.0, 2.0]),
        lambda: Cosine([1.0, 2.0]),
        lambda: Laplacian([1.0, 2.0])(np.zeros((2, 1))),
        lambda: Laplacian(np.ones((6, 3))),
        lambda: Polynomial(gamma=[1.0, 2.0]),
        lambda: Sigmoid(offset=float("nan")),
        lambda: ChiSquared(0.0),
        lambda: RBF([1.0, 2.0, 3.0]).gram(Grid([0.0, 1.0], [0.0, 1.0])),
        lambda: RBF([1.0]).gram(Grid([0.0, 1.0], [0.0, 1.0])),
        lambda: RBF([1.0, 2.0]).frequencies(3, 3),
        lambda: (RBF() + KERNELS["log-graph-kernels"].entry(np.ones((3, 3))))(np.zeros((2, 1))),
        lambda: (KERNELS["log-graph-kernels"].entry(np.ones((3, 3))) + RBF())(np.array([0, 1])),
        lambda: Even("a", 1, 2),
        lambda: Even(0.0, 1.0, 2.5),
        lambda: Grid(["a"]),
    ):
        with pytest.raises(Refused):
            make()


FUNCTIONS = [
    pytest.param(card, name, id=f"{card.name}-{name}")
    for card in KERNELS.values()
    if card.planted is not None
    for name, option in inspect.signature(card.entry).parameters.items()
    if "Callable" in str(option.annotation)
]


@pytest.mark.parametrize("spoilt", [np.nan, np.inf, "a", 1j])
@pytest.mark.parametrize(("card", "name"), FUNCTIONS)
def test_functions_that_give_no_numbers_are_refused(card: KernelCard, name: str, spoilt: Any) -> None:
    assert card.planted is not None
    planted = card.planted(np.random.default_rng(0))
    bad = {name: lambda *given: np.full(np.shape(given[0]), spoilt)}
    call = card.entry if card.kind == "solver" else card.entry(**{**planted.options, **bad}).fit
    with pytest.raises(Refused):
        call(**{**planted.arguments, **(bad if card.kind == "solver" else {})})


def test_names_of_scikit_learn_are_its_kernels() -> None:
    from sklearn.metrics.pairwise import pairwise_kernels

    from eckart.kernels import as_kernel

    x = np.random.default_rng(0).standard_normal((6, 3))
    for name in ("rbf", "laplacian", "linear", "cosine", "sigmoid"):
        named = {"gamma": 0.3} if name in ("rbf", "laplacian", "sigmoid") else {}
        np.testing.assert_allclose(
            as_kernel(name, 3, gamma=0.3)(x), pairwise_kernels(x, metric=name, **named), atol=1e-12
        )
    found = as_kernel("poly", 3, degree=2, coef0=0.5)(x)
    np.testing.assert_allclose(found, pairwise_kernels(x, metric="poly", degree=2, coef0=0.5))
    assert isinstance(as_kernel("matern", 3), Kernel)
    counts = np.abs(x) * (np.abs(x) > 0.5)
    for name in ("chi2", "additive_chi2"):
        np.testing.assert_allclose(as_kernel(name, 3)(counts), pairwise_kernels(counts, metric=name), atol=1e-12)
        with pytest.raises(Refused, match="counts"):
            as_kernel(name, 3)(-counts)
    for name in ("rbf", "laplacian", "poly", "sigmoid"):  # their defaults too
        np.testing.assert_allclose(as_kernel(name, 3)(x), pairwise_kernels(x, metric=name), atol=1e-12)
    with pytest.raises(Refused, match="'radial' is no Kernel and none of rbf"):
        as_kernel("radial", 3)
