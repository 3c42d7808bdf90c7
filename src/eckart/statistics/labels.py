"""Labels drawn from the model itself, and the gradient of their log-likelihood: what the true Fisher is made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from eckart.errors import Refused

ROWS = 128
"""Rows of probabilities that are added up at once."""


def sampled_gradient(output: Any, generator: torch.Generator) -> tuple[Tensor, Tensor, int]:
    """Where to start backpropagation, and the gradient there of -log p(y), y drawn from p.

    For `output.logits` of shape (..., classes) a label is categorical and the gradient softmax(z) - onehot(y). Where
    there is but one class, or no dimension besides that of the samples, z is the logit of a yes or no, as in a click
    model: y is Bernoulli and the gradient sigmoid(z) - y. Any other output is the mean of a unit-variance Gaussian.

    Args:
        output: what the model returned: logits in an attribute or under that name, else a tensor or a tuple that starts
            with one.
        generator: of the labels.

    Returns:
        The output, the gradient by it, and the number of labels drawn.

    Raises:
        Refused: the output has NaN or Inf entries, or none; or it is a mapping without logits.
    """
    target, kind = drawn_from(output)
    _check_numbers(target)
    noise = kind.noise(target.shape, target.dtype, generator).to(target.device)
    width = 1 if kind is not GAUSSIAN and target.ndim < 2 else target.shape[-1]
    return target, kind.gradient(target.detach(), noise), target.numel() // width


def drawn_from(output: Any) -> tuple[Tensor, Kind]:
    """The part of a model's output that labels are drawn from, and how.

    Raises:
        Refused: it is a mapping without logits.
    """
    logits = output.get("logits") if isinstance(output, dict) else getattr(output, "logits", None)
    if logits is not None:
        return logits, BINARY if logits.ndim < 2 or logits.shape[-1] == 1 else CATEGORICAL
    if type(output) is dict:
        raise Refused(f"the model returns a dict of {', '.join(map(repr, output))} and no 'logits' to draw from")
    return output if isinstance(output, Tensor) else output[0], GAUSSIAN


def _check_numbers(target: Tensor) -> None:
    if not target.numel():
        raise Refused(f"the model's output of shape {tuple(target.shape)} holds no numbers")
    if not torch.isfinite(target).all():
        raise Refused("the model's output on calibration data has NaN or Inf entries")


def _categorical(logits: Tensor, noise: Tensor) -> Tensor:
    gradient = logits.float().softmax(-1).flatten(0, -2)
    labels = _drawn(gradient, noise)
    gradient.scatter_add_(1, labels, gradient.new_full(labels.shape, -1.0))
    return gradient.view(logits.shape).to(logits.dtype)


def _binary(logits: Tensor, noise: Tensor) -> Tensor:
    p = logits.float().sigmoid()
    return (p - (noise < p).float()).to(logits.dtype)


def draw(probabilities: Tensor, generator: torch.Generator) -> Tensor:
    """One index from each row of probabilities (n, k): (n, 1), int64."""
    return _drawn(probabilities, torch.rand(len(probabilities), 1, generator=generator).to(probabilities.device))


def _drawn(probabilities: Tensor, u: Tensor) -> Tensor:
    # Some rows at a time: the sums over a vocabulary are as large as its probabilities.
    parts = zip(torch.split(probabilities, ROWS), torch.split(u, ROWS), strict=True)
    found = [torch.searchsorted(rows.cumsum(-1), each) for rows, each in parts]
    return torch.cat(found).clamp_max(probabilities.shape[1] - 1)


@dataclass(frozen=True)
class Kind:
    """How labels are drawn from what a model returns.

    Attributes:
        noise: all that is random for a shape and a dtype; a generator that made it is where it is behind the labels.
        gradient: of -log p(y) by the output, of the output and that noise.
    """

    noise: Callable[[torch.Size, torch.dtype, torch.Generator], Tensor]
    gradient: Callable[[Tensor, Tensor], Tensor]


CATEGORICAL = Kind(lambda size, _, generator: torch.rand(size[:-1].numel(), 1, generator=generator), _categorical)
BINARY = Kind(lambda size, _, generator: torch.rand(size, generator=generator), _binary)
GAUSSIAN = Kind(
    lambda size, dtype, generator: torch.randn(size, dtype=dtype, generator=generator), lambda _, noise: noise
)
