"""A plain module with ties and buffers, compressed models on disk, and edits of files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import eckart
from support.tiny import VOCABULARY, tiny_gpt2, tiny_llama

IDS = torch.arange(24).view(2, 12) * 7 % VOCABULARY


class Net(nn.Module):
    """A plain module: tied embedding and head, the head with a bias; one layer under two names; a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 12)
        self.first = nn.Linear(12, 12)
        self.norm = nn.BatchNorm1d(12)
        self.second = self.first
        self.head = nn.Linear(12, 20)
        self.head.weight = self.embed.weight

    def get_output_embeddings(self) -> nn.Module:
        return self.head

    def forward(self, ids: Tensor) -> Tensor:
        logits: Tensor = self.head(self.second(self.norm(self.first(self.embed(ids)))))
        return logits


def net(seed: int = 0) -> Net:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Net().eval()
        nn.init.normal_(model.head.bias)
        nn.init.normal_(model.norm.running_mean)
    return model


def squeezed(model: nn.Module, method: str = "svd", **options: Any) -> nn.Module:
    eckart.compress(model, method, keep=0.75, of="bytes", calibration=IDS % 20, **options)
    return model


def assert_equal(a: nn.Module, b: nn.Module) -> None:
    first, second = a.state_dict(), b.state_dict()
    assert first.keys() == second.keys()
    for name in first:
        assert first[name].dtype == second[name].dtype, name
        assert torch.equal(first[name], second[name]), name


CASES = {
    "kfac": ("llama", {"method": "kfac", "embeddings": True}),
    "lord": ("gpt2", {"method": "lord"}),
    "gptq": ("llama", {"method": "gptq", "head": True}),
    "sequential": ("gpt2", {"method": "kfac", "sequential": True}),
    "untied": ("untied", {"method": "svd", "embeddings": True, "head": True}),
}


def base(kind: str) -> nn.Module:
    return {"llama": tiny_llama, "gpt2": tiny_gpt2, "untied": lambda: tiny_llama(tied=False)}[kind]()


def edit_json(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    value = json.loads(file.read_text())
    change(value)
    file.write_text(json.dumps(value))


def edit_tensors(directory: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    file = directory / "model.safetensors"
    tensors = {name: t.clone() for name, t in load_file(file).items()}
    change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})
