"""How transformers reads compressed models: the quantizer that swaps their structures in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from safetensors import safe_open
from torch import nn
from transformers.quantizers.auto import register_quantization_config, register_quantizer
from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from eckart.errors import Refused
from eckart.models import checkpoint
from eckart.models.fused_experts import unfuse_named
from eckart.models.modules import TiedLinear
from eckart.models.transformers import METHOD


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

    def _process_model_before_weight_loading(
        self, model: nn.Module, checkpoint_files: Sequence[str] | None = None, **_: Any
    ) -> nn.Module:
        modules = checkpoint.check_manifest(self.quantization_config.manifest, "config.json")
        unfuse_named(model, self.quantization_config.manifest.get("unfused", ()))
        dense = dict(model.named_modules())
        checkpoint.rebuild(model, modules)
        for name in modules:
            # The skeleton has the dtype that was asked for.
            model.get_submodule(name).to(dense[name].weight.dtype)
        _check_tensors(model, modules, checkpoint_files or ())
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


def _check_tensors(model: nn.Module, names: Iterable[str], files: Sequence[str]) -> None:
    """Raises Refused where files lack a tensor of a structure: transformers would allocate it, whatever its size."""
    files = [file for file in files if file.endswith(".safetensors")]
    shapes: dict[str, tuple[int, ...]] = {}
    for file in files:
        with safe_open(file, "pt") as opened:
            shapes |= {key: tuple(opened.get_slice(key).get_shape()) for key in opened.keys()}  # noqa: SIM118
    for name in names if files else ():
        for key, tensor in model.get_submodule(name).state_dict(prefix=f"{name}.").items():
            if key not in shapes:
                raise Refused(f"the checkpoint lacks {key}, of shape {tuple(tensor.shape)}")
            if shapes[key] != tuple(tensor.shape):
                raise Refused(f"{key}: the file holds shape {shapes[key]}, not {tuple(tensor.shape)}")


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
