"""LoRA files of diffusers and kohya add alpha / rank times the product of their factors to the layers they name."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

import eckart

OLD_NAMES = {
    "conv_in": "input_blocks_0_0",
    "time_embedding.linear_1": "time_embed_0",
    "add_embedding.linear_2": "label_emb_0_2",
    "down_blocks.0.resnets.0.conv1": "input_blocks_1_0_in_layers_2",
    "down_blocks.0.resnets.1.conv2": "input_blocks_2_0_out_layers_3",
    "down_blocks.0.attentions.1.transformer_blocks.0.attn1.to_q": "input_blocks_2_1_transformer_blocks_0_attn1_to_q",
    "down_blocks.0.attentions.1.transformer_blocks.0.attn1.to_out.0": (
        "input_blocks_2_1_transformer_blocks_0_attn1_to_out_0"
    ),
    "down_blocks.0.downsamplers.0.conv": "input_blocks_3_0_op",
    "down_blocks.1.resnets.0.conv_shortcut": "input_blocks_4_0_skip_connection",
    "mid_block.attentions.0.proj_in": "middle_block_1_proj_in",
    "mid_block.resnets.1.time_emb_proj": "middle_block_2_emb_layers_1",
    "up_blocks.0.upsamplers.0.conv": "output_blocks_2_1_conv",
    "up_blocks.1.upsamplers.0.conv": "output_blocks_5_2_conv",
    "up_blocks.1.resnets.2.conv1": "output_blocks_5_0_in_layers_2",
    "up_blocks.1.attentions.2.proj_out": "output_blocks_5_1_proj_out",
    "conv_out": "out_2",
}
"""Layers of a U-Net with two blocks of a size, as diffusers and as the first programs call them."""
CONVOLUTIONS = ("conv", "conv_in", "conv_out", "conv1", "conv2", "conv_shortcut", "proj_in")


def unet() -> nn.Module:
    """A module with layers of these names and nothing else."""
    root = nn.Module()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for name in OLD_NAMES:
            above, _, leaf = name.rpartition(".")
            module = root
            for word in above.split(".") if above else ():
                if not hasattr(module, word):
                    module.add_module(word, nn.Module())
                module = getattr(module, word)
            size = 1 if leaf in ("conv_shortcut", "proj_in") else 3
            module.add_module(leaf, nn.Conv2d(6, 5, size) if leaf in CONVOLUTIONS else nn.Linear(6, 5))
    return root


def factors(model: nn.Module, rank: int = 2) -> dict[str, tuple[Tensor, Tensor, float]]:
    """(up, down, alpha) of every layer, by name."""
    draw = torch.Generator().manual_seed(1)
    found = {}
    for number, name in enumerate(n for n, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)):
        weight: Any = model.get_submodule(name).weight
        up = torch.randn(len(weight), rank, *(1,) * (weight.ndim - 2), generator=draw)
        found[name] = up, torch.randn(rank, *weight.shape[1:], generator=draw), 1.0 + number
    return found


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {n: m.weight.detach().clone() for n, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}


def merged(model: nn.Module, given: dict[str, tuple[Tensor, Tensor, float]], stated: bool) -> dict[str, Tensor]:
    found = weights(model)
    for name, (up, down, alpha) in given.items():
        product = (up.flatten(1) @ down.flatten(1)).reshape(found[name].shape)
        found[name] += (alpha / len(down) if stated else 1.0) * product
    return found


def written(file: Path, style: str, given: dict[str, tuple[Tensor, Tensor, float]], prefix: str = "lora_unet_") -> Path:
    """A file under the names of one of the programs."""
    tensors = {}
    for name, (up, down, alpha) in given.items():
        if style in ("kohya", "old names"):
            where = prefix + (name.replace(".", "_") if style == "kohya" else OLD_NAMES[name])
            tensors |= {f"{where}.lora_up.weight": up, f"{where}.lora_down.weight": down}
            tensors[f"{where}.alpha"] = torch.tensor(alpha)
        elif style == "processors" and ".attn1." in name:
            above, leaf = name.split(".attn1.")
            where = f"unet.{above}.attn1.processor.{leaf.removesuffix('.0')}_lora"
            tensors |= {f"{where}.up.weight": up, f"{where}.down.weight": down}
        else:
            first, second = {
                "diffusers": ("lora_A", "lora_B"),
                "processors": ("lora.down", "lora.up"),
                "plain": ("lora_A", "lora_B"),
            }[style]
            where = name if style == "plain" else f"unet.{name}"
            tensors |= {f"{where}.{first}.weight": down, f"{where}.{second}.weight": up}
    save_file({key: tensor.clone() for key, tensor in tensors.items()}, file)
    return file


@pytest.mark.parametrize("style", ["kohya", "old names", "diffusers", "processors", "plain"])
def test_every_way_of_naming_layers(style: str, tmp_path: Path) -> None:
    model, given = unet(), factors(unet())
    adapter = eckart.load_adapter(model, written(tmp_path / "lora.safetensors", style, given))
    assert set(adapter.paths) == set(OLD_NAMES)
    adapter.merge()
    adapter.remove()
    for name, weight in merged(unet(), given, style in ("kohya", "old names")).items():
        torch.testing.assert_close(weights(model)[name], weight, atol=1e-5, rtol=1e-5)


def test_an_encoder_a_directory_and_a_file_for_both(tmp_path: Path) -> None:
    shape: dict[str, Any] = {
        "hidden_size": 8,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    ids = {"vocab_size": 50, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    encoder = CLIPTextModel(CLIPTextConfig(**shape, **ids))
    given = factors(encoder)
    assert {name.removeprefix("text_model.") for name in given} >= {"encoder.layers.0.mlp.fc1"}
    named = {f"text_model.{name.removeprefix('text_model.')}": each for name, each in given.items()}
    one = written(tmp_path / "one.safetensors", "kohya", named, "lora_te_")
    expected = merged(encoder, given, True)
    tensors = {}
    for prefix, each in ("lora_te1_", named), ("lora_te2_", named), ("lora_unet_", factors(unet())):
        tensors |= load_file(written(tmp_path / "part.safetensors", "kohya", each, prefix))
    (tmp_path / "part.safetensors").unlink()
    adapter = eckart.load_adapter(encoder, tmp_path, name="style")
    assert adapter.name == "style"
    adapter.merge()
    adapter.remove()
    for name, weight in weights(encoder).items():
        torch.testing.assert_close(weight, expected[name], atol=1e-5, rtol=1e-5)
    one.unlink()
    several = tmp_path / "several.safetensors"
    save_file(tensors, several)
    with pytest.raises(eckart.Refused, match=r"several parts that fit CLIPTextModel, 'te1', 'te2': name one by part="):
        eckart.load_adapter(encoder, several)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        eckart.load_adapter(encoder, several, part="te2").remove()
    with pytest.warns(UserWarning, match=r"what it has for 'te1', 'te2' is left out; part='unet'"):
        eckart.load_adapter(unet(), several)
    with pytest.raises(eckart.Refused, match=r"part='te3': .* has 'te1', 'te2', 'unet'"):
        eckart.load_adapter(encoder, several, part="te3")


def test_what_a_header_says_and_three_factors(tmp_path: Path) -> None:
    model = unet()
    name, conv = "mid_block.resnets.1.time_emb_proj", "conv_in"
    down, up, middle = torch.randn(2, 6, 1, 1), torch.randn(5, 2, 1, 1), torch.randn(2, 2, 3, 3)
    tensors = {f"unet.{name}.lora_A.weight": torch.randn(2, 6), f"unet.{name}.lora_B.weight": torch.randn(5, 2)}
    file = tmp_path / "lora.safetensors"
    save_file(tensors, file, {"lora_adapter_metadata": json.dumps({"unet.r": 2, "unet.lora_alpha": 3.0})})
    before = weights(model)
    eckart.load_adapter(model, file).merge()
    found: Any = model.get_submodule(name)
    change = 1.5 * tensors[f"unet.{name}.lora_B.weight"] @ tensors[f"unet.{name}.lora_A.weight"]
    torch.testing.assert_close(found.base.weight - before[name], change)
    model = unet()
    key = f"lora_unet_{conv}"
    three = {f"{key}.lora_mid.weight": middle, f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up}
    save_file(three, file)
    eckart.load_adapter(model, file).merge()
    found = model.get_submodule(conv)
    change = torch.einsum("or,rshw,si->oihw", up[..., 0, 0], middle, down[..., 0, 0])
    torch.testing.assert_close(found.base.weight - before[conv], change, atol=1e-5, rtol=1e-5)


def test_what_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "lora.safetensors"

    def refused(tensors: dict[str, Tensor], match: str, header: dict[str, str] | None = None) -> None:
        save_file({key: tensor.clone() for key, tensor in tensors.items()}, file, header)
        model = unet()
        with pytest.raises(eckart.Refused, match=match):
            eckart.load_adapter(model, file)
        assert not any("base" in name for name, _ in model.named_modules())

    key = "lora_unet_mid_block_resnets_1_time_emb_proj"
    good = {f"{key}.lora_down.weight": torch.ones(2, 6), f"{key}.lora_up.weight": torch.ones(5, 2)}
    other = {name.replace("_1_", "_7_"): tensor for name, tensor in good.items()}
    refused(good | other, r"factors of 'lora_unet_mid_block_resnets_7_time_.*, .* \(1 of 2 layers have no place\)")
    refused(other, r"for another model: Module has no linear map that is called 'lora_unet_mid_block_resnets_7_time")
    refused(good | {f"{key}.dora_scale": torch.ones(5)}, rf"{key}\.dora_scale' of shape \(5,\) is no factor")
    refused(good | {f"{key}.alpha": torch.tensor(0.0)}, rf"alpha of {key} is 0\.0, and must be one number, not 0")
    refused(good | {f"{key}.alpha": torch.ones(2)}, r"is \[1\.0, 1\.0\], and must be one number")
    refused({f"{key}.lora_up.weight": torch.ones(5, 2)}, rf"the factors of {key} do not multiply")
    refused(good | {f"{key}.lora_up.weight": torch.ones(4, 2)}, r"has shape \(4, 6\); in this Module it is \(5, 6\)")
    refused(good | {f"{key}.lora_mid.weight": torch.ones(2, 2)}, "the three factors of .* do not multiply")
    refused(good | {f"{key}.lora_up.weight": torch.full((5, 2), torch.nan)}, "has NaN or Inf entries")
    refused(good | {f"{key}.lora_up.weight": torch.ones(5)}, r"of shape \(5,\) and torch.float32 is no factor")
    refused(good | {f"{key}.lora_up.weight": torch.ones(5, 2, dtype=torch.int8)}, "int8 is no factor")
    refused(good | {f"{key}.lora_B.weight": torch.ones(5, 2)}, "twice, by two ways of naming")
    refused(good, "lora_adapter_metadata in its header is damaged", {"lora_adapter_metadata": "["})
    diffusers = {f"unet.mid_block.resnets.1.time_emb_proj.lora_{k}.weight": torch.ones(n) for k, n in
                 {"A": (2, 6), "B": (5, 2)}.items()}  # fmt: skip
    dora = {"lora_adapter_metadata": json.dumps({"unet.r": 2, "unet.use_dora": True})}
    refused(diffusers, "made with use_dora=True", dora)
    (tmp_path / "lora.pt").write_bytes(b"")
    with pytest.raises(eckart.Refused, match=r"lora\.pt is no safetensors file; pickled ones can run code"):
        eckart.load_adapter(unet(), tmp_path / "lora.pt")
    save_file(good, file)
    save_file(good, tmp_path / "second.SAFETENSORS")
    with pytest.raises(eckart.Refused, match=r"several LoRAs, lora\.safetensors, second\.SAFETENSORS: name one"):
        eckart.load_adapter(unet(), tmp_path)
    assert list(eckart.load_adapter(unet(), tmp_path / "second.SAFETENSORS").places)
    with pytest.raises(eckart.Refused, match=r"there is no file or directory .*third\.safetensors"):
        eckart.load_adapter(unet(), tmp_path / "third.safetensors")
