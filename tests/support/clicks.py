"""A click model: two tables looked up in two ways, an MLP, one logit."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import Tensor, nn

USERS, TAGS, DIMENSION = 40, 25, 12

TABLES = ["user", "tag"]


class Clicks(nn.Module):
    """A table looked up once a sample, one looked up three times, their products, an MLP; returns one logit."""

    def __init__(self, as_object: bool = False) -> None:
        super().__init__()
        self.user = nn.Embedding(USERS, DIMENSION)
        self.tag = nn.Embedding(TAGS, DIMENSION)
        self.mlp = nn.Sequential(nn.Linear(2 * DIMENSION, 24), nn.ReLU(), nn.Linear(24, 1))
        self.as_object = as_object

    def forward(self, user: Tensor, tag: Tensor) -> object:
        u, t = self.user(user), self.tag(tag).mean(1)
        logit = (u * t).sum(-1) + self.mlp(torch.cat([u, t], -1))[:, 0]
        return SimpleNamespace(logits=logit) if self.as_object else logit


def clicks(as_object: bool = False) -> Clicks:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Clicks(as_object).eval()


def batch(samples: int, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    # Squared, so that some rows are looked up far more often than others, and some never.
    user = (torch.rand(samples, generator=generator).square() * USERS).long()
    return {"user": user, "tag": torch.randint(TAGS - 5, (samples, 3), generator=generator)}
