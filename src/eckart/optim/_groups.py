"""Which parameters of a model a rule for matrices moves, and which AdamW does; and the bytes of a state."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatch
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from eckart.errors import Refused

OTHER: dict[str, Any] = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0}
"""Of AdamW, for what is no hidden matrix."""


def groups(
    model: nn.Module,
    matrix: Mapping[str, Any] | None = None,
    other: Mapping[str, Any] | None = None,
    *,
    head: str | None = None,
    exclude: Sequence[str] = (),
    show: bool = True,
) -> list[dict[str, Any]]:
    """The trainable parameters of a model in groups: hidden matrices to the rule, the rest to AdamW.

    Matrices are those of two dimensions and filters of convolutions, in structures too: the factors of a chain. A
    parameter of three or more dimensions that is no filter is a stack of matrices (experts, blocks). Embeddings, the
    head, norms, biases, and matrices of one row or column are moved by AdamW, the last three without weight decay.
    A tied matrix counts once, as an embedding.

    Args:
        model: any module.
        matrix: options of the groups of matrices, such as `{"rank": 64}`.
        other: options of AdamW for the rest; the default is a rate of 0.001 without weight decay.
        head: name of the module that is the head, "" for none; the default is what transformers calls the output
            embeddings, else the last `nn.Linear` of several.
        exclude: patterns of names of parameters that AdamW moves as well, as "*router*".
        show: prints the split.

    Returns:
        groups for any optimizer of this family, those that are not empty.

    Raises:
        Refused: nothing in the model trains, or there is no module `head`.
    """
    at_head = _head(model, head)
    found: dict[str, list[Tensor]] = {
        kind: [] for kind in ("matrices", "stacks of matrices", "embeddings", "head", "norms, biases, vectors")
    }
    for name, module, parameter in _parameters(model):
        if any(fnmatch(name, each) for each in exclude):
            kind = "embeddings" if parameter.ndim > 1 else "norms, biases, vectors"
        else:
            kind = _kind(module, parameter, module in at_head)
        found[kind].append(parameter)
    if not any(found.values()):
        raise Refused("no parameter of the model is trained: every one has requires_grad=False")
    if show:
        for kind, each in found.items():
            print(f"{kind}: {len(each)} tensors, {sum(p.numel() for p in each):,} numbers")
    rest = {**OTHER, **(other or {}), "rule": "adamw"}
    options = {
        "matrices": {**(matrix or {})},
        "stacks of matrices": {**(matrix or {}), "stacked": True},
        "norms, biases, vectors": {**rest, "weight_decay": 0.0},
    }
    return [{"params": each, **options.get(kind, rest)} for kind, each in found.items() if each]


def check_groups(model: nn.Module, groups: Iterable[Mapping[str, Any]]) -> None:
    """Refuses groups that do not hold each parameter of a model that trains just once; those made by `groups` do.

    Args:
        model: any module.
        groups: with `params`, as `optimizer.param_groups`; of several optimizers one behind the other.

    Raises:
        Refused: parameters that train are in no group, and would stay as they are without a word; one is in two
            groups, and would be moved twice; or one is none of the model's, whose own is another by now.
    """
    names: dict[Tensor, str] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(parameter, name)
    held = Counter(parameter for group in groups for parameter in group["params"])
    if twice := [names.get(p, "another") for p, count in held.items() if count > 1]:
        raise Refused(f"two groups hold {_some(twice)}, which would be moved twice: leave it to one")
    if strange := [str(tuple(p.shape)) for p in held if p not in names]:
        raise Refused(f"groups hold what is no parameter of the model, of shape {_some(strange)}: make them anew")
    if left := [name for p, name in names.items() if p.requires_grad and p not in held]:
        raise Refused(
            f"no group holds {_some(left)}, which would never move: optim.groups(model) holds all that trains, and "
            "requires_grad_(False) says that it does not"
        )


def _some(names: Sequence[str]) -> str:
    """The first three, and how many more."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _parameters(model: nn.Module) -> Iterator[tuple[str, nn.Module, Tensor]]:
    """Those that train, each once, embeddings before whatever is tied to them."""
    seen: set[Tensor] = set()
    modules = list(model.named_modules())
    for where, module in sorted(modules, key=lambda each: not _embeds(each[1])):
        for name, parameter in module.named_parameters(where, recurse=False):
            if parameter.requires_grad and parameter not in seen:
                seen.add(parameter)
                yield name, module, parameter


def _embeds(module: nn.Module) -> bool:
    return isinstance(module, nn.Embedding | nn.EmbeddingBag)


def _kind(module: nn.Module, parameter: Tensor, at_head: bool) -> str:
    if _embeds(module):
        return "embeddings"
    if at_head and parameter.ndim > 1:
        return "head"
    filters = isinstance(module, _ConvNd)
    rows = len(parameter) if parameter.ndim else 1
    shape = (rows, parameter.numel() // max(1, rows)) if filters or parameter.ndim < 3 else parameter.shape[-2:]
    if parameter.ndim < 2 or min(shape) < 2 or (parameter.ndim > 2 and rows == 1 and not filters):
        return "norms, biases, vectors"
    return "matrices" if filters or parameter.ndim == 2 else "stacks of matrices"


def _head(model: nn.Module, head: str | None) -> set[nn.Module]:
    """The modules of the head, itself and those inside."""
    if head == "":
        return set()
    if head is not None:
        if head not in dict(model.named_modules()):
            raise Refused(f"head={head!r} is no module of the model; head='' says that there is none")
        return set(model.get_submodule(head).modules())
    asked = getattr(model, "get_output_embeddings", lambda: None)()
    if asked is not None:
        return set(asked.modules())
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    return {linear[-1]} if len(linear) > 1 else set()


def state_bytes(optimizer: torch.optim.Optimizer) -> dict[str, int]:
    """The bytes of everything that an optimizer remembers, of this family or of torch's or another.

    Args:
        optimizer: after a step, before which most have no state.

    Returns:
        `state`, all tensors in its state, which `state_dict` saves; and `shared`, bases that matrices of a size have in
        common and that are made again after loading. Memory that two tensors share counts once.

    Raises:
        Refused: the state has objects that are no tensors, whose memory is not known.
    """
    shared = getattr(optimizer, "shared", {})
    return {"state": _bytes(optimizer.state), "shared": _bytes(shared)}


def _bytes(held: Any) -> int:
    memory = {(x.device, x.untyped_storage().data_ptr()): x.untyped_storage().nbytes() for x in _tensors(held)}
    return sum(memory.values())


def _tensors(held: Any) -> Iterator[Tensor]:
    if isinstance(held, Tensor) and hasattr(held, "__tensor_flatten__"):
        yield from (getattr(held, name) for name in held.__tensor_flatten__()[0])
    elif isinstance(held, Tensor):
        yield held
    elif isinstance(held, Mapping):
        for each in held.values():
            yield from _tensors(each)
    elif isinstance(held, list | tuple):
        for each in held:
            yield from _tensors(each)
    elif held is not None and not isinstance(held, bool | int | float | str):
        raise Refused(f"the state holds a {type(held).__name__}, of which it is not known what it holds in turn")
