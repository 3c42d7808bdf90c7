"""Points, positive parameters as their logarithms, and results as what came."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from eckart.errors import Refused
from eckart.linalg.distances import all_finite


def points(x: Any, name: str = "x") -> Tensor:
    """Points (n, d) in float64, of an array or a tensor.

    Raises:
        Refused: another number of dimensions, no real numbers, or NaN or Inf.
    """
    made: Any = x
    if not isinstance(x, Tensor):
        made = np.asarray(x)
        if made.dtype.kind not in "biuf":
            raise Refused(f"{name} is of {made.dtype}, and points are real numbers")
        made = torch.from_numpy(np.ascontiguousarray(made, np.float64))
    if made.ndim != 2 or made.is_complex():
        raise Refused(f"{name} is of shape {tuple(made.shape)}, and points are (n, d): one dimension is x[:, None]")
    wide: Tensor = made.double()
    if not all_finite(wide):
        raise Refused(f"{name} has {int((~torch.isfinite(wide)).sum())} NaN or Inf entries")
    return wide


def _as_came(found: Tensor, x: Any) -> Any:
    return found if isinstance(x, Tensor) else found.detach().cpu().numpy()


def log_parameter(owner: str, name: str, value: Any, *, dimensions: tuple[int, ...] = (0,)) -> nn.Parameter:
    """The logarithm of a positive number as a parameter, or those of an array of as many dimensions as may be.

    Raises:
        Refused: one is not positive and finite, or the array is of another number of dimensions.
    """
    try:
        wide = torch.as_tensor(value, dtype=torch.float64).detach().clone()
    except (TypeError, ValueError, RuntimeError) as error:
        raise Refused(f"{owner}: {name}={value!r:.80} is no positive number") from error
    if wide.ndim not in dimensions or not wide.numel():
        words = " or ".join({0: "one number", 1: "a list of numbers", 2: "a table"}[each] for each in dimensions)
        raise Refused(f"{owner}: {name} of shape {tuple(wide.shape)} is not {words}")
    if not bool(((wide > 0) & torch.isfinite(wide)).all()):
        raise Refused(f"{owner}: {name}={value} is not positive and finite")
    return nn.Parameter(wide.log())


def plain(value: Tensor) -> Any:
    """A number, or a list of them, of a tensor."""
    return value.detach().cpu().tolist()
