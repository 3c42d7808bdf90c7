"""A variational quantum classifier beside the quantum kernel and a Gaussian one, simulated without noise.

    OMP_NUM_THREADS=1 python -m benchmarks.kernels.variational --json benchmarks/results/kernels.jsonl

Points, classes and the kernels' machine are those of `quantum.py`. A point is written into the paper's state; layers
of rotations of each qubit about y and z and controlled signs between neighbours in a ring follow, and the parity of
all qubits is read: P(class 1) is a logistic function of its mean, times a slope and plus an offset that are learned
too. The gradient is exact, of the simulated state, in 200 steps of Adam, where the paper has SPSA on counts: an
upper bound of what counts can do. "angles" are states without the paper's map, each qubit turned by its coordinate.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.common.rows import Rows, add_option
from benchmarks.kernels.quantum import Found, adhoc, cancer
from eckart.kernels.quantum_kernel import zz_states

STEPS, RATE, SEEDS = 200, 0.1, 3


def turned(state: Tensor, angles: Tensor) -> Tensor:
    """Qubits turned about y by angles (q, 0), then about z by (q, 1); state (n, 2^q), qubit i the bit of 2^i."""
    q = len(angles)
    for i in range(q):
        parts = state.reshape(len(state), 1 << (q - 1 - i), 2, 1 << i)
        c, s = (angles[i, 0] / 2).cos(), (angles[i, 0] / 2).sin()
        phase = torch.polar(torch.ones_like(angles[i, 1]), angles[i, 1] / 2)
        zero, one = parts[:, :, 0], parts[:, :, 1]
        state = torch.stack([(c * zero - s * one) * phase.conj(), (s * zero + c * one) * phase], 2).flatten(1)
    return state


def signs(qubits: int) -> tuple[Tensor, Tensor]:
    """Signs (2^q,) of controlled gates between neighbours in a ring, and of the parity of all bits."""
    bits = torch.arange(1 << qubits)[:, None] >> torch.arange(qubits) & 1
    ring = [(i, (i + 1) % qubits) for i in range(qubits if qubits > 2 else 1)]
    crossed = sum((bits[:, i] * bits[:, j] for i, j in ring), torch.zeros(1 << qubits, dtype=torch.int64))
    return 1.0 - 2 * (crossed % 2).double(), 1.0 - 2 * (bits.sum(1) % 2).double()


class Variational(nn.Module):
    """Layers of rotations and signs, and the mean of the parity behind them, with a slope and an offset."""

    def __init__(self, qubits: int, layers: int, generator: torch.Generator) -> None:
        super().__init__()
        drawn = 2 * torch.pi * torch.rand(layers + 1, qubits, 2, generator=generator, dtype=torch.float64)
        self.angles, self.line = nn.Parameter(drawn), nn.Parameter(torch.tensor([1.0, 0.0], dtype=torch.float64))
        self.crossed, self.parity = signs(qubits)

    def forward(self, state: Tensor) -> Tensor:
        for layer in self.angles[:-1]:
            state = turned(state, layer) * self.crossed
        state = turned(state, self.angles[-1])
        found: Tensor = self.line[0] * (state.abs().square() @ self.parity) + self.line[1]
        return found


def plain(x: Tensor) -> Tensor:
    """Each qubit turned by its coordinate, from zeros."""
    state = torch.ones(len(x), 1, dtype=torch.complex128)
    for i in range(x.shape[1]):
        both = torch.stack([(x[:, i] / 2).cos(), (x[:, i] / 2).sin()], 1).to(state.dtype)
        state = (both[:, :, None] * state[:, None]).flatten(1)
    return state


def trained(state: Tensor, labels: np.ndarray, qubits: int, layers: int, seed: int) -> Variational:
    net = Variational(qubits, layers, torch.Generator().manual_seed(seed))
    optimizer, goal = torch.optim.Adam(net.parameters(), RATE), torch.from_numpy(labels).double()
    for _ in range(STEPS):
        optimizer.zero_grad()
        nn.functional.binary_cross_entropy_with_logits(net(state), goal).backward()
        optimizer.step()
    return net


def classes() -> Iterator[Found]:
    rng = np.random.default_rng(1)
    sets = {("breast cancer", q): cancer(q) for q in (2, 4)}
    sets["ad hoc", 2] = (*adhoc(rng, 200), *adhoc(rng, 400))
    maps: dict[str, Callable[[Tensor], Tensor]] = {"the paper's map": zz_states, "angles": plain}
    for (name, q), (x, labels, new, answers) in sets.items():
        for arm, written in maps.items():
            states, others = written(torch.from_numpy(x)), written(torch.from_numpy(new))
            for layers in (1, 4):
                scores, fits, begun = [], [], time.process_time()
                for seed in range(SEEDS):
                    net = trained(states, labels, q, layers, seed)
                    with torch.no_grad():
                        scores.append(float(((net(others) > 0).numpy() == answers).mean()))
                        fits.append(float(((net(states) > 0).numpy() == labels).mean()))
                seconds = (time.process_time() - begun) / SEEDS
                what = {"part": "variational", "method": "quantum-kernel", "data": name, "qubits": q, "layers": layers}
                found = {"accuracy": float(np.mean(scores)), "least": min(scores), "fitted": float(np.mean(fits))}
                yield {**what, "arm": arm, "seeds": SEEDS}, found | {"cpu_seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_option(parser)
    rows = Rows("kernels.variational", parser.parse_args().json)
    for what, found in classes():
        print(what, found, flush=True)
        rows.add(what, found)


if __name__ == "__main__":
    main()
