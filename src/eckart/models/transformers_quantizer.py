"""How transformers reads compressed models: the quantizer that swaps their structures in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from safetensors import safe_open
from torch import nn
from transformers.quantizers.auto import register_quantization_config, register_quantizer
from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from eckart.errors import Refused
from eckart.models import checkpoint
from eckart.models.fused_experts import unfuse_named
from eckart.models.modules import StructuredEmbedding, TiedEmbedding, TiedLinear, tied_by_construction
from eckart.models.placement import Placement
from eckart.models.sites import set_module
from eckart.models.transformers import METHOD

UNREAD = "import-eckart-before-from_pretrained.safetensors"
"""The file that transformers is sent to for the tensors of a compressed model, and does not find, unless eckart is
imported: it would only warn of a quantization that it does not know, and draw random matrices."""


@register_quantization_config(METHOD)
class EckartConfig(QuantizationConfigMixin):
    """The `quantization_config` of a compressed model: the manifest of its structured modules."""

    def __init__(self, **values: Any) -> None:
        self.quant_method = METHOD
        self.manifest = {k: v for k, v in values.items() if k in ("format", "version", "modules", "unfused")}

    def to_dict(self) -> dict[str, Any]:
        return {"quant_method": METHOD, **self.manifest}


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
        for name in modules:
            # The skeleton has the dtype that was asked for.
            model.get_submodule(name).to(dense[name].weight.dtype)
        _check_tensors(model, place.sources(saved), checkpoint_files or ())
        _tie(model)
        _skip_initialisation(model, modules)
        return model

    def _process_model_after_weight_loading(self, model: Any, **_: Any) -> Any:
        if not any(p.is_meta for p in model.parameters()):
            checkpoint.check_values(model)
        # A model like any other from here on: it trains, and `save_pretrained` sees by itself what it is made of.
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


def _check_tensors(model: nn.Module, names: Mapping[str, str], files: Sequence[str]) -> None:
    """Raises Refused where files lack a tensor of a structure: transformers would allocate it, whatever its size.

    Args:
        model: with its structured modules in place.
        names: of those, each with the name that it has in the files.
        files: those that end in .safetensors are read.
    """
    files = [file for file in files if file.endswith(".safetensors")]
    shapes: dict[str, tuple[int, ...]] = {}
    for file in files:
        with safe_open(file, "pt") as opened:
            shapes |= {key: tuple(opened.get_slice(key).get_shape()) for key in opened.keys()}  # noqa: SIM118
    for name, saved in names.items() if files else ():
        for key, tensor in model.get_submodule(name).state_dict(prefix=f"{saved}.").items():
            if key not in shapes:
                raise Refused(f"the checkpoint lacks {key}, of shape {tuple(tensor.shape)}")
            if shapes[key] != tuple(tensor.shape):
                raise Refused(f"{key}: the file holds shape {shapes[key]}, not {tuple(tensor.shape)}")


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
