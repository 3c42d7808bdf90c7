"""Nested coordinates of keys and values: what a calibration says of them, and bases fitted to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from eckart.errors import Refused
from eckart.files.tensors import read_safetensors, sealed, write_safetensors
from eckart.machine import wide
from eckart.models.presence import check_model
from eckart.models.transformers_attention import attending, exact_attention
from eckart.statistics.batches import Batch, call, one_by_one
from eckart.statistics.freezing import frozen
from eckart.statistics.labels import sampled_gradient
from eckart.statistics.padding import without_padding

_FORMAT = "eckart cache bases 1"


@dataclass(frozen=True)
class Basis:
    """Coordinates c = U^T (x - mean) of the keys or values x of an attention's heads, of which the first r are kept.

    Attributes:
        mean: (heads, d).
        vectors: U, orthogonal, (heads, d, d), a coordinate a column: x = mean + U c.
        losses: what keeping r coordinates is expected to add to the loss of a token, (heads, d + 1), float64.
    """

    mean: Tensor
    vectors: Tensor
    losses: Tensor


@dataclass(frozen=True)
class CacheBases:
    """The bases of a model's cache, which serve at every size.

    Attributes:
        keys, values: by the name of the attention.
    """

    keys: Mapping[str, Basis]
    values: Mapping[str, Basis]

    def save(self, file: str | Path) -> None:
        """Writes them as safetensors."""
        tensors = {
            f"{name}.{kind}.{field}": getattr(basis, field).contiguous()
            for kind, bases in (("keys", self.keys), ("values", self.values))
            for name, basis in bases.items()
            for field in Basis.__dataclass_fields__
        }
        write_safetensors(tensors, Path(file), {"format": _FORMAT, **sealed(tensors)})

    @staticmethod
    def load(file: str | Path) -> CacheBases:
        """Reads what `save` wrote.

        Raises:
            Refused: it is not there, damaged or something else.
        """
        tensors, metadata = read_safetensors(Path(file))
        if metadata.get("format") != _FORMAT:
            raise Refused(f"{file} holds no bases of a cache")
        found: dict[str, dict[str, dict[str, Tensor]]] = {"keys": {}, "values": {}}
        for key, tensor in tensors.items():
            name, kind, field = key.rsplit(".", 2)
            found[kind].setdefault(name, {})[field] = tensor
        return CacheBases(*({n: Basis(**fields) for n, fields in found[kind].items()} for kind in ("keys", "values")))


class Moments:
    """Of the keys or values x of one attention and of the gradients g of the loss by them, in float64.

    Attributes:
        count: tokens.
        plain: sums of 1, x and x x^T of each head.
        weighted: those of |g|^2, |g|^2 x and |g|^2 x x^T.
        gradient: the sum of g g^T, (heads, d, d).
    """

    def __init__(self) -> None:
        self.count = 0
        self.plain = self.weighted = _Sums.zero()
        self.gradient = torch.zeros((), dtype=torch.float64)

    def watch(self, x: Tensor) -> Tensor:
        """Adds x and, when it comes, its gradient; what is to be computed with instead of x.

        Args:
            x: (sequences, heads, tokens, d).
        """
        x = x if x.requires_grad else x.detach().requires_grad_()
        rows = wide(x.detach()).transpose(0, 1).flatten(1, 2)

        def add_gradient(gradient: Tensor) -> None:
            self.add(rows, wide(gradient).transpose(0, 1).flatten(1, 2))

        x.register_hook(add_gradient)  # type: ignore[no-untyped-call]
        return x

    def add(self, rows: Tensor, gradient: Tensor) -> None:
        """Some x and their gradients, (heads, tokens, d)."""
        self.count += rows.shape[1]
        self.plain = self.plain + _Sums.of(rows, torch.ones_like(rows[..., :1]))
        self.weighted = self.weighted + _Sums.of(rows, gradient.square().sum(-1, keepdim=True))
        self.gradient = self.gradient + _kept(gradient.mT @ gradient)

    def finite(self) -> bool:
        """Whether none of it is NaN or infinite."""
        return all(bool(torch.isfinite(t).all()) for t in (self.plain.second, self.weighted.second, self.gradient))


def _kept(here: Tensor) -> Tensor:
    """Sums of a batch as they are kept: float64, in the memory of the CPU."""
    return here.cpu().double()


@dataclass(frozen=True)
class _Sums:
    """Sums over tokens of w (heads, 1), w x (heads, d) and w x x^T (heads, d, d)."""

    weight: Tensor
    first: Tensor
    second: Tensor

    @staticmethod
    def zero() -> _Sums:
        return _Sums(*[torch.zeros((), dtype=torch.float64)] * 3)

    @staticmethod
    def of(rows: Tensor, weights: Tensor) -> _Sums:
        return _Sums(*map(_kept, (weights.sum(1), (weights * rows).sum(1), (weights * rows).mT @ rows)))

    def __add__(self, other: _Sums) -> _Sums:
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return _Sums(*(mine + theirs for mine, theirs in pairs))

    @property
    def mean(self) -> Tensor:
        return self.first / self.weight

    def about(self, mean: Tensor) -> Tensor:
        """The weighted mean of (x - mean) (x - mean)^T, (heads, d, d)."""
        own = self.mean[:, :, None] * mean[:, None]
        found = self.second / self.weight[:, :, None] - own - own.mT + mean[:, :, None] * mean[:, None]
        return (found + found.mT) / 2


def cache_moments(
    model: nn.Module, calibration: Tensor | Sequence[Batch], whose: str, *, seed: int = 0
) -> dict[str, tuple[Moments, Moments]]:
    """Moments of the keys and of the values of each attention on a calibration, with labels drawn from the model.

    Raises:
        Refused: no tokens, a model in training mode or without attentions that can be seen, or NaN.
    """
    found: dict[str, tuple[Moments, Moments]] = {}

    def record(
        name: str, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, scale: float, causal: bool
    ) -> Tensor:
        of_keys, of_values = found.setdefault(name, (Moments(), Moments()))
        return exact_attention(query, of_keys.watch(keys), of_values.watch(values), mask, scale, causal)

    generator = torch.Generator().manual_seed(seed)
    with attending(model, record, whose), differentiating(model):
        for sample in samples(model, calibration, whose):
            output, gradient, _ = sampled_gradient(call(model, sample), generator)
            torch.autograd.backward(output, gradient)
    return found


@contextmanager
def differentiating(model: nn.Module) -> Iterator[None]:
    """Gradients are kept inside, but none of parameters."""
    with torch.inference_mode(False), torch.enable_grad(), frozen(model):
        yield


def samples(model: nn.Module, calibration: Tensor | Sequence[Batch], whose: str) -> Iterator[Batch]:
    """The samples of a calibration one by one, without padding, where the model is."""
    check_model(model, whose)
    given: object = calibration
    if isinstance(given, str):
        raise Refused(f"{whose}: the calibration is tokens, not text: tokenizer(text, return_tensors='pt').input_ids")
    if model.training:
        raise Refused(f"{whose} is for inference: call model.eval() first")
    batches = [calibration] if isinstance(calibration, Tensor) else list(calibration)
    if not batches or any(isinstance(batch, Tensor) and not batch.numel() for batch in batches):
        raise Refused(f"{whose}: the calibration has no tokens")
    device = next(model.parameters()).device
    for batch in batches:
        for part in without_padding(model, batch):
            for one in one_by_one(part):
                yield one.to(device) if isinstance(one, Tensor) else {k: _moved(v, device) for k, v in one.items()}


def _moved(value: Any, device: torch.device) -> Any:
    return value.to(device) if isinstance(value, Tensor) else value


def weighted_basis(moments: Moments) -> Basis:
    """The principal directions of x where every token counts as much as the loss depends on it, by |g|^2.

    Rounding x to x + e changes the loss by about (g^T e)^2 / 2. Few tokens have most of |g|^2, above all the first of a
    text, on which most heads rest: a mean over all tokens hardly sees them. With |g| apart from the direction of g, and
    that independent of e, the mean change is tr(E[g g^T] S) / 2 with S = E[|g|^2 e e^T] / E[|g|^2], and the principal
    directions of the weighted x are the orthogonal ones that leave least of S. Tokens without gradient count alike.
    """
    some = moments.weighted.weight > 0
    sums = _Sums(
        *(
            torch.where(some if ours.ndim < 3 else some[..., None], ours, plain)
            for ours, plain in zip(vars(moments.weighted).values(), vars(moments.plain).values(), strict=True)
        )
    )
    return basis_of(moments, sums.mean, _leading(sums.about(sums.mean)))


def pca_basis(moments: Moments) -> Basis:
    """The principal directions of x, all tokens alike."""
    mean = moments.plain.mean
    return basis_of(moments, mean, _leading(moments.plain.about(mean)))


def basis_of(moments: Moments, mean: Tensor, vectors: Tensor) -> Basis:
    """The basis of these coordinates, with what keeping the first of them is expected to lose (`weighted_basis`)."""
    weighed = moments.weighted.weight[..., None] > 0
    of_rounding = torch.where(weighed, moments.weighted.about(mean), torch.zeros_like(moments.gradient))
    g, c = (vectors.mT @ moment @ vectors for moment in (moments.gradient / moments.count, of_rounding))
    # What is left out is a corner of the coordinates, and the trace the sum over it.
    losses = [(g[:, r:, r:] * c[:, r:, r:]).sum((1, 2)).clamp_min(0) / 2 for r in range(mean.shape[1] + 1)]
    return Basis(mean, vectors, torch.stack(losses, 1))


def _leading(symmetric: Tensor) -> Tensor:
    """Eigenvectors as columns, the largest eigenvalue first."""
    vectors: Tensor = torch.linalg.eigh(symmetric)[1].flip(-1)
    return vectors


BASES = {"weighted": weighted_basis, "pca": pca_basis}


def cache_bases(
    model: nn.Module, calibration: Tensor | Sequence[Batch], metric: str = "weighted", *, seed: int = 0
) -> CacheBases:
    """Bases of the keys and values of every attention, fitted in one pass with gradients over some texts.

    Args:
        model: of transformers, in eval mode, whose output has logits or is a tensor.
        calibration: tokens (samples, length), or batches; a few thousand tokens.
        metric: `weighted`, where tokens count as the loss depends on them, or `pca`, where all count the same.
        seed: of the labels that are drawn.

    Raises:
        Refused: no such metric, no tokens, NaN, or a model whose attentions cannot be seen.
    """
    if metric not in BASES:
        raise Refused(f"metric={metric!r}: there are {', '.join(BASES)}")
    found = cache_moments(model, calibration, "cache_bases", seed=seed)
    for name, both in found.items():
        if not all(moments.finite() for moments in both):
            raise Refused(f"cache_bases: keys, values or their gradients in {name} are NaN or infinite")
    return fitted(found, metric)


def fitted(moments: Mapping[str, tuple[Moments, Moments]], metric: str) -> CacheBases:
    """The bases of keys and of values from their moments."""
    fit = BASES[metric]
    keys, values = ({name: fit(both[i]) for name, both in moments.items()} for i in (0, 1))
    return CacheBases(keys, values)
