"""Attention and its gradients in time linear in the length, where the entries of queries and keys are small."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from eckart.errors import Refused
from eckart.inference.contract import inside
from eckart.models.presence import check_model
from eckart.models.transformers_attention import attending, exact_attention
from eckart.ops import polynomial_attention as polynomial
from eckart.structures._checks import size_option

LEAST = 128
"""Positions below which nothing is gained."""


@inside(
    "lora-fast-gradient",
    paper="Hu et al. 2024, arXiv 2406.03136",
    saves="attention over long inputs takes time linear in the length, its gradients too",
    approximates="the exponential of the scores by a polynomial",
    limit={"exact_above": True, "tolerance": 0.0},
)
@contextmanager
def polynomial_attention(
    model: nn.Module, degree: int = 2, tolerance: float = 0.1, exact_above: bool = False, least: int = LEAST
) -> Iterator[list[str]]:
    """Inside, the exponential of attention is a polynomial, and a product of features of queries and of keys.

    T_g(s), the Taylor series of exp up to degree g, is phi(q).phi(k) with C(d + g, g) monomials, so that attention and
    the gradients of adapters behind it are chained products of thin matrices, as the paper has them: linear in the
    length, for a fixed degree. Adapters train inside with the model in eval mode, as always.

    It is refused where scores may be so large, by the norms of queries and keys, that outputs could be off by more than
    `tolerance` of the largest |v|: up to 0.64 for degree 2, 1.3 for degree 4. **The attentions of trained language
    models are far above that**, which is the paper's threshold seen from the other side: below it there are fast
    algorithms, above it none that is much below quadratic. What it is for is attention with norms that are kept small.

    Args:
        model: in eval mode, with `sdpa` attention, of transformers.
        degree: of the polynomial.
        tolerance: how far outputs of an attention may be off; infinite for any.
        exact_above: whether attentions that exceed it are computed exactly instead of being refused.
        least: calls with fewer positions are exact, decoding among them; so are those with a mask that is not one of
            tokens alone.

    Yields:
        The names of the attentions.

    Raises:
        Refused: a model in training mode or without such attentions, a degree below 1, a negative tolerance; and
            inside, an attention that may exceed the tolerance.
    """
    size_option("polynomial_attention", "least", least)
    size_option("polynomial_attention", "degree", degree)
    if not tolerance >= 0:
        raise Refused(f"polynomial_attention: tolerance must be at least 0, got {tolerance!r}")
    check_model(model, "polynomial_attention")
    if model.training:
        raise Refused(
            "polynomial_attention is for models in eval mode, adapters that train too: call model.eval() first"
        )
    most = polynomial.allowed(tolerance, degree)

    def attend(
        name: str, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, scale: float, causal: bool
    ) -> Tensor:
        seen = None if mask is None else of_tokens(mask)
        short = query.shape[2] < least or (causal and query.shape[2] != keys.shape[2])
        if short or (mask is not None and seen is None):
            return exact_attention(query, keys, values, mask, scale, causal)
        k, v = (x.repeat_interleave(query.shape[1] // x.shape[1], 1) for x in (keys, values))
        if exact_above and not polynomial.bound_of(query, k, scale) <= most:
            return exact_attention(query, keys, values, mask, scale, causal)
        return polynomial.polynomial_attention(query, k, v, scale, causal, degree, tolerance, seen, whose=name)

    with attending(model, attend, "polynomial_attention") as found:
        yield list(found)


def of_tokens(mask: Tensor) -> Tensor | None:
    """The tokens (sequences, tokens) that every position and head sees, where a mask says no more; None where it does.

    >>> import torch
    >>> of_tokens(torch.tensor([[[[True, False], [True, False]]]]))
    tensor([[ True, False]])
    """
    first = mask[:, :1, :1]
    if mask.dtype != torch.bool or not bool((mask == first).all()):
        return None
    return first[:, 0, 0]


def needed(bound: float, tolerance: float = 0.1) -> int:
    """The least degree at which scores up to that bound are within the tolerance.

    >>> needed(0.5), needed(5.0)
    (2, 17)
    """
    return next(g for g in range(1, 4 * math.ceil(bound) + 64) if polynomial.worst(bound, g) <= tolerance)
