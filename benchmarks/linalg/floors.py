"""Linear algebra and estimators beside the programs that people have for it: seconds and errors in one run.

    pip install 'eckart[data]' tensorly cola-ml networkx
    OMP_NUM_THREADS=1 python -m benchmarks.linalg.floors [--part PART] --json benchmarks/results/estimators.jsonl

Processor seconds of one thread, the least of some rounds in which the arms take turns. "as published" is the method of
multipliers of Candès, Li, Ma and Wright 2011 (arXiv 0912.3599, algorithm 1) from its text: mu is constant and each step
takes a whole SVD.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import scipy.linalg
import torch
from scipy import sparse

from benchmarks.common.rows import Rows, add_option
from benchmarks.estimators.draws import Found, relative, timed
from eckart import linalg
from eckart.estimators.cp import outer_products
from eckart.estimators.rpca_ialm import principal_component_pursuit
from eckart.estimators.tucker import core_and_bases
from eckart.kernels import Nystroem
from eckart.linalg.cp import descend
from eckart.linalg.pivoted_qr import cqrrpt
from eckart.linalg.resistances import effective_resistance
from eckart.linalg.tall_svd import tall_svd
from eckart.structures import Dense, Kronecker, kronecker_sum

LONG = 1.0
"""Seconds from which on an arm has one round."""
Arm = Callable[[], Any]


def beside(
    task: str, size: str, peer: str, ours: Arm, theirs: Arm, error: Callable[[Any], float], rounds: int
) -> Found:
    """Seconds of both, each with its error."""
    seconds: dict[str, list[float]] = {"ours": [], "theirs": []}
    found: dict[str, Any] = {}
    for at in range(rounds):
        for name, arm in (("ours", ours), ("theirs", theirs)):
            if at and min(seconds[name]) > LONG:
                continue
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found[name], spent = timed(arm)
            seconds[name].append(spent)
    quick, slow = min(seconds["ours"]), min(seconds["theirs"])
    what = {"part": "floors", "task": task, "size": size, "peer": peer, "rounds": rounds}
    errors = {"error": error(found["ours"]), "peer_error": error(found["theirs"])}
    return what, {"seconds": quick, "peer_seconds": slow, "times": slow / quick, **errors}


def definite(n: int, rng: np.random.Generator) -> np.ndarray:
    x = rng.standard_normal((n, 2 * n))
    return x @ x.T / n


def kronecker(rounds: int) -> Iterator[Found]:
    """(A kron B + I / 2) x = b and A kron I + I kron B, and the logarithm of the first one's determinant."""
    import cola

    for n in (32, 60):
        rng = np.random.default_rng(n)
        a, b, y = definite(n, rng), definite(n, rng), rng.standard_normal(n * n)
        left, right, rhs = (torch.from_numpy(each) for each in (a, b, y))
        product, total = Kronecker(left, right), kronecker_sum(Dense(left), Dense(right))
        dense = [cola.ops.Dense(each) for each in (left, right)]
        half = cola.ops.ScalarMul(0.5, (n * n, n * n), left.dtype, left.device)
        theirs = cola.PSD(cola.ops.Sum(cola.ops.Kronecker(*dense), half))
        summed = cola.PSD(cola.ops.KronSum(*dense))
        size = f"{n}^2"
        yield beside(
            "A kron B + I / 2, solved", size, "CoLA",
            lambda p=product, r=rhs: linalg.solve(p, r, shift=0.5),
            lambda t=theirs, r=rhs: cola.linalg.inv(t, cola.linalg.CG(tol=1e-6)) @ r,
            lambda x, p=product, r=rhs: float((p(x) + 0.5 * x - r).norm() / r.norm()),
            rounds,
        )  # fmt: skip
        yield beside(
            "A kron I + I kron B, solved", size, "CoLA",
            lambda t=total, r=rhs: linalg.solve(t, r),
            lambda s=summed, r=rhs: cola.linalg.inv(s, cola.linalg.CG(tol=1e-6)) @ r,
            lambda x, t=total, r=rhs: float((t(x) - r).norm() / r.norm()),
            rounds,
        )  # fmt: skip
        if n == 32:
            values = np.outer(np.linalg.eigvalsh(a), np.linalg.eigvalsh(b)) + 0.5
            exact = float(np.log(values).sum())
            yield beside(
                "log det (A kron B + I / 2)", size, "CoLA, Cholesky",
                lambda p=product: linalg.logdet(p, shift=0.5),
                lambda t=theirs: cola.linalg.logdet(t, cola.linalg.Cholesky(), cola.linalg.Exact()),
                lambda x, e=exact: abs(float(x) - e) / abs(e),
                rounds,
            )  # fmt: skip


def orthogonal(rounds: int) -> Iterator[Found]:
    """QR with pivots of tall matrices of condition 1e6, and the exact SVD of rank 20 in noise."""
    rng = np.random.default_rng(0)
    for n, p in ((50_000, 150), (100_000, 150), (20_000, 300), (4000, 1000)):
        x = rng.standard_normal((n, p)) * np.geomspace(1, 1e-6, p)

        def ours(x: Any = x) -> Any:
            found = cqrrpt(x, generator=0)
            return found.q, found.r, found.order

        yield beside(
            "QR with pivots", f"{n} x {p}", "SciPy",
            ours, lambda x=x: scipy.linalg.qr(x, mode="economic", pivoting=True),
            lambda f, x=x: max(
                relative(f[0] @ f[1], x[:, f[2]]), float(np.abs(f[0].T @ f[0] - np.eye(len(f[1]))).max())
            ),
            rounds,
        )  # fmt: skip
    from sklearn.utils.extmath import randomized_svd

    n, p, rank = 30_000, 400, 20
    low = rng.standard_normal((n, rank)) * np.geomspace(1, 0.1, rank) @ rng.standard_normal((rank, p))
    x = low + 0.05 * rng.standard_normal((n, p))
    truth = np.linalg.eigvalsh(x.T @ x)[::-1][:rank] ** 0.5
    yield beside(
        "20 singular triplets", f"{n} x {p}", "scikit-learn, randomized",
        lambda: tall_svd(x, rank).values, lambda: randomized_svd(x, rank, random_state=0)[1],
        lambda s: float(np.abs(s - truth).max() / truth[0]),
        rounds,
    )  # fmt: skip


def landmarks(rounds: int) -> Iterator[Found]:
    """Features of the Gaussian kernel of 20,000 rows, 1 % of them far off: what 500 landmarks leave of the trace."""
    from sklearn.kernel_approximation import Nystroem as Peer

    rng = np.random.default_rng(0)
    x = np.vstack([0.5 * rng.standard_normal((19_800, 3)), 10 * rng.standard_normal((200, 3))])
    for count in (500, 300):
        yield beside(
            f"{count} landmarks", "20000 rows", "scikit-learn, 500 uniform ones",
            lambda k=count: Nystroem(gamma=2.0, n_components=k, random_state=0).fit_transform(x),
            lambda: Peer(gamma=2.0, n_components=500, random_state=0).fit_transform(x),
            lambda phi: float(1 - np.square(phi).sum() / len(x)),
            rounds,
        )  # fmt: skip


def resistances(rounds: int) -> Iterator[Found]:
    """All edges of a graph drawn at random, by projections."""
    import networkx

    for n, tolerances in ((1500, (1.0, 0.5)), (2500, (1.0, None)), (5000, (1.0,))):
        m = 10 * n
        graph = networkx.gnm_random_graph(n, m, seed=0)
        a = sparse.csr_array(networkx.to_scipy_sparse_array(graph, nodelist=range(n), dtype=float))
        u, v = (np.array(end) for end in zip(*graph.edges, strict=True))
        laplacian = np.diag(a.sum(axis=1)) - a.toarray()
        inverse = np.linalg.inv(laplacian + 1 / n) - 1 / n
        truth = inverse[u, u] + inverse[v, v] - 2 * inverse[u, v]

        def theirs(laplacian: Any = laplacian, u: Any = u, v: Any = v) -> Any:
            found = np.linalg.pinv(laplacian, hermitian=True)
            return found[u, u] + found[v, v] - 2 * found[u, v]

        for rtol in tolerances:
            yield beside(
                f"resistances, {f'rtol {rtol}' if rtol else 'exact'}", f"{n} nodes, {m} edges",
                "pseudo-inverse, as NetworkX",
                lambda r=rtol, a=a, u=u, v=v: effective_resistance(a, u, v, rtol=r, generator=0), theirs,
                lambda r, t=truth: float(np.median(np.abs(r - t) / t)),
                rounds,
            )  # fmt: skip


def pursuit_as_published(
    m: np.ndarray, tolerance: float = 1e-7, steps: int = 1000
) -> tuple[np.ndarray, np.ndarray, int]:
    """L, S and the steps it took: mu = rows columns / (4 |M|_1), whole SVDs."""
    penalty, mu = 1 / np.sqrt(max(m.shape)), m.size / (4 * np.abs(m).sum())
    s, y = np.zeros_like(m), np.zeros_like(m)
    for step in range(1, steps + 1):
        left, values, right = np.linalg.svd(m - s + y / mu, full_matrices=False)
        low = (left * np.maximum(values - 1 / mu, 0)) @ right
        t = m - low + y / mu
        s = np.sign(t) * np.maximum(np.abs(t) - penalty / mu, 0)
        y = y + mu * (m - low - s)
        if np.linalg.norm(m - low - s) <= tolerance * np.linalg.norm(m):
            return low, s, step
    return low, s, steps


def pursuit(rounds: int) -> Iterator[Found]:
    """Rank 10 under 5 % of large entries."""
    for n in (300, 600, 800):
        rng = np.random.default_rng(0)
        low = rng.standard_normal((n, 10)) @ rng.standard_normal((10, n))
        m = low + np.where(rng.random((n, n)) < 0.05, rng.uniform(-50, 50, (n, n)), 0.0)
        steps = {}

        def ours(m: Any = m, steps: Any = steps) -> Any:
            found = principal_component_pursuit(m, generator=0)
            steps["steps"] = found.iterations
            return found.value[0].dense()

        def theirs(m: Any = m, steps: Any = steps) -> Any:
            found, _, steps["peer_steps"] = pursuit_as_published(m)
            return found

        what, found = beside(
            "robust PCA", f"{n} x {n}", "as published", ours, theirs, lambda x, t=low: relative(x, t), rounds
        )
        yield what, found | steps


def tensors(rounds: int) -> Iterator[Found]:
    """Tucker and CP of whole tensors, and CP where a tenth is missing, to each side's own end."""
    import tensorly
    from tensorly.decomposition import parafac, tucker

    def planted(shape: tuple[int, ...], rank: int, noise: float) -> tuple[np.ndarray, np.ndarray, np.random.Generator]:
        rng = np.random.default_rng(0)
        truth = tensorly.cp_to_tensor((None, [rng.standard_normal((n, rank)) for n in shape]))
        truth = truth / np.sqrt(np.mean(np.square(truth)))
        return truth, truth + noise * rng.standard_normal(shape), rng

    _, x, _ = planted((120,) * 3, 10, 0.01)
    yield beside(
        "Tucker, rank 10", "120^3", "tensorly",
        lambda: core_and_bases(x, 10, tolerance=1e-8).value.dense(),
        lambda: tensorly.tucker_to_tensor(tucker(x, [10] * 3, tol=1e-8)),
        lambda found: relative(found, x),
        rounds,
    )  # fmt: skip
    for shape in ((150,) * 3, (40,) * 4, (20,) * 5):
        _, x, rng = planted(shape, 5, 0.1)
        start = [rng.standard_normal((n, 10)) for n in shape]

        def ours(x: Any = x, start: Any = start) -> Any:
            begun = [torch.from_numpy(f) for f in start]
            return [f.numpy() for f in descend(torch.from_numpy(x), begun, 5, damping=0.0, gain=-np.inf).factors]

        def theirs(x: Any = x, start: Any = start) -> Any:
            begun = tensorly.cp_tensor.CPTensor((np.ones(10), [f.copy() for f in start]))
            found = parafac(x, 10, n_iter_max=5, init=begun, tol=1e-30)
            return [found[1][0] * found[0], *found[1][1:]]

        yield beside(
            "five sweeps of CP, rank 10", f"{shape[0]}^{len(shape)}", "tensorly", ours, theirs,
            lambda f, x=x: relative(tensorly.cp_to_tensor((None, f)), x),
            rounds,
        )  # fmt: skip
    for shape, rank in (((30, 25, 20), 3), ((100,) * 3, 5)):
        truth, x, rng = planted(shape, rank, 0.1)
        seen = rng.random(shape) >= 0.1
        gaps = np.where(seen, x, np.nan)

        def filled(x: Any = x, seen: Any = seen, rank: int = rank) -> Any:
            found = parafac(
                np.where(seen, x, 0), rank, mask=seen, init="random", random_state=0, tol=1e-8, n_iter_max=300
            )
            return tensorly.cp_to_tensor(found)

        yield beside(
            f"CP, rank {rank}, a tenth missing", " x ".join(map(str, shape)), "tensorly, filling in",
            lambda g=gaps, r=rank: outer_products(g, r, generator=0, max_iter=300).value.dense(), filled,
            lambda f, s=seen, t=truth: relative(f[~s], t[~s]),
            rounds,
        )  # fmt: skip


PARTS = {
    "kronecker": kronecker,
    "orthogonal": orthogonal,
    "landmarks": landmarks,
    "resistances": resistances,
    "pursuit": pursuit,
    "tensors": tensors,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", action="append", choices=PARTS, help="of the parts; all where it is left out")
    parser.add_argument("--rounds", type=int, default=3)
    add_option(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = Rows("linalg.floors", options.json)
    for name in options.part or PARTS:
        for what, found in PARTS[name](options.rounds):
            rows.add(what, found)
            print(what["task"], what["size"], found, flush=True)


if __name__ == "__main__":
    main()
