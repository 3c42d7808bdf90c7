"""Which items, rows, edges, nodes and coordinates a sketch keeps: the papers' rules beside simpler ones. No seconds.

    python -m benchmarks.sketching.choices [--only PART ...] [--peptides FILE] [--packages FILE]

`items` has the peptides of modlamp (pip install --no-deps modlamp; modlamp/data/AMPvsUniProt.csv), `nodes` and `pruned`
the packages of Debian 12 (apt-cache dumpavail > FILE): packages are nodes, edges join those that depend on each other,
and the section is what a node is. Digits and the photo are scikit-learn's.
"""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Callable, Iterator
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy import sparse
from scipy.optimize import minimize
from sklearn.datasets import load_digits, load_sample_image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score

from benchmarks.common.rows import Rows, add_option
from eckart.linalg.graphs import LaplacianSolver, normalized
from eckart.sketching.anncur import search_by_cur
from eckart.sketching.fastrp import node_embedding
from eckart.sketching.greedy_bcd import block_descent
from eckart.sketching.lp_sensitivity import lp_sample
from eckart.sketching.sketched_sqp import minimize_equality
from eckart.sketching.spectral_sparsifier import relative_condition, sparsify_graph
from eckart.sketching.streaming_eigenvector import top_eigenvector
from eckart.sketching.teddy import sparsify_edges

Found = tuple[dict[str, Any], dict[str, Any]]
"""What was measured, and what came out."""


def items(file: Path) -> Iterator[Found]:
    """Recall of the peptides most alike, by calls of the exact score; bigrams are the cheap first stage."""
    lines = file.read_text("utf-8").splitlines()[1:]
    words = list(dict.fromkeys(re.split(r"[,;]", line)[0].strip('"') for line in lines))
    rng = np.random.default_rng(0)
    words = [words[i] for i in rng.permutation(len(words))[:1900]]
    training, queries, stock = words[:200], words[200:260], words[300:]

    def alike(a: str, b: str) -> float:
        return SequenceMatcher(None, a, b, autojunk=False).ratio()

    known = np.array([[alike(a, b) for b in stock] for a in training])
    exact = np.array([[alike(a, b) for b in stock] for a in queries])
    pairs = sorted({w[i : i + 2] for w in words for i in range(len(w) - 1)})
    place = {pair: i for i, pair in enumerate(pairs)}

    def bigrams(many: list[str]) -> Any:
        table = np.zeros((len(many), len(pairs)))
        for row, word in enumerate(many):
            for i in range(len(word) - 1):
                table[row, place[word[i : i + 2]]] += 1
        return table / np.linalg.norm(table, axis=1, keepdims=True).clip(1e-12)

    cheap = bigrams(queries) @ bigrams(stock).T

    def recall(found: Any, k: int) -> float:
        best = np.argsort(-exact, axis=1)[:, :k]
        return float(np.mean([len(set(a[:k]) & set(b)) / k for a, b in zip(found, best, strict=True)]))

    for budget in (100, 300):
        first = np.argsort(-cheap, axis=1)[:, :budget]
        order = np.take_along_axis(exact, first, 1).argsort(axis=1)[:, ::-1]
        ranked = np.take_along_axis(first, order, 1)
        chance = np.array([rng.permutation(len(stock))[:budget] for _ in queries])
        chance = np.take_along_axis(chance, np.take_along_axis(exact, chance, 1).argsort(axis=1)[:, ::-1], 1)
        arms: dict[str, Callable[[int], Any]] = {
            "anchors by CUR": lambda k, b=budget: found_by(known, exact, k, b),
            "as published (1e-15)": lambda k, b=budget: found_by(known, exact, k, b, rcond=1e-15),
            "two rounds": lambda k, b=budget: found_by(known, exact, k, b, rounds=2),
            "bigrams, then exact": lambda k, r=ranked: r,
            "chance": lambda k, r=chance: r,
        }
        for arm, search in arms.items():
            what = {"part": "items", "method": "anncur", "arm": arm, "calls": budget, "items": len(stock)}
            yield what | {"queries": len(queries)}, {f"recall@{k}": recall(search(k), k) for k in (1, 10, 50)}


def found_by(known: Any, exact: Any, k: int, budget: int, **options: Any) -> Any:
    """Items by `search_by_cur`, of queries whose exact scores are looked up."""

    def scorer(query: int, at: Any) -> Any:
        return exact[query, at]

    return search_by_cur(known, scorer, len(exact), k=k, budget=budget, generator=0, **options).value


def streams(draws: int) -> Iterator[Found]:
    """1 - <v, v1>^2 of the top eigenvector from one pass in random order, by the rows that are held."""
    data = load_digits().data / 16
    planted = np.vstack([data, np.tile(100 * np.eye(64)[5], (4, 1))])
    for name, rows in (("digits", data), ("digits, centred", data - data.mean(0)), ("four long rows", planted)):
        top = np.linalg.svd(rows, full_matrices=False)[2][0]
        sizes = (("heavy-rows", 8), ("frequent-directions", 4), ("heavy-rows", 64), ("frequent-directions", 32))
        for method, memory in (*sizes, ("oja", 1)):
            errors = []
            for seed in range(draws):
                mixed = rows[np.random.default_rng(seed).permutation(len(rows))]
                if method == "oja":
                    v = best_of_oja(mixed, top, seed)
                else:
                    v = top_eigenvector(mixed, memory, method=method, generator=seed).value
                errors.append(1 - float(v @ top) ** 2)
            held = {"heavy-rows": memory + 1, "frequent-directions": 2 * memory, "oja": 1}[method]
            what = {"part": "stream", "method": "streaming-eigenvector", "arm": method, "rows": held, "data": name}
            found = {"median": float(np.median(errors)), "q90": float(np.quantile(errors, 0.9))}
            yield what | {"draws": draws}, found


def best_of_oja(rows: Any, top: Any, seed: int) -> Any:
    """Oja's rule at the best of four rates, chosen with the truth in hand."""
    found = []
    for rate in (0.01, 0.1, 1.0, 10.0):
        v = np.random.default_rng(seed).standard_normal(rows.shape[1])
        size = np.square(rows).sum(1).mean()
        for i, row in enumerate(rows):
            v = v + rate / size / (1 + 0.01 * i) * row * (row @ v)
            v /= np.linalg.norm(v)
        found.append(v)
    return max(found, key=lambda v: float(v @ top) ** 2)


def norms(draws: int) -> Iterator[Found]:
    """The worst error of |A x|_1 over 200 directions, 400 x 6 of heavy tails, by rows that are kept in the mean."""
    rng = np.random.default_rng(0)
    a = rng.standard_t(1.5, (400, 6))
    x = np.hstack([rng.standard_normal((6, 150)), np.linalg.pinv(a)[:, rng.integers(0, 400, 50)]])
    exact = np.abs(a @ x).sum(0)
    for count in (40, 100):
        for scores in ("lewis", "root-leverage", "sensitivity", "uniform"):
            worst = []
            for seed in range(draws):
                if scores == "uniform":
                    index = np.random.default_rng(seed).permutation(len(a))[:count]
                    sketched = np.abs(a[index] @ x).sum(0) * len(a) / count
                else:
                    kept = lp_sample(a, count, 1.0, scores=scores, generator=seed)
                    kept = getattr(kept, "value", kept)
                    sketched = np.abs(kept.weights[:, None] * (a[kept.index] @ x)).sum(0)
                worst.append(float(np.abs(sketched / exact - 1).max()))
            what = {"part": "norms", "method": "lp-sensitivity", "arm": scores, "rows": count, "draws": draws}
            yield what, {"median": float(np.median(worst)), "q90": float(np.quantile(worst, 0.9))}


def edges() -> Iterator[Found]:
    """Condition of L_H^+ L_G of a photo's grid, for H with as many edges."""
    photo = load_sample_image("china.jpg")[200:264:2, 300:364:2].mean(2) / 255
    n = 32
    index = np.arange(n * n).reshape(n, n)
    pairs = [(index[:, :-1], index[:, 1:]), (index[:-1], index[1:]), (index[:-1, :-1], index[1:, 1:])]
    pairs.append((index[:-1, 1:], index[1:, :-1]))
    u, v = (np.concatenate([each[i].ravel() for each in pairs]) for i in (0, 1))
    weight = np.exp(-10 * np.abs(photo.ravel()[u] - photo.ravel()[v]))
    graph = sparse.csr_array((np.r_[weight, weight], (np.r_[u, v], np.r_[v, u])), shape=(n * n, n * n))
    tree = sparse.csgraph.minimum_spanning_tree(graph.power(-1))
    tree = tree + tree.T
    in_tree = np.asarray(tree[u, v]).ravel() > 0
    for distortion in (10.0, 30.0):
        for seed in range(3):
            h = sparsify_graph(graph, distortion=distortion, generator=seed)
            h = getattr(h, "value", h)
            kept = h.nnz // 2 - int(in_tree.sum())
            rng = np.random.default_rng(seed)
            solver = LaplacianSolver(graph)
            resistance = np.zeros(len(u))
            for at in range(0, len(u), 512):
                b = np.zeros((n * n, len(u[at : at + 512])))
                b[u[at : at + 512], np.arange(b.shape[1])] = 1
                b[v[at : at + 512], np.arange(b.shape[1])] = -1
                x = solver(b)
                resistance[at : at + 512] = (b * x).sum(0)
            leverage = resistance * weight
            arms = {
                "walks": h,
                "tree and chance": with_tree(tree, u, v, weight, in_tree, rng.random(len(u)), kept),
                "tree and largest leverage": with_tree(tree, u, v, weight, in_tree, leverage, kept),
                "tree and largest weight": with_tree(tree, u, v, weight, in_tree, weight, kept),
            }
            for arm, each in arms.items():
                what = {"part": "edges", "method": "spectral-sparsifier", "arm": arm, "distortion": distortion}
                found = {"edges": each.nnz // 2, "of": len(u), "condition": relative_condition(graph, each)}
                yield what | {"seed": seed}, found


def with_tree(tree: Any, u: Any, v: Any, weight: Any, in_tree: Any, score: Any, count: int) -> Any:
    """The tree and the edges off it with the highest scores."""
    off = np.flatnonzero(~in_tree)
    kept = off[np.argsort(-score[off])[:count]]
    edges = (np.r_[weight[kept], weight[kept]], (np.r_[u[kept], v[kept]], np.r_[v[kept], u[kept]]))
    real = tree.copy()
    real.data = 1 / real.data
    return sparse.csr_array(real) + sparse.csr_array(edges, shape=tree.shape)


def blocks() -> Iterator[Found]:
    """Steps of a block to 1e-6: ridge on digits, whose coordinates are correlated, and on a graph, whose are not."""
    a = load_digits().data / 16
    a = a[:, a.std(0) > 0]
    ridge = a.T @ a + 1e-3 * np.eye(a.shape[1])
    n = 30
    line = sparse.diags_array([np.full(n - 1, -1.0), np.full(n, 2.0), np.full(n - 1, -1.0)], offsets=[-1, 0, 1])
    grid = (
        sparse.kron(line, sparse.eye_array(n)) + sparse.kron(sparse.eye_array(n), line) + 0.5 * sparse.eye_array(n * n)
    )
    rng = np.random.default_rng(0)
    spikes = np.zeros(n * n)
    spikes[rng.integers(0, n * n, 5)] = 1.0
    problems = {
        "digits": (ridge, a.T @ rng.standard_normal(len(a))),
        "grid, five spikes": (sparse.csr_array(grid), spikes),
    }
    for name, (h, b) in problems.items():
        for block in (5, 20):
            for rule in ("gs", "gsl", "gsd", "gsq", "aged", "cyclic", "random", "shuffled"):
                found = block_descent(h, b, block=block, selection=rule, tolerance=1e-6, iterations=20_000, generator=0)
                what = {"part": "blocks", "method": "greedy-bcd", "arm": rule, "problem": name, "block": block}
                yield what, {"steps": found.iterations, "converged": found.converged}
    h, b = problems["grid, five spikes"]
    arms: list[tuple[str, int]] = [("forest", len(b)), ("random", 460), ("cyclic", 450), ("shuffled", 450)]
    for rule, block in [*arms, ("random", 20), ("gsl", 20), ("gsq", 20), ("cyclic", 20)]:
        found = block_descent(h, b, block=block, selection=rule, tolerance=1e-6, iterations=20_000, generator=0)  # type: ignore[arg-type]
        what = {"part": "forests", "method": "greedy-bcd", "arm": rule, "block": found.calls // found.iterations}
        yield what, {"steps": found.iterations, "passes": found.calls / len(b)}


def constraints() -> Iterator[Found]:
    """Constrained logistic regression on digits: products with K, and scipy's SLSQP beside."""
    data = load_digits()
    x = torch.from_numpy(data.data / 16)
    x = x[:, x.std(0) > 0][:, ::2]
    y = torch.from_numpy((data.target > 4) * 2.0 - 1)
    rng = torch.Generator().manual_seed(0)
    g = torch.randn(5, x.shape[1], dtype=torch.float64, generator=rng)

    def loss(w: torch.Tensor) -> torch.Tensor:
        return F.softplus(-y * (x @ w)).mean() + 1e-3 * w.square().sum()

    def equal(w: torch.Tensor) -> torch.Tensor:
        return g @ w - 1.0

    start = np.zeros(x.shape[1])
    for inner in ("direct", "minres", "sketch"):
        found = minimize_equality(loss, equal, start, inner=inner, generator=0)
        what = {"part": "constraints", "method": "sketched-sqp", "arm": inner, "variables": len(start), "equations": 5}
        yield what, {"steps": found.iterations, "products": found.calls, "converged": found.converged}

    def value(w: Any) -> tuple[float, Any]:
        t = torch.from_numpy(w.copy()).requires_grad_()
        made = loss(t)
        made.backward()
        return float(made.detach()), t.grad.numpy()

    held = [{"type": "eq", "fun": lambda w: g.numpy() @ w - 1, "jac": lambda w: g.numpy()}]
    peer = minimize(value, start, jac=True, method="SLSQP", constraints=held, options={"ftol": 1e-12, "maxiter": 500})
    what = {"part": "constraints", "method": "sketched-sqp", "arm": "SLSQP (scipy)", "variables": len(start)}
    yield what | {"equations": 5}, {"steps": int(peer.nit), "products": int(peer.nfev), "converged": bool(peer.success)}


def dependencies(file: Path, needed: str = "Depends|Recommends") -> tuple[list[str], list[str], sparse.csr_array]:
    """Packages, the section of each, and who needs whom: edges in both directions, all of weight one.

    Args:
        file: what `apt-cache dumpavail` prints.
        needed: fields that name what a package needs, as a regular expression.
    """
    names: dict[str, int] = {}
    sections, needs = [], []
    for entry in file.read_text("utf-8", errors="replace").split("\n\n"):
        fields = re.findall(rf"^(Package|Section|{needed}): (.*)$", entry, re.M)
        field = dict(fields)
        if "Package" not in field or field["Package"] in names:
            continue
        names[field["Package"]] = len(names)
        sections.append(field.get("Section", "").split("/")[-1])
        text = ",".join(each for name, each in fields if name not in ("Package", "Section"))
        needs.append({re.split(r"[ (:|]", part.strip())[0] for part in text.split(",") if part.strip()})
    ends = [(i, names[other]) for i, each in enumerate(needs) for other in each if other in names and names[other] != i]
    u, v = np.array(sorted({(min(e), max(e)) for e in ends})).T
    n = len(names)
    graph = sparse.csr_array((np.ones(2 * len(u)), (np.r_[u, v], np.r_[v, u])), shape=(n, n))
    return list(names), sections, graph


def packages(file: Path) -> tuple[sparse.csr_array, np.ndarray]:
    """The graph of what depends on what, without hubs and loners, and the section of each package; the 20 largest."""
    _, sections, graph = dependencies(file)
    largest = {name for name, _ in Counter(sections).most_common(20)}
    labels = np.array([sorted(largest).index(s) if s in largest else -1 for s in sections])
    kept = (labels >= 0) & (np.diff(graph.indptr) <= 300)
    graph, labels = graph[kept][:, kept], labels[kept]
    some = np.diff(graph.indptr) > 0
    return graph[some][:, some], labels[some]


def nodes(file: Path) -> Iterator[Found]:
    """Sections of packages by logistic regression on embeddings of 128 numbers, 3000 known."""
    graph, labels = packages(file)
    order = np.random.default_rng(0).permutation(len(labels))
    train, test = order[:3000], order[3000:9000]

    def judged(x: Any) -> dict[str, float]:
        model = LogisticRegression(max_iter=300).fit(x[train], labels[train])
        said = model.predict(x[test])
        return {"accuracy": float((said == labels[test]).mean()), "f1": f1_score(labels[test], said, average="macro")}

    def spectral() -> Any:
        s = normalized(graph, "symmetric")
        return sparse.linalg.eigsh(s, 128, which="LA", v0=np.ones(len(labels)))[1] * len(labels) ** 0.5

    arms: dict[str, Callable[[], Any]] = {
        "beta 0, powers 3 and 4 (default)": lambda: node_embedding(graph, generator=0),
        "beta -0.5": lambda: node_embedding(graph, beta=-0.5, generator=0),
        "beta -1": lambda: node_embedding(graph, beta=-1.0, generator=0),
        "all powers": lambda: node_embedding(graph, weights=(1, 1, 1, 1), generator=0),
        "powers not normalised": lambda: node_embedding(graph, normalize=False, generator=0),
        "eigenvectors of the walk": spectral,
    }
    for arm, made in arms.items():
        x = made()
        x = (x - x.mean(0)) / x.std(0).clip(1e-12)
        what = {"part": "nodes", "method": "fastrp", "arm": arm, "nodes": len(labels), "edges": graph.nnz // 2}
        yield what, judged(x)


def pruned(file: Path, seeds: int) -> Iterator[Found]:
    """Sections by a graph network of two layers on a share of the edges."""
    graph, labels = packages(file)
    x = torch.from_numpy(node_embedding(graph, generator=0)).float()
    x = (x - x.mean(0)) / x.std(0).clamp_min(1e-6)
    y = torch.from_numpy(labels)
    classes = int(y.max()) + 1

    def accuracy(kept: sparse.csr_array, seed: int) -> float:
        s = sparse.csr_array(normalized(kept + sparse.eye_array(len(labels)), "symmetric"))
        a = torch.sparse_csr_tensor(s.indptr, s.indices, torch.from_numpy(s.data).float(), s.shape)
        order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))
        train, held, test = order[:3000], order[3000:4000], order[4000:]
        torch.manual_seed(seed)
        w1, w2 = (torch.nn.init.xavier_uniform_(torch.empty(*s)).requires_grad_() for s in ((128, 64), (64, classes)))
        optimizer = torch.optim.Adam([w1, w2], lr=0.01, weight_decay=5e-4)
        best, found = 0.0, 0.0
        for step in range(60):
            dropped = F.dropout(x, 0.5, training=True)
            out = a @ (F.relu(a @ (dropped @ w1)) @ w2)
            F.cross_entropy(out[train], y[train]).backward()
            optimizer.step()
            optimizer.zero_grad()
            if step % 5 == 4:
                with torch.no_grad():
                    said = (a @ (F.relu(a @ (x @ w1)) @ w2)).argmax(1)
                if (right := float((said[held] == y[held]).double().mean())) > best:
                    best, found = right, float((said[test] == y[test]).double().mean())
        return found

    def row(arm: str, keep: float, kept: Callable[[int], sparse.csr_array]) -> Found:
        scores = [accuracy(kept(seed), seed) for seed in range(seeds)]
        what = {"part": "pruned", "method": "teddy", "arm": arm, "keep": keep, "seeds": seeds, "nodes": len(labels)}
        return what, {"accuracy": float(np.mean(scores)), "spread": float(np.std(scores, ddof=1))}

    yield row("all edges", 1.0, lambda seed: graph)
    yield row("no edges", 0.0, lambda seed: sparse.csr_array(graph.shape))
    for keep in (0.8, 0.5, 0.2):
        for score in ("teddy", "degree", "random"):
            yield row(score, keep, lambda s, k=keep, by=score: sparsify_edges(graph, k, score=by, generator=s))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=5, help="of `pruned`")
    parser.add_argument("--peptides", type=Path, help="modlamp/data/AMPvsUniProt.csv")
    parser.add_argument("--packages", type=Path, help="what apt-cache dumpavail writes")
    parser.add_argument("--only", action="append", metavar="PART", help="of the parts; all where it is left out")
    add_option(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = Rows("sketching.choices", options.json)
    parts: dict[str, Callable[[], Iterator[Found]]] = {
        "stream": lambda: streams(options.draws),
        "norms": lambda: norms(options.draws),
        "edges": edges,
        "blocks": blocks,
        "constraints": constraints,
    }
    if options.peptides:
        parts["items"] = lambda: items(options.peptides)
    if options.packages:
        parts |= {"nodes": lambda: nodes(options.packages), "pruned": lambda: pruned(options.packages, options.seeds)}
    for name in options.only or parts:
        for what, found in parts[name]():
            rows.add(what, found)
            print({k: v for k, v in what.items() if k not in ("part", "draws")}, found, flush=True)


if __name__ == "__main__":
    main()
