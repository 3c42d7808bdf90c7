"""The section of a package of Debian by what it needs and who needs it, from few that are known. No seconds.

    python -m benchmarks.sketching.sections --packages FILE [--only EMBEDDING ...] [--json FILE]

FILE is what `apt-cache dumpavail` prints on Debian 12. Nodes are all packages that need another one or are needed
(Depends, Pre-Depends, Recommends), hubs too. Some are known by their section, and logistic regression on an embedding
of 128 numbers says the sections of 10,000 others. Beside it: the section that is most common among a package's known
neighbours, and the most common one of all.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score

from benchmarks.common.rows import Rows, add_option
from benchmarks.sketching.choices import dependencies
from eckart.linalg.graphs import normalized
from eckart.sketching.fastrp import FastRP

KNOWN = (300, 1000, 3000, 10_000)
HUB = 300


def graph_of(file: Path) -> tuple[list[str], sparse.csr_array, np.ndarray, list[str]]:
    """Packages with an edge, their graph, the section of each as a number, and the names of sections."""
    names, sections, graph = dependencies(file, "Depends|Pre-Depends|Recommends")
    some = np.flatnonzero(np.diff(graph.indptr))
    kinds = sorted({sections[i] for i in some})
    labels = np.array([kinds.index(sections[i]) for i in some])
    return [names[i] for i in some], graph[some][:, some], labels, kinds


def without_hubs(graph: sparse.csr_array) -> sparse.csr_array:
    """The graph without the edges of nodes that have more than `HUB` of them."""
    kept = sparse.diags_array((np.diff(graph.indptr) <= HUB).astype(float))
    return sparse.csr_array(kept @ graph @ kept)


def vote(graph: sparse.csr_array, labels: np.ndarray, known: np.ndarray, asked: np.ndarray) -> Any:
    """The section of most known neighbours, the most common one where there are none."""
    share = np.bincount(labels[known], minlength=labels.max() + 1) / len(known)
    seen = sparse.csr_array((np.ones(len(known)), (known, labels[known])), shape=(len(labels), len(share)))
    return ((graph[asked] @ seen).toarray() + share / 2).argmax(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packages", type=Path, required=True)
    parser.add_argument("--only", action="append", metavar="EMBEDDING", help="those; all where it is left out")
    add_option(parser)
    options = parser.parse_args()
    rows = Rows("sketching.sections", options.json)
    _, graph, labels, kinds = graph_of(options.packages)
    order = np.random.default_rng(0).permutation(len(labels))
    asked, others = order[:10_000], order[10_000:]

    def add(arm: str, known: int, said: Any) -> None:
        what = {"method": "fastrp", "arm": arm, "known": known, "nodes": len(labels), "edges": graph.nnz // 2}
        what |= {"sections": len(kinds), "asked": len(asked)}
        truth = labels[asked]
        found = {"accuracy": float((said == truth).mean()), "f1": float(f1_score(truth, said, average="macro"))}
        rows.add(what, found)
        print(arm, known, found, flush=True)

    for known in () if options.only else KNOWN:
        add("the most common section", known, np.full(len(asked), np.bincount(labels[others[:known]]).argmax()))
        add("known neighbours' vote", known, vote(graph, labels, others[:known], asked))
    start = np.ones(len(labels))
    made = {
        "random products": lambda: FastRP(random_state=0).fit_transform(graph),
        "random products, no hubs": lambda: FastRP(random_state=0).fit_transform(without_hubs(graph)),
        "eigenvectors of the walk": lambda: (
            sparse.linalg.eigsh(normalized(graph, "symmetric"), 128, which="LA", v0=start, tol=1e-3)[1]
            * len(labels) ** 0.5
        ),
    }
    for arm in options.only or made:
        x = made[arm]()
        x = (x - x.mean(0)) / x.std(0).clip(1e-12)
        for known in KNOWN:
            model = LogisticRegression(max_iter=300).fit(x[others[:known]], labels[others[:known]])
            add(arm, known, model.predict(x[asked]))


if __name__ == "__main__":
    main()
