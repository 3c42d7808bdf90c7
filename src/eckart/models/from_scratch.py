"""A model of a configuration whose weights are drawn anew, as its class draws them."""

from __future__ import annotations

from pathlib import Path

import torch

from eckart.errors import Refused, abridged
from eckart.files.json import read_json
from eckart.machine import device_named
from eckart.models.architectures import class_of
from eckart.models.config_checks import check_kernels
from eckart.models.quantized_input import quantization_of
from eckart.models.transformers import Loaded, library, processor_of


def from_scratch(source: str, seed: int, *, device: str = "cpu") -> Loaded:
    """A model with the configuration of a directory, in float32, and what reads for it; weights there are not read.

    Args:
        source: a local directory with config.json and a tokenizer.
        seed: of the weights; the generator of torch is left as it was.
        device: where the model is put.

    Raises:
        Refused: no such directory, a configuration of no class that transformers has, one of codes, or no tokenizer.
    """
    path = Path(source)
    if not (path / "config.json").is_file():
        raise Refused(f"{source} has no config.json; name a directory that holds one, and a tokenizer")
    transformers = library()
    where, name = device_named(device), str(path)
    said = read_json(path / "config.json")
    check_kernels(said, path / "config.json")
    if quantization_of(said) is not None:
        raise Refused(f"{source} is the configuration of a model in codes, which cannot be drawn: name a dense one")
    safely = {"trust_remote_code": False, "local_files_only": True}
    try:
        config = transformers.AutoConfig.from_pretrained(name, **safely)
        kind = class_of(config, transformers, source)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = kind._from_config(config, dtype=torch.float32)
    except Refused:
        raise
    except Exception as error:  # what a configuration says may break anything
        raise Refused(f"{source} cannot be drawn: {abridged(error, 1000)}") from error
    return Loaded(model.to(where).eval(), processor_of(name, path, model, safely), source)
