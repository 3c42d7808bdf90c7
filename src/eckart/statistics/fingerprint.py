"""Short names for data that are too large to compare: the same for the same weights, text and seed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from eckart.statistics.batches import Batch
from eckart.statistics.needs import Need


def statistics_fingerprint(
    model: nn.Module, modules: Sequence[str], needs: Sequence[Need], batches: Sequence[Batch], seed: int
) -> str:
    """Names what `collect` would return of these modules."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        flat = tensor.detach().reshape(-1)
        sample = flat[:: max(1, flat.numel() // 256)].double()
        # The sum, because a sample does not see every edit.
        seen = torch.cat([sample, flat.sum(dtype=torch.float64)[None]]).cpu()
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode() + seen.numpy().tobytes())
    for batch in batches:
        for label, tensor in {"": batch}.items() if isinstance(batch, Tensor) else sorted(batch.items()):
            digest.update(f"{label} {tuple(tensor.shape)} {tensor.dtype}".encode() + _bytes(tensor))
    digest.update(json.dumps([list(modules), sorted(n.value for n in needs), seed, 2]).encode())
    return digest.hexdigest()[:24]


def inputs_fingerprint(model: nn.Module, batches: Sequence[Batch], seed: int) -> str:
    """Names what a job starts from: the weights of a model, the data that it is run on, and a seed."""
    return statistics_fingerprint(model, (), (), batches, seed)


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
