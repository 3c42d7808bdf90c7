"""What version 0.1.0 wrote loads bit for bit."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

import eckart
from support.tiny import tiny_llama

WRITTEN = Path(__file__).parent / "data" / "v0.1.0"
EXPECTED: dict[str, dict[str, str]] = json.loads((WRITTEN / "digests.json").read_text("utf-8"))


def digests(state: Mapping[str, Tensor]) -> dict[str, str]:
    """Of each tensor the first 16 hexadecimal digits of the SHA-256 of its bytes."""

    def digest(tensor: Tensor) -> str:
        content = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        return hashlib.sha256(content).hexdigest()[:16]

    return {name: digest(tensor) for name, tensor in state.items()}


def test_a_compressed_model() -> None:
    model = AutoModelForCausalLM.from_pretrained(WRITTEN / "compressed")
    assert digests(model.state_dict()) == EXPECTED["compressed"]
    assert torch.isfinite(model(torch.arange(12)[None]).logits).all()


def test_a_module() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 16), nn.ReLU(), nn.Linear(16, 4))
    net = eckart.load(WRITTEN / "module", net)
    assert digests(net.state_dict()) == EXPECTED["module"]
    assert torch.isfinite(net(torch.ones(2, 3, 8, 8))).all()


def test_an_adapter() -> None:
    model = tiny_llama()
    eckart.load_adapter(model, WRITTEN / "adapter")
    state: dict[str, Tensor] = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    assert state.keys() >= {name for name in EXPECTED["adapter"] if ".paths." in name or ".taken." in name}
    # The model beside the adapter is drawn by the test: what comes from the file is compared.
    loaded = {name: tensor for name, tensor in state.items() if ".paths." in name}
    assert len(loaded) == len(load_file(WRITTEN / "adapter" / "adapter.safetensors"))
    assert digests(loaded) == {name: EXPECTED["adapter"][name] for name in loaded}
