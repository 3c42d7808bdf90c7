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
from eckart.models.transformers_attention import attending, exact_attention
from eckart.statistics.batches import Batch, call, one_by_one
from eckart.statistics.freezing import frozen
from eckart.statistics.labels import sampled_gradient
from eckart.statistics.padding import without_padding

_RIDGE = 1e-6
"""Of the mean eigenvalue of a gradient moment, so that its root has an inverse."""
_FORMAT = "eckart cache bases 1"


@dataclass(frozen=True)
class Basis:
    """Coordinates c = E^T (x - mean) of the keys or values x of an attention's heads, of which the first r are kept.

    Attributes:
        mean: (heads, d).
        encode: E, (heads, d, d), a coordinate a column.
        decode: D, (heads, d, d), the inverse of E^T: x = mean + D c.
        losses: what keeping r coordinates is expected to add to the loss of a token, (heads, d + 1), float64.
    """

    mean: Tensor
    encode: Tensor
    decode: Tensor
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
    """Of the keys or values of one attention, and of the gradient of the loss by them, (heads, d, d), float64."""

    def __init__(self) -> None:
        self.count = 0
        self.sum = self.second = self.gradient = torch.zeros((), dtype=torch.float64)

    def watch(self, x: Tensor) -> Tensor:
        """Adds x and, when it comes, its gradient; what is to be computed with instead of x."""
        x = x if x.requires_grad else x.detach().requires_grad_()
        self.add(x)
        x.register_hook(self.add_gradient)  # type: ignore[no-untyped-call]
        return x

    def add(self, x: Tensor) -> None:
        """Some keys or values (sequences, heads, tokens, d)."""
        rows = x.detach().double().transpose(0, 1).flatten(1, 2)
        self.count += rows.shape[1]
        self.sum = self.sum.to(rows.device) + rows.sum(1)
        self.second = self.second.to(rows.device) + rows.mT @ rows

    def add_gradient(self, gradient: Tensor) -> None:
        """The gradient by what `add` was given last."""
        rows = gradient.double().transpose(0, 1).flatten(1, 2)
        self.gradient = self.gradient.to(rows.device) + rows.mT @ rows

    def finished(self) -> tuple[Tensor, Tensor, Tensor]:
        """Mean (heads, d), covariance and second moment of the gradient (heads, d, d) of a token."""
        mean = self.sum / self.count
        covariance = self.second / self.count - mean[:, :, None] * mean[:, None]
        return mean, (covariance + covariance.mT) / 2, self.gradient / self.count


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


def fisher_basis(moments: Moments) -> Basis:
    """The r coordinates that lose least in the metric of the loss.

    With S the covariance of x and G the second moment of the gradient g by x, rounding x to xhat changes the loss by
    about (g^T (x - xhat))^2 / 2, of which the mean is tr(G Cov(x - xhat)) / 2. With A = G^1/2 and A S A = U diag(l)
    U^T, l falling, the best rank r for every r at once is A xhat = U_r U_r^T A x: E = A U, D = A^-1 U, and the loss
    is half the sum of the l left out.
    """
    _, covariance, gradient = moments.finished()
    ridge = _RIDGE * gradient.diagonal(dim1=1, dim2=2).mean(1)
    eye = torch.eye(gradient.shape[1], dtype=gradient.dtype, device=gradient.device)
    # Without any gradient, as for keys that nobody attends to, every direction counts the same.
    gradient = torch.where((ridge > 0)[:, None, None], gradient + ridge[:, None, None] * eye, eye)
    squares, vectors = torch.linalg.eigh(gradient)
    squares = squares.clamp_min(ridge.clamp_min(torch.finfo(gradient.dtype).tiny)[:, None])
    root = (vectors * squares.sqrt()[:, None]) @ vectors.mT
    inverse = (vectors / squares.sqrt()[:, None]) @ vectors.mT
    u = _leading(root @ covariance @ root)
    return basis_of(moments, root @ u, inverse @ u)


def pca_basis(moments: Moments) -> Basis:
    """The principal directions of x, orthogonal."""
    u = _leading(moments.finished()[1])
    return basis_of(moments, u, u)


def basis_of(moments: Moments, encode: Tensor, decode: Tensor) -> Basis:
    """The basis of these coordinates about the mean, with what keeping the first of them is expected to lose."""
    mean, covariance, gradient = moments.finished()
    c, g = encode.mT @ covariance @ encode, decode.mT @ gradient @ decode
    # What is left out is a corner of the coordinates, and tr(G Cov(x - xhat)) the sum over it.
    losses = [(g[:, r:, r:] * c[:, r:, r:]).sum((1, 2)).clamp_min(0) / 2 for r in range(mean.shape[1] + 1)]
    return Basis(mean, encode, decode, torch.stack(losses, 1))


def _leading(symmetric: Tensor) -> Tensor:
    """Eigenvectors as columns, the largest eigenvalue first."""
    vectors: Tensor = torch.linalg.eigh(symmetric)[1].flip(-1)
    return vectors


BASES = {"fisher": fisher_basis, "pca": pca_basis}


def cache_bases(
    model: nn.Module, calibration: Tensor | Sequence[Batch], metric: str = "fisher", *, seed: int = 0
) -> CacheBases:
    """Bases of the keys and values of every attention, fitted in one pass with gradients over some texts.

    Args:
        model: of transformers, in eval mode, whose output has logits or is a tensor.
        calibration: tokens (samples, length), or batches; a few thousand tokens.
        metric: `fisher`, the change of the loss, or `pca`, the change of keys and values.
        seed: of the labels that are drawn.

    Raises:
        Refused: no such metric, no tokens, NaN, or a model whose attentions cannot be seen.
    """
    if metric not in BASES:
        raise Refused(f"metric={metric!r}: there are {', '.join(BASES)}")
    fit = BASES[metric]
    found = cache_moments(model, calibration, "cache_bases", seed=seed)
    for name, both in found.items():
        if not all(torch.isfinite(part).all() for moments in both for part in moments.finished()):
            raise Refused(f"cache_bases: keys, values or their gradients in {name} are NaN or infinite")
    return CacheBases({n: fit(keys) for n, (keys, _) in found.items()}, {n: fit(v) for n, (_, v) in found.items()})
