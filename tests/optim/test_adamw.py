"""AdamW against PyTorch's."""

from __future__ import annotations

import torch

from eckart.optim.adamw import AdamW


def test_it_is_that_of_pytorch() -> None:
    torch.manual_seed(0)
    ours, theirs = ([torch.nn.Parameter(p.clone()) for p in parts] for parts in [(torch.ones(4, 6), torch.ones(5))] * 2)
    options = {"lr": 0.02, "betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": 0.1}
    optimizers = AdamW(ours, **options), torch.optim.AdamW(theirs, **options)  # type: ignore[arg-type]
    for _ in range(7):
        for mine, other in zip(ours, theirs, strict=True):
            mine.grad = torch.randn_like(mine)
            other.grad = mine.grad.clone()
        for each in optimizers:
            each.step()
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-6)
