"""What PEFT has to be told of the model that an adapter stands in, or refuses of it."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from eckart.errors import Refused
from eckart.models.fused_experts import taken_apart
from eckart.models.layers import is_conv1d

CLASSIFIERS = ("classifier", "score")
"""Modules that PEFT keeps with an adapter of a classifier; it takes every one whose name ends so."""
_MAMBA = ("out_proj", "conv1d")
BESIDE_NONE = {
    **dict.fromkeys(("mamba", "mamba2", "falcon_mamba", "falcon_h1", "nemotron_h"), _MAMBA),
    "whisper": ("conv1", "conv2"),
}
"""By type of model, the layers that PEFT puts nothing beside, or not so that the model still runs: it reads the matrix
past the layer, or attributes of a convolution that PEFT's layer does not have."""


@dataclass(frozen=True)
class Host:
    """A model, as an adapter in the layout of PEFT sees it.

    Attributes:
        task: PEFT's word for what it does; None where it has none that fits.
        transposed: whether it stores the adapter's matrices as (in, out).
        namesakes: its other modules whose names end in the name of a matrix of the adapter.
        model_type: transformers' word for its architecture, or "".
        fused: the adapter's matrices that are a part of one tensor in plain transformers.
        passed: those in an nn.TransformerEncoderLayer, whose kernel goes past its layers when it does not train.
        kept: tensors that PEFT expects in the file, by name.
    """

    task: str | None = None
    transposed: bool = False
    namesakes: tuple[str, ...] = ()
    model_type: str = ""
    fused: tuple[str, ...] = ()
    passed: tuple[str, ...] = ()
    kept: Mapping[str, Tensor] = field(default_factory=dict)

    def check(self, names: Iterable[str]) -> None:
        """Raises Refused where PEFT has no place for factors beside one of these matrices."""
        if self.fused:
            raise Refused(
                f"{self.fused[0]} is a part of a tensor that holds several matrices (fused experts, packed attention), "
                "where PEFT has no place for factors: leave it out (exclude) or merge the adapter"
            )
        for name in names:
            if (end := name.rpartition(".")[2]) in BESIDE_NONE.get(self.model_type, ()):
                raise Refused(
                    f"PEFT can put nothing beside {name} of a {self.model_type} model, which goes past the layer: "
                    f"leave it out (exclude={[end]}) or merge the adapter"
                )
        if self.passed:
            warnings.warn(
                f"{self.passed[0]}: in eval mode nn.TransformerEncoderLayer goes past its layers, and with that past "
                "PEFT's factors: call torch.backends.mha.set_fastpath_enabled(False), or merge the adapter",
                stacklevel=4,
            )

    def card(self) -> dict[str, Any]:
        """All but the tensors, as JSON."""
        words = {"task": self.task, "transposed": self.transposed, "model_type": self.model_type}
        names = {"namesakes": self.namesakes, "fused": self.fused, "passed": self.passed}
        return words | {word: list(found) for word, found in names.items()}


def known(card: Mapping[str, Any], kept: Mapping[str, Tensor]) -> Host:
    """A host from what its `card` said; eckart 0.1.0 wrote a word for language models only."""
    return Host(
        task=card.get("task", "CAUSAL_LM" if card.get("causal", True) else None),
        transposed=bool(card.get("transposed")),
        namesakes=tuple(map(str, card.get("namesakes", ()))),
        model_type=str(card.get("model_type", "")),
        fused=tuple(map(str, card.get("fused", ()))),
        passed=tuple(map(str, card.get("passed", ()))),
        kept=kept,
    )


def host(model: nn.Module, names: Iterable[str]) -> Host:
    """What PEFT has to know of a model with an adapter, or with something in the place of these of its matrices."""
    names = list(names)
    ends, own = tuple(f".{name}" for name in names), set(names)
    bases = {name: getattr(model.get_submodule(name), "base", model.get_submodule(name)) for name in names}
    inner = tuple(f"{name}." for name in names)
    config: Any = getattr(model, "config", None)
    task = _task(model, config)
    head = {n: m for n, m in model.named_modules() if n.endswith(CLASSIFIERS)} if task == "SEQ_CLS" else {}
    if any(re.match(rf"(.*\.)?({'|'.join(CLASSIFIERS)})($|\.)", name) for name in names):
        # PEFT would take the layer itself into the file, and leave out the factors beside it.
        task, head = None, {}
    packed = tuple(f"{name}." for name in taken_apart(model))
    fast = [name for name, module in model.named_modules() if isinstance(module, nn.TransformerEncoderLayer)]
    encoders = tuple(f"{name}." if name else "" for name in fast)
    return Host(
        task=task,
        transposed=any(map(is_conv1d, bases.values())),
        namesakes=tuple(
            n for n, _ in model.named_modules() if n.endswith(ends) and n not in own and not n.startswith(inner)
        ),
        model_type=str(getattr(config, "model_type", "")),
        fused=tuple(name for name in names if name.startswith(packed)),
        passed=tuple(name for name in names if name.startswith(encoders)),
        kept={f"{n}.{leaf}": tensor for n, module in head.items() for leaf, tensor in module.state_dict().items()},
    )


def _task(model: nn.Module, config: Any) -> str | None:
    """PEFT's word for what a model does. Its classes for text that goes on call a model by `input_ids`."""
    if type(model).__name__.endswith("ForSequenceClassification"):
        return "SEQ_CLS"
    if not hasattr(model, "generation_config") or getattr(model, "main_input_name", "") != "input_ids":
        return None
    return "SEQ_2_SEQ_LM" if getattr(config, "is_encoder_decoder", False) else "CAUSAL_LM"
