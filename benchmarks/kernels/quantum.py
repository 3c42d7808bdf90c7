"""Quantum kernels: the same numbers as qiskit and how long they take, and what they predict beside a Gaussian kernel.

    pip install qiskit qiskit-machine-learning
    OMP_NUM_THREADS=1 python -m benchmarks.kernels.quantum --json benchmarks/results/kernels.jsonl

Breast cancer is scikit-learn's, its first principal components divided by their deviations. "ad hoc" points of two
qubits are labelled by the sign of an observable of the paper's own states, where it is beyond 0.3. Ridge, bandwidth
and width are those of the least error left out. Seconds are of the processor, on a machine that others used too.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer
from sklearn.decomposition import PCA

from benchmarks.common.kernel_ridge import classified
from benchmarks.common.rows import Rows, add_option
from benchmarks.common.seeds import medians
from eckart.kernels.quantum_kernel import QuantumKernel, measured, zz_states
from eckart.kernels.rbf import RBF

Found = tuple[dict[str, Any], dict[str, Any]]
SPLITS = 5
BANDWIDTHS = (0.02, 0.05, 0.1, 0.2, 0.4)
WIDTHS = (0.35, 0.5, 0.7, 1.0, 1.4, 2.0)


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    begun = time.process_time()
    found = call()
    return found, time.process_time() - begun


def peers() -> Iterator[Found]:
    """The Gram matrix of 60 points by eckart and qiskit, and the seconds of each."""
    from qiskit.circuit.library import zz_feature_map
    from qiskit.quantum_info import Statevector

    for q in (4, 8):
        x = np.random.default_rng(q).uniform(0, 2 * np.pi, (60, q))
        kernel = QuantumKernel()
        kernel(x[:2])
        ours, seconds = timed(lambda kernel=kernel, x=x: kernel(x))
        circuit = zz_feature_map(q, reps=2)

        def theirs(x: np.ndarray = x, circuit: Any = circuit) -> np.ndarray:
            states = np.stack([Statevector(circuit.assign_parameters(row)).data for row in x])
            return np.asarray(np.abs(states.conj() @ states.T) ** 2)

        gram, other = timed(theirs)
        first = Statevector(circuit.assign_parameters(x[0])).data
        what = {"part": "peers", "method": "quantum-kernel", "qubits": q, "points": 60}
        yield (
            {**what, "arm": "eckart"},
            {
                "cpu_seconds": seconds,
                "states_apart": float(np.abs(zz_states(torch.from_numpy(x[:1]))[0].numpy() - first).max()),
                "apart": float(np.abs(ours - gram).max()),
            },
        )
        yield {**what, "arm": "qiskit's Statevector, a state a point"}, {"cpu_seconds": other}
        try:
            from qiskit_machine_learning.kernels import FidelityQuantumKernel
        except ImportError as missing:
            print("no qiskit-machine-learning:", missing)
            continue
        few = FidelityQuantumKernel(feature_map=circuit)
        _, seconds = timed(lambda few=few, x=x: few.evaluate(x[:4]))
        yield (
            {**what, "arm": "qiskit's FidelityQuantumKernel, a circuit a pair, six pairs extrapolated"},
            {"cpu_seconds": seconds / 6 * (60 * 59 / 2)},
        )


def adhoc(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Points (count, 2) and classes 0 and 1: the sign of a parity turned by a fixed random unitary, beyond 0.3."""
    turn = np.linalg.qr(np.random.default_rng(5).standard_normal((4, 4, 2)).view(complex)[..., 0])[0]
    observable = turn.conj().T @ np.diag([1, -1, -1, 1]) @ turn
    x = rng.uniform(0, 2 * np.pi, (20 * count, 2))
    states = zz_states(torch.from_numpy(x)).numpy()
    value = np.einsum("ni,ij,nj->n", states.conj(), observable, states).real
    kept = np.flatnonzero(np.abs(value) > 0.3)[:count]
    return x[kept], (value[kept] > 0).astype(int)


def cancer(qubits: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """300 cases and their classes, the other 269 and theirs, by their first principal components."""
    data = load_breast_cancer()
    order = np.random.default_rng(seed).permutation(len(data.data))
    table, y = data.data[order], data.target[order]
    table = (table - table[:300].mean(0)) / table[:300].std(0)
    parts = PCA(10, random_state=0).fit(table[:300]).transform(table)
    parts = (parts / parts[:300].std(0))[:, :qubits]
    return parts[:300], y[:300], parts[300:], y[300:]


def classes() -> Iterator[Found]:
    """Accuracy behind the same ridge regression, and how far apart states are; medians of splits."""
    yield from medians(splits())


def splits() -> Iterator[Found]:
    """The same of each split; also the median over bandwidths, and over widths, where none is chosen."""
    sets = [("breast cancer", q, seed) for seed in range(SPLITS) for q in (2, 4, 8, 10)]
    for name, q, seed in [*sets, *(("ad hoc", 2, seed) for seed in range(SPLITS))]:
        rng = np.random.default_rng(1 + seed)
        x, labels, new, answers = cancer(q, seed) if name == "breast cancer" else (*adhoc(rng, 200), *adhoc(rng, 400))
        far = float(np.median(np.linalg.norm(x[:, None] - x[None], axis=2)))
        best: dict[str, Any] = {f"{c}": QuantumKernel(c) for c in BANDWIDTHS}
        arms: dict[str, dict[str, Any]] = {
            "as published, c = 1": {"1": QuantumKernel()},
            "the best bandwidth": {**best, "1": QuantumKernel()},
            "Gaussian, the best width": {f"{c}": RBF(far * c) for c in WIDTHS},
        }
        upper = np.triu_indices(len(x), 1)
        for arm, kernels in arms.items():
            taken, said = classified(kernels.items(), x, labels, new)
            what = {"part": "classes", "method": "quantum-kernel", "data": name, "qubits": q}
            what |= {"train": len(x), "test": len(new), "seed": seed}
            mean = float(kernels[taken](x)[upper].mean())
            yield what | {"arm": arm}, {"accuracy": float((said == answers).mean()), "overlap": mean}
            if len(kernels) > 1:
                each = [float((classified([one], x, labels, new)[1] == answers).mean()) for one in kernels.items()]
                yield (
                    what | {"arm": arm.replace("the best", "the median over") + "s"},
                    {"accuracy": float(np.median(each))},
                )


def shots() -> Iterator[Found]:
    """What shots make of the Gram matrix of 100 points of four qubits: errors, and how indefinite it is."""
    x = np.random.default_rng(2).standard_normal((100, 4))
    k = QuantumKernel(0.2)(x)
    for count in (100, 1000, 10000):
        found = measured(k, count, generator=0)
        values = np.linalg.eigvalsh(found)
        what = {"part": "shots", "method": "quantum-kernel", "shots": count, "qubits": 4, "points": 100}
        off = {"error": float(np.sqrt(np.square(found - k).mean())), "smallest": float(values[0])}
        yield what, off | {"negative": float((values < 0).mean())}


PARTS: dict[str, Callable[[], Iterator[Found]]] = {"peers": peers, "classes": classes, "shots": shots}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=PARTS, action="append", help="all parts where it is left out")
    add_option(parser)
    options = parser.parse_args()
    rows = Rows("kernels.quantum", options.json)
    for part in options.only or PARTS:
        for what, found in PARTS[part]():
            print(what, found, flush=True)
            rows.add(what, found)


if __name__ == "__main__":
    main()
