"""The Gaussian kernel beside its formula."""

from pathlib import Path

import numpy as np

from eckart.kernels import Cosine, load, save
from eckart.kernels.log_graph_kernels import GraphKernel
from eckart.kernels.rbf import RBF


def test_it_is_its_formula() -> None:
    x = np.random.default_rng(0).standard_normal((5, 3)) + 1e3
    length = np.array([0.5, 1.0, 2.0])
    d = (x[:, None] - x) / length
    np.testing.assert_allclose(RBF(length)(x), np.exp(-0.5 * np.square(d).sum(-1)), rtol=1e-12)


def test_kernels_by_themselves_are_saved(tmp_path: Path) -> None:
    x, edges = np.random.default_rng(0).standard_normal((5, 1)), np.ones((3, 3)) - np.eye(3)
    for made, inputs in ((2.5 * RBF(0.3) + RBF(2.0) * Cosine(0.7), x), (GraphKernel(edges, "Heat", 0.2), np.arange(3))):
        save(made, tmp_path / "kernel")
        np.testing.assert_array_equal(load(tmp_path / "kernel")(inputs), made(inputs))
    save(RBF(2.0) * Cosine(0.7).requires_grad_(False), tmp_path / "kernel")
    assert [p.requires_grad for p in load(tmp_path / "kernel").parameters()] == [True, False]
