"""A key-value cache of fewer coordinates, in nested bases of each head."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eckart.budget.contract import Candidates, allocate
from eckart.errors import Refused
from eckart.inference._cache_bases import Basis, CacheBases, cache_bases
from eckart.inference._coded_cache import coded_cache
from eckart.inference.contract import inside
from eckart.models.transformers_attention import attentions, exact_attention, in_groups
from eckart.statistics.batches import Batch

Ranks = Mapping[str, tuple[list[int], list[int]]]
"""By attention: the coordinates kept of the keys and of the values of each head."""


@inside(
    "matryoshka-kv",
    paper="Lin et al. 2024, arXiv 2410.14731",
    saves="memory of the cache",
    approximates="keys and values in fewer coordinates",
    limit={"keep": 1.0},
    calibrated=True,
)
@contextmanager
def low_rank_cache(
    model: nn.Module, calibration: Tensor | Sequence[Batch] | CacheBases, keep: float = 0.6
) -> Iterator[list[str]]:
    """Inside, the key-value cache holds the first coordinates of keys and values in a basis of each head.

    Keys after their rotation and values x are held as the first r entries of c = U^T (x - mean), a row a token, r of
    each head its own; bases are nested, so those fitted once serve every r. Scores are (U_r^T q)^T c, in which the
    mean of the keys adds the same to all tokens and falls out; outputs are U_r (P c) + mean: attention itself works in
    r coordinates, and nothing of the dense size is made. A pass without a cache computes the same as one with it.

    MatryoshkaKV (Lin et al. 2024, arXiv 2410.14731, section 3) starts from the orthogonal bases of a PCA over all
    tokens, trains them against the dense model with r drawn at random, and searches r of each head greedily. Here a
    token counts in the PCA as much as the loss depends on it, by its gradient, and r is shared out over all heads of
    keys and values by the loss that each is expected to add. `cache_bases(model, calibration, "pca")` has the paper's
    start. Its training (`_cache_training.py`) was not measured, and nothing here trains by itself. **Without it the
    claim of the paper does not hold where few heads are shared by many queries**: on smollm2 `int4_cache` loses far
    less in a fifth of the bytes.

    Args:
        model: in eval mode, with `sdpa` attention, of transformers.
        calibration: tokens (samples, length), or batches, on which `cache_bases` fits; or what it gave.
        keep: share of the cache's bytes, all heads together; 1 keeps all coordinates.

    Yields:
        The names of the attentions.

    Raises:
        Refused: a model in training mode or without such attentions, bases of another model, or a share that is not
            above 0 and at most 1 or leaves less than one coordinate.
    """
    if isinstance(keep, bool) or not isinstance(keep, int | float) or not 0 < keep <= 1:
        raise Refused(f"low_rank_cache: keep must be above 0 and at most 1, got {keep!r}")
    bases = calibration if isinstance(calibration, CacheBases) else cache_bases(model, calibration)
    codes = low_rank_codes(model, bases, cache_ranks(bases, keep))
    with coded_cache(model, codes, "low_rank_cache") as names:
        yield names


def cache_ranks(bases: CacheBases, keep: float, allocation: str = "greedy") -> Ranks:
    """Coordinates of each head that together take a share of the cache and lose least.

    Raises:
        Refused: less than a coordinate for each.
    """
    sites = [losses for basis in _all(bases) for losses in basis.losses.cpu().numpy()]
    offers = [Candidates(np.arange(1, len(losses), dtype=float), _falling(losses)[1:]) for losses in sites]
    budget = keep * sum(float(offer.costs[-1]) for offer in offers)
    picked = iter(allocate(offers, budget * (1 + 1e-12), allocation))
    chosen = [[next(picked) + 1 for _ in basis.mean] for basis in _all(bases)]
    return {name: (chosen[2 * i], chosen[2 * i + 1]) for i, name in enumerate(bases.keys)}


def low_rank_codes(model: nn.Module, bases: CacheBases, ranks: Ranks) -> dict[str, LowRankCode]:
    """The code of every attention of a model, in its dtype and on its device.

    Raises:
        Refused: bases of another model.
    """
    found = attentions(model, "low_rank_cache")
    if set(found) != set(bases.keys) or set(found) != set(bases.values):
        raise Refused(
            f"low_rank_cache: the bases are of {sorted(bases.keys)[:3]}..., the model has {list(found)[:3]}..."
        )
    like = next(p for p in model.parameters() if p.is_floating_point())
    return {name: LowRankCode(bases.keys[name], bases.values[name], *ranks[name], like) for name in found}


@dataclass(frozen=True)
class _Heads:
    """Heads beside each other that keep as many coordinates, r of the keys and s of the values.

    Attributes:
        heads: of the attention.
        k_mean, v_mean: (n, 1, d).
        k_vectors: (n, d, r).
        v_vectors: (n, d, s).
    """

    heads: slice
    k_mean: Tensor
    k_vectors: Tensor
    v_mean: Tensor
    v_vectors: Tensor


class LowRankCode:
    """A `Code`: of each token, the kept coordinates of all heads in a row."""

    def __init__(self, keys: Basis, values: Basis, key_ranks: list[int], value_ranks: list[int], like: Tensor) -> None:
        pairs = list(zip(key_ranks, value_ranks, strict=True))
        if len(pairs) != len(keys.mean):
            raise Refused(f"low_rank_cache: {len(pairs)} ranks do not go with {len(keys.mean)} heads")
        self.parts: list[_Heads] = []
        for (r, s), group in groupby(range(len(pairs)), key=lambda head: pairs[head]):
            indices = list(group)
            h = slice(indices[0], indices[-1] + 1)
            of_keys = (keys.mean[h, None], keys.vectors[h, :, :r])
            of_values = (values.mean[h, None], values.vectors[h, :, :s])
            self.parts.append(_Heads(h, *(t.to(like) for t in (*of_keys, *of_values))))

    def encode(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Coordinates of all heads: (sequences, 1, tokens, their number)."""
        k = [_rows((keys[:, p.heads] - p.k_mean) @ p.k_vectors) for p in self.parts]
        v = [_rows((values[:, p.heads] - p.v_mean) @ p.v_vectors) for p in self.parts]
        return torch.cat(k, -1)[:, None], torch.cat(v, -1)[:, None]

    def attend(
        self, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, scale: float, causal: bool
    ) -> Tensor:
        """Attention over coordinates, a group of heads at a time."""
        outputs, i, j = [], 0, 0
        count = sum(len(p.k_mean) for p in self.parts)
        for p in self.parts:
            n, r, s = len(p.k_mean), p.k_vectors.shape[2], p.v_vectors.shape[2]
            group = query.shape[1] // count
            q = in_groups(query[:, p.heads.start * group : p.heads.stop * group], n) @ p.k_vectors[:, None]
            k = _heads(keys[:, 0, :, i : i + n * r], n)
            v = _heads(values[:, 0, :, j : j + n * s], n)
            # Coordinates of zero change nothing, and the fast kernels want as many of keys as of values.
            size = max(r, s)
            q, k, padded = F.pad(q, (0, size - r)), F.pad(k, (0, size - r)), F.pad(v, (0, size - s))
            y = exact_attention(q.flatten(1, 2), k, padded, mask, scale, causal)[..., :s]
            y = in_groups(y, n) @ p.v_vectors.mT[:, None] + p.v_mean[:, None]
            outputs.append(y.flatten(1, 2))
            i, j = i + n * r, j + n * s
        return torch.cat(outputs, 1)


def _rows(x: Tensor) -> Tensor:
    """(sequences, heads, tokens, r) -> (sequences, tokens, heads r)."""
    return x.transpose(1, 2).flatten(2)


def _heads(rows: Tensor, heads: int) -> Tensor:
    """The other way round."""
    return rows.view(*rows.shape[:2], heads, -1).transpose(1, 2)


def _falling(
    losses: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Losses that do not rise with the coordinates, as those of a PCA may in another metric."""
    return np.minimum.accumulate(losses)


def _all(bases: CacheBases) -> list[Basis]:
    return [basis for name in bases.keys for basis in (bases.keys[name], bases.values[name])]
