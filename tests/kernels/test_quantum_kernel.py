"""States and overlaps of circuits against the gates multiplied out."""

from __future__ import annotations

from functools import reduce

import numpy as np
import pytest
import torch

from eckart.errors import Refused
from eckart.kernels.quantum_kernel import Entanglement, QuantumKernel, measured, zz_states

HADAMARD = np.array([[1, 1], [1, -1]]) / np.sqrt(2)


def gate(qubits: int, on: dict[int, np.ndarray]) -> np.ndarray:
    """A product of gates on single qubits, the first qubit being the last factor."""
    return reduce(np.kron, [on.get(i, np.eye(2)) for i in reversed(range(qubits))])


def turned(angle: float) -> np.ndarray:
    return np.diag([1, np.exp(1j * angle)])


def controlled_not(qubits: int, control: int, target: int) -> np.ndarray:
    flip = np.array([[0, 1], [1, 0]])
    off, on = np.diag([1, 0]), np.diag([0, 1])
    return gate(qubits, {control: off}) + gate(qubits, {control: on, target: flip})


def circuit(x: np.ndarray, reps: int, edges: list[tuple[int, int]]) -> np.ndarray:
    """The amplitudes of qiskit's ZZFeatureMap, its gates one after the other."""
    q = len(x)
    state = np.eye(1 << q, dtype=complex)[0]
    for _ in range(reps):
        state = gate(q, dict.fromkeys(range(q), HADAMARD)) @ state
        for i in range(q):
            state = gate(q, {i: turned(2 * x[i])}) @ state
        for i, j in edges:
            state = controlled_not(q, i, j) @ state
            state = gate(q, {j: turned(2 * (np.pi - x[i]) * (np.pi - x[j]))}) @ state
            state = controlled_not(q, i, j) @ state
    return state


@pytest.mark.parametrize(
    ("q", "reps", "entanglement", "edges"),
    [
        (1, 2, "full", []),
        (2, 2, "full", [(0, 1)]),
        (4, 2, "full", [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]),
        (4, 3, "linear", [(0, 1), (1, 2), (2, 3)]),
        (4, 1, "circular", [(3, 0), (0, 1), (1, 2), (2, 3)]),
        (3, 2, [(2, 0)], [(2, 0)]),
        (3, 2, "none", []),
    ],
)
def test_states_are_those_of_the_gates(q: int, reps: int, entanglement: Entanglement, edges: list) -> None:
    x = np.random.default_rng(q).uniform(-1, 4, (3, q))
    found = zz_states(torch.from_numpy(x), reps=reps, entanglement=entanglement).numpy()
    expected = np.stack([circuit(row, reps, edges) for row in x])
    np.testing.assert_allclose(found, expected, atol=1e-12)
    made = QuantumKernel(0.7, reps=reps, entanglement=entanglement)
    scaled = np.stack([circuit(0.7 * row, reps, edges) for row in x])
    np.testing.assert_allclose(made(x), np.abs(scaled.conj() @ scaled.T) ** 2, atol=1e-12)


def test_many_qubits_tell_all_points_apart_unless_the_bandwidth_is_small() -> None:
    x = np.random.default_rng(0).standard_normal((30, 10))
    upper = np.triu_indices(30, 1)
    wide, narrow = (QuantumKernel(c)(x)[upper].mean() for c in (1.0, 0.02))
    assert wide < 0.01
    assert narrow > 0.1


def test_shots_are_binomial_and_the_limit_of_many_is_the_overlap() -> None:
    k = QuantumKernel(0.5)(np.random.default_rng(1).standard_normal((20, 2)))
    few, many = (measured(k, shots, generator=0) for shots in (50, 10**8))
    np.testing.assert_array_equal(few, few.T)
    np.testing.assert_array_equal(few.diagonal(), 1)
    off = np.triu_indices(20, 1)
    z = (few - k)[off] / np.sqrt(k[off] * (1 - k[off]) / 50)
    assert z.std() == pytest.approx(1, abs=0.2)
    np.testing.assert_allclose(many, k, atol=1e-3)
    across = measured(k[:3, 3:], 7, symmetric=False, generator=0) * 7
    np.testing.assert_array_equal(across, across.round())


def test_what_no_circuit_has_is_refused() -> None:
    x = torch.zeros(2, 3, dtype=torch.float64)
    for make in (
        lambda: QuantumKernel(0.0),
        lambda: QuantumKernel(reps=0),
        lambda: QuantumKernel(entanglement="star"),
        lambda: zz_states(x, entanglement=[(0, 3)]),
        lambda: zz_states(torch.zeros(1, 25, dtype=torch.float64)),
        lambda: zz_states(x + 1e200),
        lambda: measured(np.eye(2) * 2, 10),
        lambda: measured(np.eye(2), 0),
    ):
        with pytest.raises(Refused):
            make()
