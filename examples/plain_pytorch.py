"""Compresses a network that is nobody's language model, saves it, and loads it again.

python examples/plain_pytorch.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from torch import nn

import eckart


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 8)).eval()


def main() -> None:
    torch.manual_seed(0)
    net = network()
    # Inputs that lie near a subspace, as real ones do: what the data never uses need not be stored.
    basis = torch.randn(12, 64)
    inputs = torch.randn(1024, 12) @ basis + 0.05 * torch.randn(1024, 64)
    unseen = torch.randn(256, 12) @ basis + 0.05 * torch.randn(256, 64)
    with torch.no_grad():
        expected = net(unseen)
        result = eckart.compress(net, "kfac", keep=0.5, calibration=[inputs])
        error = float((net(unseen) - expected).norm() / expected.norm())
    for name, size in result.choice.items():
        print(f"{name}: {'dense' if size is None else f'rank {size}'}")
    print(f"relative error on unseen inputs: {error:.4f}")

    with tempfile.TemporaryDirectory() as folder:
        eckart.save(net, Path(folder) / "net")
        same = eckart.load(Path(folder) / "net", network())
        with torch.no_grad():
            assert torch.equal(same(unseen), net(unseen))
    print("saved, loaded, and the same bit for bit")


if __name__ == "__main__":
    main()
