"""Bases of a cache, trained against the dense model at all sizes at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from eckart.errors import Refused
from eckart.inference._cache_bases import (
    Basis,
    CacheBases,
    basis_of,
    cache_moments,
    differentiating,
    samples,
)
from eckart.machine import wide
from eckart.models.transformers_attention import attending, exact_attention, in_groups
from eckart.statistics.batches import Batch, call
from eckart.structures._checks import size_option


def train_bases(
    model: nn.Module,
    bases: CacheBases,
    calibration: Tensor | Sequence[Batch],
    *,
    steps: int = 100,
    rate: float = 1e-3,
    seed: int = 0,
) -> CacheBases:
    """Turns the coordinates of bases by Adam, so that the first few of them serve the model better.

    U Q takes the place of U, Q orthogonal for each head, Q = (I - S)^-1 (I + S) with S skew, the identity at the
    start: bases stay orthogonal, and all coordinates together exact. A step reads one text with a
    number of coordinates drawn for each head of keys and values, and goes down the divergence of its predictions from
    those of the dense model (Lin et al. 2024, arXiv 2410.14731, section 3.2).

    Args:
        model: a language model of transformers, in eval mode; it does not change.
        bases: to start from.
        calibration: tokens (samples, length), or batches; read again from the start where steps go on.
        steps: of Adam.
        rate: of Adam, falling to zero as half a cosine.
        seed: of the numbers of coordinates.

    Raises:
        Refused: no steps, or as `cache_bases`.
    """
    size_option("train_bases", "steps", steps)
    like = next(p for p in model.parameters() if p.is_floating_point())
    turning = {
        name: tuple(_Turning(basis, like) for basis in (bases.keys[name], bases.values[name])) for name in bases.keys
    }
    skew = [part.skew for both in turning.values() for part in both]
    optimizer = torch.optim.Adam(skew, lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator = torch.Generator().manual_seed(seed)
    dense = True

    def attend(
        name: str, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, scale: float, causal: bool
    ) -> Tensor:
        if dense:
            return exact_attention(query, keys, values, mask, scale, causal)
        k, v = turning[name]
        q = in_groups(query, keys.shape[1]) @ k.vectors[:, None]
        y = exact_attention(q.flatten(1, 2), k.coordinates(keys), v.coordinates(values), mask, scale, causal)
        return (in_groups(y, keys.shape[1]) @ v.vectors.mT[:, None] + v.mean[:, None]).flatten(1, 2)

    texts = list(samples(model, calibration, "train_bases"))
    with attending(model, attend, "train_bases"), differentiating(model):
        for step in range(steps):
            text, dense = texts[step % len(texts)], True
            with torch.no_grad():
                expected = _logits(call(model, text)).log_softmax(-1)
            dense = False
            for both in turning.values():
                for part in both:
                    part.draw(generator)
            found = _logits(call(model, text)).log_softmax(-1)
            loss = (expected.exp() * (expected - found)).sum(-1).mean()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    moments = cache_moments(model, calibration, "train_bases", seed=seed)
    keys, values = (
        {name: basis_of(moments[name][i], *both[i].whole()) for name, both in turning.items()} for i in (0, 1)
    )
    return CacheBases(keys, values)


def _logits(output: object) -> Tensor:
    logits = getattr(output, "logits", None)
    if not isinstance(logits, Tensor):
        raise Refused("train_bases: the model has no logits to be trained against")
    return logits.float()


class _Turning:
    """Coordinates that are being turned, and how many of each head a step keeps.

    Attributes:
        skew: what trains, (heads, d, d).
        vectors: those of this step, (heads, d, d).
        kept: of this step, (heads, 1, d), one or zero.
    """

    vectors: Tensor
    kept: Tensor

    def __init__(self, start: Basis, like: Tensor) -> None:
        self.start, self.mean = start, start.mean[:, None].to(like)
        self.skew = torch.zeros_like(start.vectors, dtype=torch.float32, device=like.device).requires_grad_()
        self.like = like

    def _rotation(self) -> Tensor:
        skew = wide(self.skew) - wide(self.skew).mT
        eye = torch.eye(skew.shape[-1], dtype=skew.dtype, device=skew.device)
        turn: Tensor = torch.linalg.solve(eye - skew, eye + skew)
        return turn

    def draw(self, generator: torch.Generator) -> None:
        """The bases of a step, and 1 to d coordinates of each head, each as likely."""
        turn = self._rotation()
        self.vectors = (self.start.vectors.to(turn) @ turn).to(self.like)
        heads, size = self.start.mean.shape
        count = torch.randint(1, size + 1, (heads, 1, 1), generator=generator)
        self.kept = (torch.arange(size) < count).to(self.like)

    def coordinates(self, x: Tensor) -> Tensor:
        """(sequences, heads, tokens, d), those that are not kept zero."""
        found: Tensor = (x - self.mean) @ self.vectors * self.kept
        return found

    def whole(self) -> tuple[Tensor, Tensor]:
        """The mean and U Q, float64."""
        turn = self._rotation().detach().cpu().double()
        return self.start.mean.to(turn), self.start.vectors.to(turn) @ turn
