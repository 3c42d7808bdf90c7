"""Overlaps of quantum states into which points are written, simulated exactly, and as so many measurements say them."""

from __future__ import annotations

from collections.abc import Sequence
from math import pi
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from eckart.errors import Refused
from eckart.kernels._kernel import Kernel
from eckart.kernels._parameters import log_parameter, plain
from eckart.kernels.contract import Example, kernel
from eckart.linalg.hadamard import walsh_hadamard
from eckart.scikit.base import generator_from

QUBITS = 24
"""At most: a state of 2^24 amplitudes has 256 MiB."""
Entanglement = Literal["full", "linear", "circular", "none"] | Sequence[Sequence[int]]


def pairs(qubits: int, entanglement: Entanglement) -> list[tuple[int, int]]:
    """The pairs of qubits that are entangled: all, neighbours, neighbours in a ring, none, or a list of them."""
    near = [(i, i + 1) for i in range(qubits - 1)]
    ring = [(qubits - 1, 0), *near] if qubits > 2 else near
    every = [(i, j) for i in range(qubits) for j in range(i + 1, qubits)]
    if isinstance(entanglement, str):
        named = {"full": every, "linear": near, "circular": ring, "none": []}
        if entanglement not in named:
            raise Refused(f"entanglement={entanglement!r} is none of {', '.join(named)}, nor a list of pairs")
        return named[entanglement]
    found = [(int(i), int(j)) for i, j in entanglement]
    if any(i == j or not (0 <= i < qubits and 0 <= j < qubits) for i, j in found):
        raise Refused(f"entanglement={found}: pairs of two of 0..{qubits - 1}")
    return found


def zz_phases(x: Tensor, entanglement: Entanglement = "full") -> Tensor:
    """The phase of each basis state: sum_i 2 x_i b_i + sum_ij 2 (pi - x_i)(pi - x_j) (b_i xor b_j).

    It is built up from the qubits: a bit adds what it says by itself and beside each of the bits before it.

    Args:
        x: (n, q), float64.
        entanglement: which pairs there are.

    Returns:
        (n, 2^q), qubit i being the bit of 2^i of the place.
    """
    n, q = x.shape
    index = torch.arange(1 << q, device=x.device)
    bits = [(index >> i & 1).to(x.dtype) for i in range(q)]
    # b_i xor b_j = b_i + b_j - 2 b_i b_j: what is linear in bits is one product, and each bit adds its pairs' rest.
    angles = [(i, j, 2 * (pi - x[:, i]) * (pi - x[:, j])) for i, j in pairs(q, entanglement)]
    single = [2 * x[:, i] + sum((a for *edge, a in angles if i in edge), x.new_zeros(n)) for i in range(q)]
    found = torch.stack(single, 1) @ torch.stack(bits) if q else x.new_zeros(n, 1)
    for i in range(q):
        later = [(max(j, k), a) for j, k, a in angles if i == min(j, k)]
        if later:
            both = torch.stack([a for _, a in later], 1) @ torch.stack([bits[j] for j, _ in later])
            found = found - 2 * bits[i] * both
    return found


def zz_states(x: Tensor, *, reps: int = 2, entanglement: Entanglement = "full") -> Tensor:
    """The states U H ... U H |0> of points, U the diagonal of `zz_phases` and H a Hadamard gate on every qubit.

    H on all qubits is a Walsh-Hadamard transform, so that a state costs q 2^q operations and no gate is multiplied out.
    These are the amplitudes of qiskit's `ZZFeatureMap`, global phase and order included.

    Args:
        x: (n, q), float64: one qubit for each dimension.
        reps: repetitions of U H.
        entanglement: "full", "linear", "circular", "none", or pairs of qubits.

    Returns:
        (n, 2^q), complex128, rows of length 1.

    Raises:
        Refused: more than 24 qubits, no repetition, unknown pairs, or points so large that phases overflow.
    """
    n, q = x.shape
    if q > QUBITS or reps < 1 or reps != int(reps):
        raise Refused(f"{q} qubits and reps={reps}: at most {QUBITS} qubits, and a whole number of repetitions")
    phase = zz_phases(x, entanglement)
    if not torch.isfinite(phase).all():
        raise Refused("the points are so large that phases overflow: scale them to the order of 1")
    turn = torch.stack([phase.cos(), phase.sin()])
    size = 2.0 ** (-q / 2)
    real, imaginary = turn * size
    for _ in range(int(reps) - 1):
        both = walsh_hadamard(torch.cat([real, imaginary]).T).T
        first, second = both[:n], both[n:]
        real, imaginary = first * turn[0] - second * turn[1], first * turn[1] + second * turn[0]
    return torch.complex(real.contiguous(), imaginary.contiguous())


def measured(
    gram: Any, shots: int, *, symmetric: bool = True, generator: int | np.random.Generator | None = None
) -> Any:
    """Overlaps as a machine without noise would estimate them: shares of `shots` measurements that give all zeros.

    Each entry is binomial by itself. A Gram matrix of such shares is indefinite; clip it before a machine that needs
    a definite one is trained on it.

    Args:
        gram: overlaps K (n, m), 0 to 1.
        shots: measurements of each pair.
        symmetric: whether each pair is measured once and K_ii is 1, as for the Gram matrix of a training set.
        generator: or a seed.

    Raises:
        Refused: no shots, or overlaps outside of 0..1.
    """
    k = np.asarray(gram, np.float64)
    if shots < 1 or not ((k > -1e-9) & (k < 1 + 1e-9)).all():
        raise Refused(f"shots={shots} of overlaps from {k.min(initial=0)} to {k.max(initial=0)}: one or more, 0 to 1")
    found = generator_from(generator).binomial(int(shots), np.clip(k, 0, 1)) / shots
    if not symmetric:
        return found
    upper = np.triu(found, 1)
    return upper + upper.T + np.eye(len(k))


def _example(rng: np.random.Generator) -> Example:
    return Example(QuantumKernel(bandwidth=0.4), rng.standard_normal((12, 3)), rng.standard_normal((5, 3)))


@kernel(
    "quantum-kernel",
    paper="Havlíček et al. 2019, arXiv 1804.11326, Nature 567",
    gives="overlaps of quantum states",
    example=_example,
    expression="|<f(x)|f(z)>|^2, f(x) = U(x) H U(x) H |0>",
)
class QuantumKernel(Kernel):
    """The overlap of the states that a quantum circuit makes of two points, exactly, with one qubit a dimension.

    |<f(x)|f(z)>|^2 with f(x) = `zz_states` of c x: a state for each point, by Walsh-Hadamard transforms, and one
    complex product for all pairs, where circuits for each pair take n^2 runs. The bandwidth c is the parameter that
    matters (Shaydulin and Wild 2022, arXiv 2111.05451): at the paper's c = 1 all states of many qubits are nearly
    orthogonal, K is nearly the identity, and on real data it predicts the larger class. At the best bandwidth it
    predicts as well as a Gaussian kernel of the best width, and not better; only on points that were labelled by its
    own states does it gain. The paper's variational classifier is a benchmark (`benchmarks/kernels/variational.py`) and
    no part of the library: behind the paper's states it predicts the larger class of real data as well. Noise other
    than that of shots (`measured`) is left out.

    Args:
        bandwidth: c, positive.
        reps: repetitions of the circuit, 2 in the paper.
        entanglement: "full", "linear", "circular", "none", or pairs of qubits.

    Raises:
        Refused: one of these out of its range.
    """

    def __init__(self, bandwidth: float = 1.0, *, reps: int = 2, entanglement: Entanglement = "full") -> None:
        super().__init__()
        self.log_bandwidth = log_parameter("QuantumKernel", "bandwidth", bandwidth)
        if reps != int(reps) or reps < 1:
            raise Refused(f"reps={reps} is no whole number from 1 on")
        if isinstance(entanglement, str):
            pairs(2, entanglement)
        self.reps = int(reps)
        self.entanglement = entanglement if isinstance(entanglement, str) else [list(pair) for pair in entanglement]

    def options(self) -> dict[str, Any]:
        return {"bandwidth": plain(self.log_bandwidth.exp()), "reps": self.reps, "entanglement": self.entanglement}

    def _states(self, x: Tensor) -> Tensor:
        return zz_states(self.log_bandwidth.exp() * x, reps=self.reps, entanglement=self.entanglement)

    def _between(self, x: Tensor, z: Tensor) -> Tensor:
        first = self._states(x)
        overlap = first.conj() @ (first if z is x else self._states(z)).T
        return overlap.real.square() + overlap.imag.square()

    def _diagonal(self, x: Tensor) -> Tensor:
        return x.new_ones(len(x))
