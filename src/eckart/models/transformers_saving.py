"""How transformers writes models with structured modules: `save_pretrained` says in config.json what they are."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel

from eckart.errors import Refused
from eckart.files.atomic import replacing
from eckart.files.json import read_json
from eckart.models import checkpoint
from eckart.models.tensor_checks import STRUCTURE
from eckart.models.transformers import METHOD
from eckart.models.transformers_quantizer import UNREAD, EckartConfig
from eckart.models.weights import Readable


def install() -> None:
    """Has `save_pretrained` of every model write what `from_pretrained` reads to the same tensors.

    Whoever saves a model of transformers ends there: Trainer, accelerate, sentence-transformers, `push_to_hub`.
    """
    if not hasattr(PreTrainedModel.save_pretrained, "_eckart"):
        PreTrainedModel.save_pretrained = _saving(PreTrainedModel.save_pretrained)
        PreTrainedModel.from_pretrained = classmethod(_loading(PreTrainedModel.from_pretrained.__func__))
        PreTrainedModel.resize_token_embeddings = _resizing(PreTrainedModel.resize_token_embeddings)
        PretrainedConfig.to_dict = _described(PretrainedConfig.to_dict)


def describe(model: PreTrainedModel) -> EckartConfig | None:
    """Enters the structured modules that a model has now in its configuration; returns them, None without any."""
    contents = checkpoint.manifest(model)
    if contents["modules"] or "unfused" in contents:
        found = EckartConfig(**contents)
        model.config.quantization_config = found
        return found
    if is_ours(getattr(model.config, "quantization_config", None)):
        del model.config.quantization_config
    return None


def write_config(model: PreTrainedModel, directory: Path) -> None:
    """Writes what `save_pretrained` writes beside the tensors, for a model whose tensors are in files already."""
    describe(model)
    model.config.dtype = str(model.dtype).removeprefix("torch.")
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(directory)
    if model.can_generate():
        model.generation_config.save_pretrained(directory)


def seal_config(directory: Path) -> None:
    """Enters the checksums of all tensors of a directory in its config.json, where that describes structures."""
    if is_ours(read_json(directory / "config.json").get("quantization_config")):
        _add_checksums(directory)


def is_ours(quantization: Any) -> bool:
    """Whether the `quantization_config` of a configuration is that of a compressed model."""
    found = quantization.get("quant_method") if isinstance(quantization, dict) else quantization
    return found == METHOD or isinstance(found, EckartConfig)


def _saving(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def save_pretrained(self: PreTrainedModel, *args: Any, **options: Any) -> Any:
        if (described := describe(self)) is not None:
            # The names of now: those of the original checkpoint may stand for tensors that are no longer there.
            options["save_original_format"] = False
            if not any(p.is_meta for p in self.parameters()):
                options["state_dict"] = _to_write(self, described, options.get("state_dict"))
            found = original(self, *args, **options)
            directory = Path(args[0] if args else options["save_directory"])
            if options.get("is_main_process", True) and not options.get("variant"):
                _add_checksums(directory)
            return found
        return original(self, *args, **options)

    save_pretrained._eckart = True  # type: ignore[attr-defined]
    return save_pretrained


def _to_write(model: PreTrainedModel, described: EckartConfig, given: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
    """The tensors of a model, or those given in their place, as they are described.

    Those of structures are of the dtypes that they have in the model, and share no storage: a tie is none to them.
    """
    own = model.state_dict()
    inside = tuple(f"{name}." for name in described.manifest["modules"])
    written = {name: tensor.contiguous() for name, tensor in (own if given is None else given).items()}
    seen: set[int] = set()
    for name in sorted(written, key=lambda name: name.startswith(inside)):
        tensor = written[name]
        if name.startswith(inside):
            tensor = tensor.to(own[name].dtype) if name in own else tensor
            written[name] = tensor.clone() if tensor.untyped_storage().data_ptr() in seen else tensor
        seen.add(tensor.untyped_storage().data_ptr())
    return written


def _loading(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def from_pretrained(cls: Any, *args: Any, output_loading_info: bool = False, **options: Any) -> Any:
        try:
            model, info = original(cls, *args, output_loading_info=True, **options)
        except OSError as error:
            if UNREAD not in str(error):
                raise
            raise Refused(f"{_ELSEWHERE.format(kind=cls.__name__)} ({error})") from error
        strays = any(STRUCTURE in key for key in info["unexpected_keys"])
        if strays and not is_ours(getattr(model.config, "quantization_config", None)):
            raise Refused(_ELSEWHERE.format(kind=cls.__name__))
        return (model, info) if output_loading_info else model

    return from_pretrained


def _resizing(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def resize_token_embeddings(
        self: PreTrainedModel,
        new_num_tokens: int | None = None,
        pad_to_multiple_of: int | None = None,
        mean_resizing: bool = True,
    ) -> Any:
        tables = self.get_input_embeddings(), self.get_output_embeddings()
        fixed = [table for table in tables if isinstance(table, Readable)]
        same = new_num_tokens in (None, getattr(tables[0], "num_embeddings", None)) and pad_to_multiple_of is None
        if fixed and not same:
            raise Refused(
                f"the {'embedding' if fixed[0] is tables[0] else 'head'} of this {type(self).__name__} is compressed, "
                "or an adapter stands beside it, and gets no further rows: resize the dense model first and compress "
                "it then, or write a dense one with eckart export --to dense"
            )
        return original(self, new_num_tokens, pad_to_multiple_of, mean_resizing)

    return resize_token_embeddings


_ELSEWHERE = (
    "the checkpoint holds matrices that eckart compressed, and the configuration that {kind} was given does not "
    "describe them: load the whole model, with the configuration of its own directory, and take the part from it"
)


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
            for part in (found, *found.values()):
                if isinstance(part, dict) and "model_type" in part:
                    part["transformers_weights"] = UNREAD
        return found

    return to_dict
