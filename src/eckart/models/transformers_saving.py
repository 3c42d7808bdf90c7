"""How transformers writes models with structured modules: `save_pretrained` says in config.json what they are."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import PretrainedConfig, PreTrainedModel

from eckart.files.atomic import replacing
from eckart.files.json import read_json
from eckart.models import checkpoint
from eckart.models.transformers import METHOD
from eckart.models.transformers_quantizer import UNREAD, EckartConfig


def install() -> None:
    """Has `save_pretrained` of every model write what `from_pretrained` reads to the same tensors.

    Whoever saves a model of transformers ends there: Trainer, accelerate, sentence-transformers, `push_to_hub`.
    """
    if not hasattr(PreTrainedModel.save_pretrained, "_eckart"):
        PreTrainedModel.save_pretrained = _saving(PreTrainedModel.save_pretrained)
        PretrainedConfig.to_dict = _described(PretrainedConfig.to_dict)


def describe(model: PreTrainedModel) -> bool:
    """Enters the structured modules that a model has now in its configuration, and returns whether there are any."""
    contents = checkpoint.manifest(model)
    if contents["modules"] or "unfused" in contents:
        model.config.quantization_config = EckartConfig(**contents)
        return True
    if is_ours(getattr(model.config, "quantization_config", None)):
        del model.config.quantization_config
    return False


def is_ours(quantization: Any) -> bool:
    """Whether the `quantization_config` of a configuration is that of a compressed model."""
    found = quantization.get("quant_method") if isinstance(quantization, dict) else quantization
    return found == METHOD or isinstance(found, EckartConfig)


def _saving(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def save_pretrained(self: PreTrainedModel, *args: Any, **options: Any) -> Any:
        if describe(self):
            # The names of now: those of the original checkpoint may stand for tensors that are no longer there.
            options["save_original_format"] = False
            if options.get("state_dict") is None and not any(p.is_meta for p in self.parameters()):
                options["state_dict"] = {name: t.contiguous() for name, t in self.state_dict().items()}
            found = original(self, *args, **options)
            directory = Path(args[0] if args else options["save_directory"])
            if options.get("is_main_process", True) and not options.get("variant"):
                _add_checksums(directory)
            return found
        return original(self, *args, **options)

    save_pretrained._eckart = True  # type: ignore[attr-defined]
    return save_pretrained


def _add_checksums(directory: Path) -> None:
    """Enters the checksums of all tensors of a directory in its config.json, as they are in the files."""
    file = directory / "config.json"
    config = read_json(file)
    config["quantization_config"] = checkpoint.sealed(config["quantization_config"], directory)
    with replacing(file) as temporary:
        temporary.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", "utf-8")


def _described(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def to_dict(self: PretrainedConfig) -> dict[str, Any]:
        found: dict[str, Any] = original(self)
        if is_ours(found.get("quantization_config")):
            found["transformers_weights"] = UNREAD
        return found

    return to_dict
