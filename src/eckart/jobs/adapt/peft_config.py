"""What `adapter_config.json` says of a LoRA, understood as PEFT 0.21 understands it."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from eckart.errors import Refused

READ = {
    *("peft_type", "r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "init_lora_weights"),
    *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "modules_to_save"),
}
"""Fields that are read."""
WITHOUT_EFFECT = {
    *("task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode"),
    # PEFT corrects the first itself; the others act in training, or say more of a start that another field names.
    *("fan_in_fan_out", "lora_dropout", "velora_config", "runtime_config", "ensure_weight_tying"),
    *("loftq_config", "eva_config", "corda_config", "lora_ga_config", "qalora_group_size", "megatron_core"),
}
"""Fields that do not change what a trained LoRA computes."""
BEYOND = {
    "use_dora": "DoRA divides the rows of the changed matrix by their norms",
    "bias": "biases were trained too",
    "lora_bias": "a bias was trained with the factors",
    "trainable_token_indices": "rows of an embedding were trained",
    "target_parameters": "it stands beside tensors that no layer of its own holds, such as fused experts",
    "layer_replication": "it repeats layers of the model",
    "megatron_config": "it is for the layers of Megatron",
    "alora_invocation_tokens": "it acts behind certain tokens only",
    "use_qalora": "it averages groups of inputs of a quantized matrix",
    "use_bdlora": "its factors are block diagonal",
    "arrow_config": "it mixes several adapters by the input",
    "kasa_config": "it leaves out the smallest singular values of the matrices",
    "monteclora_config": "its factors are drawn at random in training",
}
"""Fields of variants that are more than a product beside a matrix, and what they do."""
STARTS_BESIDE_W = ("gaussian", "eva", "orthogonal", "mica")
STARTS_OUT_OF_W = ("pissa", "olora")
MERGE = "merge it in PEFT (merge_and_unload) and use the merged model"
CONVERT = "save it in PEFT with path_initial_model_for_weight_conversion, which makes it an ordinary LoRA"
_UNSET: tuple[object, ...] = (None, False, "none", "", [], {})

Names = str | list[str]


@dataclass(frozen=True)
class LoraConfig:
    """A LoRA's configuration, as far as it bears on what the adapter computes.

    Attributes:
        rank, alpha: of every matrix that no pattern names.
        ranks, alphas: by pattern; see `patterns_of`.
        stabilised: whether paths are multiplied by alpha / sqrt(rank) instead of alpha / rank.
        start: "pissa" or "olora" where it was taken out of the matrices, which PEFT does again on loading; else "".
        targets: a regular expression, names or ends of names, "all-linear", or None where the model's type decides.
        left: likewise, of matrices that are left alone.
        saved: modules that the file brings whole; no factors stand beside them.
        layers, lists: numbers of layers that are taken, and names of the lists of layers that they count in.
    """

    rank: int
    alpha: float
    ranks: dict[str, int]
    alphas: dict[str, float]
    stabilised: bool
    start: str
    targets: Names | None
    left: Names | None
    saved: list[str]
    layers: list[int] | None
    lists: list[str]

    def ranks_of(self, where: str) -> set[int]:
        """The ranks that one matrix may have."""
        return {self.ranks[pattern] for pattern in patterns_of(self.ranks, where)} or {self.rank}

    def alpha_of(self, where: str, names: Collection[str]) -> float:
        """What the product of the factors of one matrix is multiplied by, times its rank or the root of that.

        In PEFT the first pattern that matches counts, but it forgets their order when it saves. Where several match
        that differ, the narrowest counts, which would be without effect behind a wider one.

        Args:
            where: name of the matrix.
            names: of all matrices of the adapter.
        """
        found = patterns_of(self.alphas, where)
        if len(found) < 2:
            return self.alphas[found[0]] if found else self.alpha
        narrowness = {p: (sum(where in patterns_of([p], where) for where in names), -len(p)) for p in found}
        return self.alphas[min(found, key=narrowness.__getitem__)]

    def ambiguous(self, names: Collection[str]) -> list[str]:
        """The matrices whose scale hangs on an order of patterns that PEFT forgets."""
        return [n for n in names if len({self.alphas[pattern] for pattern in patterns_of(self.alphas, n)}) > 1]

    def scale_of(self, where: str, rank: int, names: Collection[str]) -> float:
        """What the product of the factors of one matrix is multiplied by."""
        return self.alpha_of(where, names) / (math.sqrt(rank) if self.stabilised else rank)

    def takes(self, where: str) -> bool:
        """Whether PEFT puts factors beside a linear map of that name; beside another it would ignore them."""
        if self.left and _named(self.left, where):
            return False
        if any(_match(rf"(^|.*\.){name}($|\..*)", where) for name in self.saved):
            return False
        if self.targets is None or self.targets == "all-linear":
            return True
        if not _named(self.targets, where):
            return False
        return isinstance(self.targets, str) or self.layers is None or self._layer_of(where) in self.layers

    def _layer_of(self, where: str) -> int | None:
        """The number of the layer that a module is in: the first in its name, or behind the name of a list."""
        number = r"\.(?P<number>\d+)\."
        patterns = [rf"(?:^|.*?\.){name}{number}" for name in self.lists] or [rf".*?\.[^.]*{number}"]
        found = [match for match in (_match(pattern, where) for pattern in patterns) if match]
        return int(found[0]["number"]) if found else None


def patterns_of(patterns: Iterable[str], where: str) -> list[str]:
    """Those of some patterns that match a name from one of its dots, or from its beginning, to its end."""
    return [pattern for pattern in patterns if _match(rf"(.*\.)?({pattern})$", where)]


def read_config(config: dict[str, Any], source: Path) -> LoraConfig:
    """What the JSON of an adapter of PEFT says.

    Raises:
        Refused: another type than LoRA, a variant that is more than a product beside a matrix, a start that the file
            lacks, a field that is not known here, or a value that cannot be.
    """
    if config.get("peft_type") != "LORA":
        raise Refused(f"{source} is an adapter of type {config.get('peft_type')!r}; only LORA can be read")
    for word, value in config.items():
        if word in READ | WITHOUT_EFFECT or value in _UNSET:
            continue
        if word not in BEYOND:
            raise Refused(f"{source} was made with {word}={value!r}, which is not known here: {MERGE}")
        raise Refused(f"{source} was made with {word}={value!r}: {BEYOND[word]}; {MERGE}")
    layers, start = config.get("layers_to_transform"), _start(config.get("init_lora_weights", True), source)
    try:
        found = LoraConfig(
            rank=int(config.get("r", 8)),
            alpha=float(config.get("lora_alpha", 8)),
            ranks={str(pattern): int(rank) for pattern, rank in (config.get("rank_pattern") or {}).items()},
            alphas={str(pattern): float(alpha) for pattern, alpha in (config.get("alpha_pattern") or {}).items()},
            stabilised=bool(config.get("use_rslora")),
            start=start,
            targets=_names(config.get("target_modules")),
            left=_names(config.get("exclude_modules")),
            saved=_listed(config.get("modules_to_save")),
            layers=[layers] if isinstance(layers, int) else [int(layer) for layer in layers or ()] or None,
            lists=_listed(config.get("layers_pattern")),
        )
        scales = [found.alpha, *found.alphas.values()]
        if min([found.rank, *found.ranks.values()]) < 1 or not all(map(math.isfinite, scales)):
            raise ValueError("a rank below 1, or a scale that is not finite")
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise Refused(f"the configuration of {source} is damaged: {error}") from error
    return found


def _start(value: object, source: Path) -> str:
    if value in STARTS_OUT_OF_W:
        return str(value)
    if value in (True, False, None) or value in STARTS_BESIDE_W:
        return ""
    made = f"{source} was made with init_lora_weights={value!r}"
    if value == "loftq":
        raise Refused(f"{made}, beside matrices that were quantized, which are not in the file: {MERGE}")
    if value in ("corda", "lora_ga") or str(value).startswith("pissa_niter_"):
        raise Refused(f"{made}: what was taken out of the matrices at its start is not in the file; {CONVERT}")
    raise Refused(f"{made}, which is not known here: {MERGE}")


def _names(value: Any) -> Names | None:
    if value is None or isinstance(value, str):
        return "all-linear" if value is not None and value.lower() == "all-linear" else value
    return _listed(value)


def _listed(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else [str(name) for name in value or ()]


def _named(names: Names, where: str) -> bool:
    """Whether a regular expression is all of a name, or one of several names is or ends it."""
    if isinstance(names, str):
        return _match(names, where, whole=True) is not None
    return any(where == name or where.endswith(f".{name}") for name in names)


def _match(pattern: str, where: str, *, whole: bool = False) -> re.Match[str] | None:
    compiled = _compiled(pattern)
    return compiled.fullmatch(where) if whole else compiled.match(where)


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise Refused(f"{pattern!r} is not a regular expression: {error}") from error


def peft_config(
    ranks: dict[str, int], *, task: str | None, transposed: bool, namesakes: Sequence[str]
) -> dict[str, Any]:
    """PEFT's configuration of a LoRA with these ranks and the scale 1, for just the matrices of these names.

    Args:
        ranks: by the full name of a matrix.
        task: PEFT's word for what the model does; None where it has none.
        transposed: whether the model stores its matrices as (in, out).
        namesakes: names of other modules that end in one of these, which PEFT would take too.
    """
    ordered = list(ranks.values())
    usual = max(sorted(set(ordered)), key=ordered.count)
    others = {f"^{re.escape(name)}": rank for name, rank in ranks.items() if rank != usual}
    return {
        "peft_type": "LORA",
        "task_type": task,
        "base_model_name_or_path": None,
        "inference_mode": True,
        "target_modules": list(ranks),
        "exclude_modules": "|".join(map(re.escape, namesakes)) or None,
        "r": usual,
        "lora_alpha": usual,
        "rank_pattern": others,
        "alpha_pattern": others,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": transposed,
    }
