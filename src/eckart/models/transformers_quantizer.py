"""How transformers reads compressed models: the quantizer that swaps their structures in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers.quantizers.auto import register_quantization_config, register_quantizer
from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from eckart.files.tensors import CHECKSUMS, SEAL
from eckart.models import checkpoint
from eckart.models.fused_experts import unfuse_named
from eckart.models.modules import StructuredEmbedding, TiedEmbedding, TiedLinear, tied_by_construction
from eckart.models.placement import Placement
from eckart.models.places import set_module
from eckart.models.tensor_checks import check_files
from eckart.models.transformers import METHOD

UNREAD = "import-eckart-before-from_pretrained.safetensors"
"""The file that transformers is sent to for the tensors of a compressed model, and does not find, unless eckart is
imported: it would only warn of a quantization that it does not know, and draw random matrices."""


_KEYS = ("format", "version", "modules", "unfused", CHECKSUMS, SEAL)


@register_quantization_config(METHOD)
class EckartConfig(QuantizationConfigMixin):
    """The `quantization_config` of a compressed model: the manifest of its structured modules."""

    def __init__(self, **values: Any) -> None:
        self.quant_method = METHOD
        self.manifest = {k: v for k, v in values.items() if k in _KEYS}

    def to_dict(self) -> dict[str, Any]:
        # Checksums are of the tensors that were read; those of the model may have changed since.
        return {"quant_method": METHOD, **{k: v for k, v in self.manifest.items() if k not in (CHECKSUMS, SEAL)}}


@register_quantizer(METHOD)
class EckartQuantizer(HfQuantizer):
    """Swaps structured modules into the skeleton before transformers reads the tensors."""

    requires_calibration = False

    def update_attn_implementation(self, config: Any) -> Any:
        """Is the first to see the configuration: from here on, tensors are looked for where they are."""
        vars(config).pop("transformers_weights", None)
        return config

    update_tp_plan = update_attn_implementation  # which is the first before transformers 5.20

    def _process_model_before_weight_loading(
        self, model: nn.Module, checkpoint_files: Sequence[str] | None = None, **_: Any
    ) -> nn.Module:
        manifest = self.quantization_config.manifest
        saved = checkpoint.check_manifest(manifest, "config.json")
        place = Placement(model, saved)
        unfuse_named(model, place.sources(manifest.get("unfused", ())))
        modules = place.modules(saved)
        dense = dict(model.named_modules())
        checkpoint.rebuild(model, modules)
        files = [Path(file) for file in checkpoint_files or () if file.endswith(".safetensors")]
        if files:
            with torch.device("cpu"):  # transformers 5.0 is here where tensors are made on the meta device
                check_files(files, manifest, "config.json", model.state_dict())
        for name in modules:
            # The skeleton has the dtype that was asked for.
            model.get_submodule(name).to(dense[name].weight.dtype)
        _tie(model)
        _skip_initialisation(model, modules)
        self._modules = modules
        return model

    def _process_model_after_weight_loading(self, model: Any, **_: Any) -> Any:
        # A model like any other from here on: it trains, and `save_pretrained` sees by itself what it is made of.
        for name, entry in self._modules.items():
            if "frozen" not in entry:
                continue
            checkpoint.freeze(name, model.get_submodule(name).structure, entry)
        self.remove_quantization_config(model)
        for module in model.modules():
            vars(getattr(module, "config", model.config)).pop("_is_quantized", None)
        model.config.quantization_config = self.quantization_config
        return model

    def is_serializable(self, *_: Any, **__: Any) -> bool:
        return True

    @property
    def is_trainable(self) -> bool:
        return True


def _tie(model: Any) -> None:
    """Ties what transformers would tie to the dense matrix of an embedding that is structured."""
    modules = dict(model.named_modules(remove_duplicate=False))
    for target, source in model.all_tied_weights_keys.items():
        name = target.removesuffix(".weight")
        owner, dense = modules.get(source.removesuffix(".weight")), modules.get(name)
        if isinstance(owner, StructuredEmbedding) and isinstance(dense, nn.Embedding):
            set_module(model, name, TiedEmbedding(owner))
        elif isinstance(owner, StructuredEmbedding) and isinstance(dense, nn.Linear):
            set_module(model, name, TiedLinear(owner, dense.bias))
    tied_by_construction(model)


def _skip_initialisation(model: nn.Module, names: Iterable[str]) -> None:
    """Marks the containers of structured modules as initialised: some look for a dense weight in them otherwise."""
    for name in names:
        parts = name.split(".")
        for i in range(1, len(parts)):
            container: Any = model.get_submodule(".".join(parts[:i]))
            if not container._parameters and not container._buffers:
                container._is_hf_initialized = True
