"""Paired embeddings: what of the images' diversity the texts explain, and what is left (Schur-complement entropy)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from eckart.diagnose.spectra import check, entropy


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
    """

    unexplained: Tensor
    explained: Tensor
    map: Tensor
    pairs: int
    text_rank: int

    @property
    def entropy(self) -> float:
        """Of what the text does not explain, sum_i l_i ln(sum l / l_i), l eigenvalues of S (Ospanov et al. 2024)."""
        return unscaled_entropy(self.unexplained)

    @property
    def entropy_explained(self) -> float:
        """The same of the explained part."""
        return unscaled_entropy(self.explained)

    @property
    def share(self) -> float:
        """Of the trace of C_II that is not explained."""
        rest = float(self.unexplained.trace())
        return rest / (rest + float(self.explained.trace()))


def unscaled_entropy(covariance: Tensor) -> float:
    """sum_i l_i ln(t / l_i), l the eigenvalues and t their sum: t times the entropy of the scaled matrix, in nats."""
    values = torch.linalg.eigvalsh(covariance).clamp_min(0)
    return float(values.sum()) * entropy(values)


def schur(images: Tensor, texts: Tensor, *, chunk: int = 4096) -> Schur:
    """Splits the covariance of image features into what paired text features explain linearly, and the rest.

    The joint covariance is summed up in one pass over chunks of pairs, O(n (d + e)^2). C_TT is inverted on its range:
    with C_TT = Q diag(l) Q^T and A = diag(l)^(-1/2) Q^T C_TI the explained part is A^T A.

    Args:
        images: features (n, d); see `cosine_features` and `gaussian_features`.
        texts: features (n, e) of the texts that belong to them.
        chunk: pairs at a time.

    Raises:
        ValueError: counts that differ, entries that are not finite, or no pairs.
    """
    check(images)
    check(texts)
    if len(images) != len(texts):
        raise ValueError(f"{len(images)} images do not pair with {len(texts)} texts")
    d, n = images.shape[1], len(images)
    joint = torch.zeros(d + texts.shape[1], d + texts.shape[1], dtype=torch.float64, device=images.device)
    for part in _chunks(images, texts, chunk):
        joint += part.T @ part / n
    image, cross, text = joint[:d, :d], joint[d:, :d], joint[d:, d:]
    values, vectors = torch.linalg.eigh(text)
    kept = values > values[-1] * len(values) * torch.finfo(torch.float64).eps
    q, root = vectors[:, kept], values[kept].sqrt()
    a = (q.T @ cross) / root[:, None]
    explained = a.T @ a
    return Schur(image - explained, explained, (a.T / root) @ q.T, n, int(kept.sum()))


def _chunks(images: Tensor, texts: Tensor, size: int) -> Iterable[Tensor]:
    for i in range(0, len(images), size):
        yield torch.cat([images[i : i + size].double(), texts[i : i + size].double()], 1)


def cosine_features(embeddings: Tensor) -> Tensor:
    """Embeddings (n, d) in unit length: the exact features of the cosine kernel.

    Raises:
        ValueError: entries that are not finite, or an embedding that is zero.
    """
    check(embeddings)
    length = torch.linalg.vector_norm(embeddings.double(), dim=1, keepdim=True)
    if not (length > 0).all():
        raise ValueError(f"embedding {int(length.squeeze(1).argmin())} is zero and has no direction")
    unit: Tensor = embeddings.double() / length
    return unit


def gaussian_features(embeddings: Tensor, bandwidth: float, *, frequencies: int = 512, seed: int = 0) -> Tensor:
    """Random Fourier features (n, 2 frequencies) of the kernel exp(-||x - y||^2 / (2 bandwidth^2)); unit length.

    cos(w x) and sin(w x) by sqrt(frequencies), w normal with deviation 1 / bandwidth (Rahimi and Recht 2007); products
    are off by about 1 / sqrt(frequencies).

    Raises:
        ValueError: entries that are not finite, or a bandwidth that is not positive.
    """
    check(embeddings)
    if not 0 < bandwidth < math.inf or frequencies < 1:
        raise ValueError(f"bandwidth={bandwidth} and frequencies={frequencies} must be positive")
    generator = torch.Generator().manual_seed(seed)
    w = torch.randn(embeddings.shape[1], frequencies, generator=generator, dtype=torch.float64) / bandwidth
    phase = embeddings.double() @ w.to(embeddings.device)
    return torch.cat([phase.cos(), phase.sin()], 1) / math.sqrt(frequencies)


def nullify(images: Tensor, prompt: Tensor, found: Schur) -> Tensor:
    """Image features without the direction in which a prompt shows: x - (x u) u, u along `found.map @ prompt`.

    Args:
        images: features (n, d).
        prompt: features of a text (e,).
        found: from pairs of the same features.

    Raises:
        ValueError: the prompt lies outside of what the texts span, so that it has no direction.
    """
    u = found.map @ prompt.double()
    length = torch.linalg.vector_norm(u)
    if not length > 1e-12 * torch.linalg.vector_norm(prompt.double()) * torch.linalg.matrix_norm(found.map):
        raise ValueError("the prompt has no direction among the images: it lies outside of what the texts span")
    u = u / length
    x = images.double()
    left: Tensor = x - (x @ u)[:, None] * u
    return left
