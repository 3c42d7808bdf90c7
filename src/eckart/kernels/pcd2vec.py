"""Sequences by the share of positions in which they differ, or by the words in them, and their principal components."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from eckart.arrays import Dense
from eckart.errors import Refused
from eckart.kernels._kernel import Kernel
from eckart.kernels._parameters import log_parameter, plain
from eckart.kernels.contract import Example, kernel
from eckart.linalg.rejection_cholesky import rejection_cholesky
from eckart.scikit.base import Estimator, at_least_one
from eckart.scikit.door import check_is_fitted

BLOCK = 2**24
"""Letters that are compared at once."""


def poisson_correction(p: Tensor) -> Tensor:
    """d = -ln(1 - p) of a share p of positions that differ; Inf where all do."""
    return -torch.log1p(-p)


def matches(x: Tensor, z: Tensor, gap: int | None = None) -> tuple[Tensor, Tensor]:
    """How many positions agree, and how many are compared, (n, m) each, of codes (n, L) and (m, L).

    For each letter a product of matrices of zeros and ones.

    Args:
        x: uint8.
        z: uint8.
        gap: code of what is not compared with anything; None where it is a letter as others.
    """
    n, length = x.shape
    same = torch.zeros(n, len(z), dtype=torch.float64)
    compared = torch.full((n, len(z)), float(length), dtype=torch.float64)
    letters = [int(a) for a in torch.unique(x) if gap is None or int(a) != gap]
    # Counts are below 2^24, which 32 bits hold exactly.
    for start in range(0, n, max(1, BLOCK // max(length, 1))):
        rows = slice(start, start + max(1, BLOCK // max(length, 1)))
        for a in letters:
            same[rows] += (x[rows] == a).float() @ (z == a).float().T
        if gap is not None:
            compared[rows] = ((x[rows] != gap).float() @ (z != gap).float().T).double()
    return same, compared


def words(sequences: Sequence[bytes], length: int) -> list[Dense]:
    """The words of that many letters in each sequence, as numbers, repeated as often as they come."""
    found = []
    for text in sequences:
        codes = np.frombuffer(text, np.uint8)
        if len(codes) < length:
            raise Refused(f"a sequence of {len(codes)} letters has no word of {length}: take a smaller `word`")
        windows = np.lib.stride_tricks.sliding_window_view(codes, length).astype(np.uint64)
        found.append(windows @ (np.uint64(256) ** np.arange(length, dtype=np.uint64)))
    return found


def cosines(x: list[Dense], z: list[Dense]) -> Tensor:
    """Cosines (n, m) of counts of words."""
    names, index = np.unique(np.concatenate([*x, *z]), return_inverse=True)
    ends = np.cumsum([0, *(len(each) for each in [*x, *z])])
    counts = sparse.csr_array((np.ones(len(index)), index, ends), shape=(len(ends) - 1, len(names)))
    counts.sum_duplicates()
    norms = np.sqrt(counts.multiply(counts).sum(1))
    unit = sparse.csr_array(sparse.diags_array(1 / norms) @ counts)
    found = (unit[: len(x)] @ unit[len(x) :].T).toarray()
    return torch.from_numpy(np.minimum(found, 1.0))


def _example(rng: np.random.Generator) -> Example:
    drawn = ["".join(rng.choice(list("ACGT"), 20, p=[0.4, 0.3, 0.2, 0.1])) for _ in range(16)]
    order = rng.permutation(20)
    return Example(
        SequenceKernel("hamming", 0.3), drawn[:12], drawn[12:], (lambda x: ["".join(s[i] for i in order) for s in x],)
    )


@kernel(
    "pcd2vec",
    paper="Ali, Sahoo and Patterson 2023, PCD2Vec, arXiv 2304.06731",
    gives="e^(-p / s), e^(-d^2 / 2 s^2) of d = -ln(1 - p), or e^((cos - 1) / s) of counts of words",
    takes="text, aligned but for words",
    example=_example,
)
class SequenceKernel(Kernel):
    """How alike two sequences are, by the share p of positions in which they differ or by their words.

    "poisson" is the paper's, e^(-d^2 / 2 s^2) of the Poisson-corrected distance d = -ln(1 - p). The paper has a proof
    that d is a metric, and it is none: AAAAA, BBAAA, BBBBA have d = 1.61 > 0.51 + 0.51. Its kernel is not positive
    semi-definite either: the smallest eigenvalue of 200 random sequences is below -0.5. "hamming", e^(-p / s), is a
    product of kernels of single positions and always is; where sequences are near each other, p = d but for p^2 / 2,
    and nothing tells them apart. "kmer" needs no alignment: e^((cos - 1) / s) of counts of words.

    With gaps="ignore" shares are of the positions at which neither has a gap, each pair its own, which is not positive
    semi-definite in general.

    Args:
        distance: "hamming", "poisson" or "kmer".
        width: s, positive.
        gaps: "count" a gap as a letter, or "ignore" it.
        word: letters of a word of "kmer", 1 to 8.
        gap: the letter that is a gap.

    Raises:
        Refused: sequences of several lengths, without letters, or with letters of more than a byte.
    """

    def __init__(
        self,
        distance: Literal["hamming", "poisson", "kmer"] = "hamming",
        width: float = 1.0,
        *,
        gaps: Literal["count", "ignore"] = "count",
        word: int = 3,
        gap: str = "-",
    ) -> None:
        super().__init__()
        if distance not in ("hamming", "poisson", "kmer") or gaps not in ("count", "ignore"):
            raise Refused(f"distance={distance!r}, gaps={gaps!r}: hamming, poisson or kmer; count or ignore")
        if not 1 <= word <= 8 or len(gap) != 1:
            raise Refused(f"word={word!r}, gap={gap!r}: 1 to 8 letters, and one")
        self.distance, self.gaps, self.word, self.gap = distance, gaps, word, gap
        self.log_width = log_parameter("SequenceKernel", "width", width)
        self.psd = distance == "kmer" or (distance == "hamming" and gaps == "count")

    def options(self) -> dict[str, Any]:
        width = plain(self.log_width.exp())
        return {"distance": self.distance, "width": width, "gaps": self.gaps, "word": self.word, "gap": self.gap}

    def _checked(self, x: Any) -> Any:
        listed = [x] if isinstance(x, str) else list(x)
        if not all(isinstance(each, str) and each for each in listed):
            wrong = next(each for each in listed if not (isinstance(each, str) and each))
            raise Refused(f"{wrong!r:.40} is no sequence of letters: hand in a list of text")
        try:
            coded = [each.encode("latin-1") for each in listed]
        except UnicodeEncodeError as error:
            raise Refused(f"a sequence has a letter that takes more than a byte: {error}") from error
        if self.distance == "kmer":
            return words(coded, self.word)
        lengths = {len(each) for each in coded}
        if len(lengths) > 1:
            raise Refused(
                f"sequences have {min(lengths)} to {max(lengths)} letters: align them first, or take distance='kmer'"
            )
        joined = np.frombuffer(b"".join(coded), np.uint8).copy()
        return torch.from_numpy(joined.reshape(len(coded), -1))

    def differ(self, x: Any, z: Any = None) -> Any:
        """p (n, m), the share of positions in which they differ; of "kmer" 1 - cos.

        Args:
            x: n sequences.
            z: m; x where it is None.
        """
        first = self._checked(x)
        return self._apart(first, first if z is None else self._checked(z)).numpy()

    def _apart(self, x: Any, z: Any) -> Tensor:
        if self.distance == "kmer":
            return 1 - cosines(x, z)
        same, compared = matches(x, z, ord(self.gap) if self.gaps == "ignore" else None)
        if not bool((compared > 0).all()):
            raise Refused("two sequences have no position in common where neither has a gap: take gaps='count'")
        return 1 - same / compared

    def _between(self, x: Any, z: Any) -> Tensor:
        apart, width = self._apart(x, z), self.log_width.exp()
        if self.distance == "poisson":
            return (poisson_correction(apart).square() / (-2 * width**2)).exp()
        return (-apart / width).exp()

    def _diagonal(self, x: Any) -> Tensor:
        return self.log_width.new_ones(len(x)) if self.distance == "kmer" else super()._diagonal(x)


class SequenceEmbedding(Estimator):
    """Sequences as points: kernel PCA from a few of them, which are all that new ones are compared with.

    Landmarks are drawn by randomly pivoted Cholesky, or evenly where the kernel is not positive semi-definite. Negative
    eigenvalues of their matrix are set to zero, and their share is told.

    Args:
        kernel: a `SequenceKernel`; None for "hamming" of width 1.
        n_components: of the points.
        n_landmarks: at most the sequences.
        random_state: a seed of the landmarks.

    Attributes:
        landmarks_: the sequences, a list.
        negative_: the sum of the negative eigenvalues by that of all sizes.
        projection_: (landmarks, n_components).
        mean_: (n_components,).
        variance_: of the components, falling, (n_components,).
    """

    def __init__(
        self, kernel: Kernel | None = None, n_components: int = 10, *, n_landmarks: int = 200, random_state: int = 0
    ) -> None:
        self.kernel = kernel
        self.n_components = n_components
        self.n_landmarks = n_landmarks
        self.random_state = random_state

    def fit(self, X: Sequence[str], y: Any = None) -> SequenceEmbedding:
        """Components of sequences X; itself."""
        at_least_one(n_components=self.n_components, n_landmarks=self.n_landmarks)
        listed = list(X)
        kernel = self._kernel()
        generator = torch.Generator().manual_seed(self.random_state)
        count = min(self.n_landmarks, len(listed))
        if kernel.psd:
            pivots = rejection_cholesky(
                torch.from_numpy(kernel.diag(listed)),
                lambda at, rows: torch.from_numpy(kernel([listed[i] for i in at.tolist()], listed[rows])),
                count,
                generator=generator,
            )
            chosen = pivots.index.tolist()
        else:
            chosen = torch.randperm(len(listed), generator=generator)[:count].tolist()
        self.landmarks_ = [listed[i] for i in chosen]
        values, vectors = np.linalg.eigh(kernel(self.landmarks_))
        self.negative_ = float(-np.minimum(values, 0).sum() / np.abs(values).sum())
        kept = values > len(values) * np.finfo(float).eps * values[-1]
        root = vectors[:, kept] / np.sqrt(values[kept])
        features = kernel(listed, self.landmarks_) @ root
        mean = features.mean(0)
        _, sizes, axes = np.linalg.svd(features - mean, full_matrices=False)
        k = min(self.n_components, len(sizes))
        self.variance_ = sizes[:k] ** 2 / len(listed)
        self.projection_ = root @ axes[:k].T
        self.mean_ = mean @ axes[:k].T
        return self

    def transform(self, X: Sequence[str]) -> Dense:
        """Points (n, n_components) of sequences."""
        check_is_fitted(self)
        found: Dense = self._kernel()(list(X), self.landmarks_) @ self.projection_ - self.mean_
        return found

    def fit_transform(self, X: Sequence[str], y: Any = None) -> Dense:
        """`fit`, and the points of what was fitted."""
        return self.fit(X).transform(X)

    def _kernel(self) -> Kernel:
        return SequenceKernel() if self.kernel is None else self.kernel
