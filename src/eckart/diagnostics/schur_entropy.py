"""Paired embeddings: what of the images' diversity the texts explain, and what is left (Schur-complement entropy)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from eckart.diagnostics.contract import Column, Numbers, Pairs, diagnostic
from eckart.errors import Refused
from eckart.linalg.spectrum import check, entropy


@dataclass(frozen=True)
class Schur:
    """The covariance of image features in two parts, C_II = unexplained + explained.

    Attributes:
        unexplained: S = C_II - C_IT C_TT^+ C_TI, (d, d): the Schur complement of C_TT in the joint covariance.
        explained: C_IT C_TT^+ C_TI, (d, d).
        map: C_IT C_TT^+, (d, e): the best linear map from the features of a text to those of its image.
        pairs: how many pairs it is from.
        text_rank: rank of C_TT. Where it comes near `pairs`, texts explain images by having as many numbers as there
            are pairs.
        shuffled: what `share` would be if the texts were shuffled, the mean over all orders. It is not 1: any texts
            explain the mean of the images, and `text_rank` numbers explain that many of `pairs` dimensions.
    """

    unexplained: Tensor
    explained: Tensor
    map: Tensor
    pairs: int
    text_rank: int
    shuffled: float

    @property
    def entropy_whole(self) -> float:
        """The entropy of C_II; for features of unit length its exponential is the Vendi score (Friedman 2023)."""
        return unscaled_entropy(self.unexplained + self.explained)

    @property
    def entropy(self) -> float:
        """The entropy of what is not explained, sum_i l_i ln(sum l / l_i), l eigenvalues of S (Ospanov et al. 2024)."""
        return unscaled_entropy(self.unexplained)

    @property
    def entropy_explained(self) -> float:
        """The entropy of what texts explain."""
        return unscaled_entropy(self.explained)

    @property
    def share(self) -> float:
        """The share of the trace of C_II that is not explained, in [0, 1]; 0 where images are zero."""
        rest, explained = max(0.0, float(self.unexplained.trace())), float(self.explained.trace())
        return rest / (rest + explained) if rest + explained > 0 else 0.0


def unscaled_entropy(covariance: Tensor) -> float:
    """sum_i l_i ln(t / l_i), l the eigenvalues and t their sum: t times the entropy of the scaled matrix, in nats."""
    values = torch.linalg.eigvalsh(covariance).clamp_min(0)
    return float(values.sum()) * entropy(values)


def schur(images: Tensor, texts: Tensor, *, chunk: int = 4096) -> Schur:
    """Splits the covariance of image features into what paired text features explain linearly, and the rest.

    Args:
        images: features (n, d); see `cosine_features` and `gaussian_features`.
        texts: features (n, e) of the texts that belong to them.
        chunk: pairs at a time.

    Raises:
        Refused: counts that differ, entries that are not finite, or no pairs.
    """
    check(images)
    check(texts)
    if len(images) != len(texts):
        raise Refused(f"{len(images)} images do not pair with {len(texts)} texts")
    parts = ((images[i : i + chunk], texts[i : i + chunk]) for i in range(0, len(images), chunk))
    return split_covariance(Pairs.gathered(parts))


def split_covariance(pairs: Pairs) -> Schur:
    """`schur` of the moments of features.

    C_TT is inverted on its range: with C_TT = Q diag(l) Q^T and A = diag(l)^(-1/2) Q^T C_TI the explained part is
    A^T A.
    """
    d, joint, mean = pairs.split, pairs.joint, pairs.mean
    image, cross, text = joint[:d, :d], joint[d:, :d], joint[d:, d:]
    values, vectors = torch.linalg.eigh(text)
    kept = values > values[-1] * len(values) * torch.finfo(torch.float64).eps
    q, root, rank = vectors[:, kept], values[kept].sqrt(), int(kept.sum())
    a = (q.T @ cross) / root[:, None]
    explained = a.T @ a
    shuffled = shuffled_share((q.T @ mean[d:]) / root, mean[:d], float(image.trace()), pairs.count)
    return Schur(image - explained, explained, (a.T / root) @ q.T, pairs.count, rank, shuffled)


def shuffled_share(text: Tensor, image: Tensor, trace: float, n: int) -> float:
    """The share that texts in a random order leave unexplained, in the mean over all orders.

    With P the projection of n numbers, one a pair, onto the columns of the text features, r its rank, c = 1^T P 1 / n
    the share of the constant in its range, and m = |mean image|^2 / tr C_II, the mean of P over the orders is
    c J + (r - c) / (n - 1) (1 - J), J = 1 1^T / n, so that m c + (1 - m) (r - c) / (n - 1) is explained.

    Args:
        text: the mean text in the basis in which C_TT is the identity, (r,); its squared length is c.
        image: the mean image (d,).
        trace: of C_II.
        n: pairs.
    """
    c = min(1.0, float(text.square().sum()))
    m = min(1.0, float(image.square().sum()) / trace) if trace > 0 else 0.0
    return max(0.0, 1 - m * c - (1 - m) * (len(text) - c) / max(1, n - 1))


def cosine_features(embeddings: Tensor) -> Tensor:
    """Embeddings (n, d) in unit length: the exact features of the cosine kernel.

    Raises:
        Refused: entries that are not finite, or an embedding that is zero.
    """
    check(embeddings)
    x = embeddings.double()
    largest = x.abs().amax(1, keepdim=True)
    if not (largest > 0).all():
        raise Refused(f"embedding {int(largest.squeeze(1).argmin())} is zero and has no direction")
    # Squares of what is divided by its largest entry neither overflow nor vanish.
    unit: Tensor = torch.nn.functional.normalize(x / largest, dim=1)
    return unit


def gaussian_features(embeddings: Tensor, bandwidth: float, *, frequencies: int = 512, seed: int = 0) -> Tensor:
    """Random Fourier features (n, 2 frequencies) of the kernel exp(-||x - y||^2 / (2 bandwidth^2)); unit length.

    cos(w x) and sin(w x) by sqrt(frequencies), w normal with deviation 1 / bandwidth (Rahimi and Recht 2007); products
    are off by about 1 / sqrt(frequencies).

    Raises:
        Refused: entries that are not finite, or a bandwidth that is not positive.
    """
    check(embeddings)
    if not 0 < bandwidth < math.inf or frequencies < 1:
        raise Refused(f"bandwidth={bandwidth} and frequencies={frequencies} must be positive")
    generator = torch.Generator().manual_seed(seed)
    w = torch.randn(embeddings.shape[1], frequencies, generator=generator, dtype=torch.float64) / bandwidth
    phase = embeddings.double() @ w.to(embeddings.device)
    return torch.cat([phase.cos(), phase.sin()], 1) / math.sqrt(frequencies)


def nullify(images: Tensor, prompt: Tensor, found: Schur) -> Tensor:
    """Image features without the direction in which a prompt shows: x - (x u) u, u along `found.map @ prompt`.

    The paper subtracts `found.map @ prompt` from the image of that prompt; from many images that is one shift of all,
    after which they differ by as much as before.

    Args:
        images: features (n, d).
        prompt: features of a text (e,).
        found: from pairs of the same features.

    Raises:
        Refused: the prompt lies outside of what the texts span, so that it has no direction.
    """
    u = found.map @ prompt.double()
    length = torch.linalg.vector_norm(u)
    if not length > 1e-12 * torch.linalg.vector_norm(prompt.double()) * torch.linalg.matrix_norm(found.map):
        raise Refused("the prompt has no direction among the images: it lies outside of what the texts span")
    u = u / length
    x = images.double()
    left: Tensor = x - (x @ u)[:, None] * u
    return left


CROWDED = 0.5
"""Rank of the second covariance by pairs, above which the numbers say little."""


def _doubt(pairs: Pairs, numbers: Numbers) -> str:
    rank, shuffled = numbers["second_rank"], numbers["share_unexplained_shuffled"]
    assert isinstance(rank, int)
    if rank <= CROWDED * pairs.count:
        return ""
    return (
        f"the second set's covariance has rank {rank} on {pairs.count} pairs: that many numbers explain much of "
        f"anything (shuffled, they leave {shuffled:.3f}); take more pairs, fewer dimensions or fewer frequencies"
    )


@diagnostic(
    "schur-entropy",
    paper="Ospanov et al. 2024, arXiv 2412.18645",
    of="pairs",
    gives={
        "entropy.first": Column(
            "Entropy of the covariance of the first set's features", unit="nats", title="entropy of the first set"
        ),
        "entropy.explained": Column(
            "Of the part of it that the second set explains", unit="nats", title="... explained"
        ),
        "entropy.unexplained": Column("Of what is left of it", unit="nats", title="... unexplained"),
        "share_unexplained": Column(
            "Share of the trace that is left", unit="share", title="share of the trace unexplained"
        ),
        "share_unexplained_shuffled": Column(
            "The same if the second set were shuffled, in the mean over all orders",
            unit="share",
            title="... if the second set were shuffled",
        ),
        "second_rank": Column(
            "Rank of the covariance of the second set's features",
            kind="integer",
            title="rank of the second covariance",
        ),
    },
    doubt=_doubt,
)
def schur_entropy(pairs: Pairs) -> Numbers:
    """What of the first set's diversity the second set explains, and what is left.

    With C_II and C_TT the covariances of the features of images and of their texts, the texts explain
    C_IT C_TT^+ C_TI of C_II, and its Schur complement is what is left. The entropy of a part is
    sum_i l_i ln(sum l / l_i) over its eigenvalues. Any texts explain some of it, however they are paired; the share
    that shuffled ones leave says how much.
    """
    found = split_covariance(pairs)
    return {
        "entropy.first": found.entropy_whole,
        "entropy.explained": found.entropy_explained,
        "entropy.unexplained": found.entropy,
        "share_unexplained": found.share,
        "share_unexplained_shuffled": found.shuffled,
        "second_rank": found.text_rank,
    }
