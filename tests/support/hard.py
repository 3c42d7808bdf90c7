"""A market of hard matrices and hard second moments, by name, for whoever decomposes them."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

OUT, IN = 10, 14


def normal(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal entries in float64, the same for the same seed."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def orthogonal(n: int, seed: int = 0) -> Tensor:
    """An orthogonal matrix (n, n)."""
    q: Tensor = torch.linalg.qr(normal(n, n, seed=seed)).Q
    return q


def with_spectrum(out: int, columns: int, values: Tensor, seed: int = 0) -> Tensor:
    """A matrix (out, columns) with the given singular values."""
    k = len(values)
    return orthogonal(out, seed)[:, :k] * values @ orthogonal(columns, seed + 1)[:, :k].T


def decaying(n: int, decades: float) -> Tensor:
    """n values from 1 down by so many powers of ten."""
    return torch.logspace(0, -decades, n, dtype=torch.float64)


def kahan(n: int, angle: float = 1.2) -> Tensor:
    """Kahan's triangular matrix, on which QR with column pivoting sees no small pivot."""
    s, c = torch.tensor(angle, dtype=torch.float64).sin(), torch.tensor(angle, dtype=torch.float64).cos()
    ones = torch.ones(n, n, dtype=torch.float64)
    return s ** torch.arange(n, dtype=torch.float64)[:, None] * (torch.eye(n, dtype=torch.float64) - c * ones.triu(1))


def weights() -> dict[str, Tensor]:
    """Finite matrices that break careless decompositions. Not to be changed."""
    return dict(_weights())


@cache
def _weights() -> dict[str, Tensor]:
    index = torch.arange(1, 13, dtype=torch.float64)
    general = normal(OUT, IN, seed=3)
    extremes = 10.0 ** torch.linspace(-300, 300, OUT * IN, dtype=torch.float64).reshape(OUT, IN)
    return {
        "general": general,
        "zero": torch.zeros(OUT, IN, dtype=torch.float64),
        "rank-one": normal(OUT, 1, seed=4) @ normal(1, IN, seed=5),
        "rank-deficient": normal(OUT, 3, seed=6) @ normal(3, IN, seed=7),
        "rank-deficient-tall": normal(IN, 3, seed=6) @ normal(3, OUT, seed=7),
        "hilbert": 1 / (index[:, None] + index - 1),
        "kahan": kahan(12),
        "graded-spectrum": with_spectrum(OUT, IN, decaying(OUT, 15)),
        "graded-entries": extremes * normal(OUT, IN, seed=8).sign(),
        "graded-columns": general * decaying(IN, 12),
        "tiny-fp32": (general * 1e-30).float(),
        "huge-fp32": (general * 1e30).float(),
        "subnormal-fp32": (general * 1e-41).float(),
        "tiny": general * 1e-150,
        "huge": general * 1e140,
        "1xn": normal(1, IN),
        "nx1": normal(OUT, 1),
        "1x1": normal(1, 1),
        "1x1-zero": torch.zeros(1, 1, dtype=torch.float64),
        "wide": normal(3, 40, seed=9),
        "tall": normal(40, 3, seed=9),
        "transposed": normal(IN, OUT, seed=10).T,
        "strided": normal(2 * OUT, 3 * IN, seed=11)[::2, ::3],
        "expanded": normal(1, IN, seed=12).expand(OUT, IN),
        "bf16": general.bfloat16(),
        "fp16": general.half(),
        "fp16-large": (general * 1.5e4).half(),
        "fp32": general.float(),
        "repeated": with_spectrum(OUT, IN, torch.ones(OUT, dtype=torch.float64)),
        "identity": torch.eye(OUT, dtype=torch.float64),
        "zero-row-and-column": general * (torch.arange(OUT)[:, None] != 2) * (torch.arange(IN) != 5),
        "duplicate-rows": general[torch.arange(OUT) // 2],
    }


def ends() -> dict[str, Tensor]:
    """Finite matrices at the ends of every dtype, and such as small shapes and equal entries make hard."""
    found = {}
    signs = normal(6, 8, seed=3).sign()
    general = normal(6, 8, seed=3) / normal(6, 8, seed=3).abs().max()
    one = torch.arange(48).view(6, 8) == 13
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        limits, name = torch.finfo(dtype), str(dtype).removeprefix("torch.")
        found |= {
            f"largest-{name}": general.to(dtype) * limits.max,
            f"largest-signs-{name}": signs.to(dtype) * limits.max,
            f"one-largest-{name}": torch.where(one, limits.max, general).to(dtype),
            f"quarter-of-the-largest-{name}": general.to(dtype) * (limits.max / 4),
            f"subnormal-{name}": (general * limits.smallest_normal / 2).to(dtype),
            f"least-{name}": (signs * limits.smallest_normal * limits.eps).to(dtype),
            f"constant-{name}": torch.full((6, 8), 0.7, dtype=dtype),
            f"24x1-{name}": normal(24, 1).to(dtype),
            f"1x24-{name}": normal(1, 24).to(dtype),
        }
    return found | {"1e150": general * 1e150, "1e200": general * 1e200, "1e-200": general * 1e-200}


def refused() -> dict[str, Tensor]:
    """Matrices with entries that are not numbers: every method answers with ValueError."""
    bad = {}
    for name, value in (("nan", float("nan")), ("inf", float("inf")), ("minus-inf", -float("inf"))):
        w = normal(OUT, IN, seed=13)
        w[1, 2] = value
        bad[name] = w
    return bad


def second_moments(n: int) -> dict[str, Tensor]:
    """Symmetric positive semi-definite matrices (n, n) that break careless roots and inverses. Not to be changed."""
    return dict(_second_moments(n))


@cache
def _second_moments(n: int) -> dict[str, Tensor]:
    rotation = orthogonal(n, 20)
    general = rotation * decaying(n, 2) @ rotation.T
    tokens = normal(max(1, n // 2), n, seed=21)
    dead = general.clone()
    dead[0, :] = dead[:, 0] = 0
    holes = torch.ones(n, dtype=torch.float64)
    holes[:: max(2, n // 3)] = 0
    return {
        "general": general,
        "identity": torch.eye(n, dtype=torch.float64),
        "zero": torch.zeros(n, n, dtype=torch.float64),
        "rank-one": torch.outer(tokens[0], tokens[0]),
        "few-tokens": tokens.T @ tokens / len(tokens),
        "diagonal-with-zeros": holes.diag(),
        "ascending-diagonal-with-zero": torch.arange(n, dtype=torch.float64).diag(),
        "condition-1e12": rotation * decaying(n, 12) @ rotation.T,
        "tiny": general * 1e-200,
        "huge": general * 1e200,
        "outlier": general + 1e6 * torch.outer(rotation[0], rotation[0]),
        "dead-input": dead,
    }
