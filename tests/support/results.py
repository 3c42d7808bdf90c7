"""Arrays of results, whatever they are in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import torch
from scipy import sparse


def arrays(result: Any) -> Iterator[Any]:
    """All arrays of a result, in order."""
    if sparse.issparse(result):
        yield from (result.indptr, result.indices, result.data)
    elif isinstance(result, np.ndarray | np.generic | torch.Tensor):
        yield result
    elif is_dataclass(result):
        for field in fields(result):
            yield from arrays(getattr(result, field.name))
    elif isinstance(result, tuple | list):
        for each in result:
            yield from arrays(each)


def same(one: Any, other: Any, **tolerance: float) -> None:
    """Asserts that two results have equal arrays."""
    left, right = list(arrays(one)), list(arrays(other))
    assert len(left) == len(right) > 0
    for a, b in zip(left, right, strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), **tolerance)
