"""Sequences by kernels: what they say of peptides and of genes of influenza, what is definite, and seconds.

pip install scikit-learn modlamp==4.3.3
apt-get download r-cran-adegenet && dpkg-deb -x r-cran-adegenet_*.deb root
python -m benchmarks.kernels.sequences --adegenet root/usr/lib/R/site-library/adegenet/files
"""

from __future__ import annotations

import argparse
import csv
import time
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.metrics import f1_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC

from benchmarks.common.rows import Rows, add_option
from eckart.kernels.pcd2vec import SequenceEmbedding, SequenceKernel

Found = tuple[dict[str, Any], dict[str, Any]]
NAME = "pcd2vec"
WIDTHS = (0.3, 1.0, 3.0)
"""By the median of the distances that are not zero."""


def macro(y: np.ndarray, said: np.ndarray) -> dict[str, float]:
    return {"f1": float(f1_score(y, said, average="macro")), "accuracy": float(np.mean(y == said))}


def peptides() -> Iterator[Found]:
    """5200 peptides, half of them against microbes: five folds, words of three letters."""
    spec = find_spec("modlamp")
    assert spec is not None
    assert spec.submodule_search_locations
    lines = Path(spec.submodule_search_locations[0], "data", "AMPvsUniProt.csv").read_text("utf-8").splitlines()[1:]
    x = [line.split(",")[0].strip() for line in lines]
    y = np.array([int(line.split(",")[1]) for line in lines])
    keep = [i for i, s in enumerate(x) if len(s) >= 3]
    x, y = [x[i] for i in keep], y[keep]
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    words = CountVectorizer(analyzer="char", ngram_range=(3, 3), lowercase=False)

    def embedded(landmarks: int) -> Any:
        kernel = SequenceKernel("kmer", 0.5)
        return make_pipeline(
            SequenceEmbedding(kernel, 200, n_landmarks=landmarks), StandardScaler(), SVC(C=3, gamma="scale")
        )

    arms = {
        "words, linear": make_pipeline(words, LinearSVC(C=0.1)),
        "300 landmarks": embedded(300),
        "1000 landmarks": embedded(1000),
    }
    for arm, model in arms.items():
        start = time.process_time()
        said = cross_val_predict(model, np.array(x, dtype=object), y, cv=folds)
        seconds = time.process_time() - start
        yield {"part": "peptides", "method": NAME, "arm": arm, "n": len(x)}, macro(y, said) | {"seconds": seconds}


def genes(folder: Path) -> Iterator[Found]:
    """433 aligned genes of the influenza of 2009: from where, by their distances, and what kernels are definite."""
    entries = [entry.split() for entry in (folder / "pdH1N1-HA.fasta").read_text().split(">")[1:]]
    found = {name: "".join(rest).lower() for name, *rest in entries}
    with (folder / "pdH1N1-data.csv").open() as file:
        places = {row["HA-acc-nb"]: float(row["longitude"]) for row in csv.DictReader(file) if row["longitude"] != "NA"}
    names = [name for name in found if name in places]
    x = [found[name] for name in names]
    y = np.digitize([places[name] for name in names], [-30.0, 60.0])
    p = SequenceKernel().differ(x)
    d = -np.log1p(-p)
    upper = np.triu_indices(len(p), 1)
    what = {"part": "genes", "method": NAME, "n": len(x)}
    yield (
        what | {"arm": "distances"},
        {"largest": float(p.max()), "correlation": float(np.corrcoef(p[upper], d[upper])[0, 1])},
    )
    yield what | {"arm": "most frequent"}, macro(y, np.full(len(y), np.bincount(y).argmax()))
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    nearest = KNeighborsClassifier(1, metric="precomputed")
    yield what | {"arm": "nearest by p"}, macro(y, cross_val_predict(nearest, p, y, cv=folds))
    for distance, apart in (("poisson", d), ("hamming", p)):
        scores, least = [], 0.0
        for factor in WIDTHS:
            k = SequenceKernel(distance, factor * float(np.median(apart[apart > 0])))(x)  # type: ignore[arg-type]
            said = cross_val_predict(SVC(C=10, kernel="precomputed"), k, y, cv=folds)
            scores.append(macro(y, said))
            least = min(least, float(np.linalg.eigvalsh(k)[0]))
        best = max(scores, key=lambda each: each["f1"])
        yield what | {"arm": distance}, best | {"least eigenvalue": least, "worst": min(s["f1"] for s in scores)}


def definite() -> Iterator[Found]:
    """Least eigenvalues on 200 random sequences of 12 letters of four kinds."""
    rng = np.random.default_rng(1)
    x = ["".join(rng.choice(list("ACGT"), 12)) for _ in range(200)]
    for distance, width in (("poisson", 1.0), ("hamming", 1.0), ("hamming", 0.1)):
        values = np.linalg.eigvalsh(SequenceKernel(distance, width)(x))  # type: ignore[arg-type]
        what = {"part": "definite", "method": NAME, "distance": distance, "width": width, "n": 200, "seed": 1}
        yield what, {"least": float(values[0]), "negative": float(np.maximum(-values, 0).sum() / np.abs(values).sum())}


def speed() -> Iterator[Found]:
    """The matrix of 5000 sequences of 300 letters of 20 kinds, processor seconds."""
    rng = np.random.default_rng(0)
    x = ["".join(row) for row in rng.choice(list("ACDEFGHIKLMNPQRSTVWY"), (5000, 300))]
    start = time.process_time()
    SequenceKernel("hamming", 0.5)(x)
    seconds = time.process_time() - start
    yield {"part": "speed", "method": NAME, "n": 5000, "letters": 300, "kinds": 20}, {"seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", metavar="PART", help="of the parts; all where it is left out")
    parser.add_argument("--adegenet", type=Path, metavar="DIR", help="where its files lie")
    add_option(parser)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    rows = Rows("kernels.sequences", options.json)
    parts = {
        "definite": definite,
        "speed": speed,
        "genes": lambda: genes(options.adegenet),
        "peptides": peptides,
    }
    for name in options.only or parts:
        for what, found in parts[name]():
            rows.add(what, found)
            print({k: v for k, v in what.items() if k not in ("part", "method")}, found, flush=True)


if __name__ == "__main__":
    main()
