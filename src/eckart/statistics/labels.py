"""Labels drawn from the model itself, and the gradient of their log-likelihood: what the true Fisher is made of."""

from __future__ import annotations

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
    logits = output.get("logits") if isinstance(output, dict) else getattr(output, "logits", None)
    target: Tensor
    if logits is None:
        if type(output) is dict:
            raise Refused(f"the model returns a dict of {', '.join(map(repr, output))} and no 'logits' to draw from")
        target = output if isinstance(output, Tensor) else output[0]
        _check_numbers(target)
        gradient = torch.randn(target.shape, generator=generator, dtype=target.dtype).to(target.device)
    else:
        target = logits
        _check_numbers(target)
        gradient = (_binary if logits.ndim < 2 or logits.shape[-1] == 1 else _categorical)(logits.detach(), generator)
    width = 1 if logits is not None and target.ndim < 2 else target.shape[-1]
    return target, gradient, target.numel() // width


def _check_numbers(target: Tensor) -> None:
    if not target.numel():
        raise Refused(f"the model's output of shape {tuple(target.shape)} holds no numbers")
    if not torch.isfinite(target).all():
        raise Refused("the model's output on calibration data has NaN or Inf entries")


def _categorical(logits: Tensor, generator: torch.Generator) -> Tensor:
    gradient = logits.float().softmax(-1).flatten(0, -2)
    labels = draw(gradient, generator)
    gradient.scatter_add_(1, labels, gradient.new_full(labels.shape, -1.0))
    return gradient.view(logits.shape).to(logits.dtype)


def _binary(logits: Tensor, generator: torch.Generator) -> Tensor:
    p = logits.float().sigmoid()
    label = torch.rand(p.shape, generator=generator).to(p.device) < p
    return (p - label.float()).to(logits.dtype)


def draw(probabilities: Tensor, generator: torch.Generator) -> Tensor:
    """One index from each row of probabilities (n, k): (n, 1), int64."""
    u = torch.rand(len(probabilities), 1, generator=generator).to(probabilities.device)
    # Some rows at a time: the sums over a vocabulary are as large as its probabilities.
    parts = zip(torch.split(probabilities, ROWS), torch.split(u, ROWS), strict=True)
    found = [torch.searchsorted(rows.cumsum(-1), each) for rows, each in parts]
    return torch.cat(found).clamp_max(probabilities.shape[1] - 1)
