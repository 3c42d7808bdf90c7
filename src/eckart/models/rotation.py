"""A rotation of the residual stream of a language model, which changes its matrices and not its outputs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from eckart.errors import Refused
from eckart.models.modules import StructuredEmbedding, StructuredLinear, tied_by_construction
from eckart.models.places import set_module
from eckart.structures import Chain, Dense, Repeated, Shared, StructuredMatrix
from eckart.structures.rotations import random_rotation

_LAYERS = frozenset(
    f"{name}DecoderLayer" for name in ("Llama", "Mistral", "Qwen2", "Qwen3", "SmolLM3", "Granite", "Phi3")
)
"""Layers that read the stream through a norm with gains and add to it, and do nothing else with it."""
_READERS = (
    ("input_layernorm", "self_attn", ("q_proj", "k_proj", "v_proj", "qkv_proj")),
    ("post_attention_layernorm", "mlp", ("gate_proj", "up_proj", "gate_up_proj")),
)
"""A norm, the part behind it, and the matrices of the part that read what the norm makes."""
_WRITERS = (("self_attn", "o_proj"), ("mlp", "down_proj"))
"""Matrices whose outputs are added to the stream."""
_TOLERANCE = 1e-4


@dataclass
class _Stream:
    """Who reads and writes the residual stream of a model."""

    embedding: nn.Embedding
    head: nn.Linear
    norms: list[tuple[Any, list[nn.Linear]]] = field(default_factory=list)
    writers: list[nn.Linear] = field(default_factory=list)
    heads: list[tuple[nn.Linear, nn.Linear, int]] = field(default_factory=list)


@torch.no_grad()
def rotate(model: nn.Module, seed: int = 0) -> None:
    """Rotates the residual stream of a language model, and the values of every attention head, by random rotations.

    The gains of the norms go into the matrices that read what they norm. Then with x the stream and R orthogonal the
    model is written in R x: its readers take W R^T, its writers R W, and the norms, which only divide by the length of
    x, see nothing of it. The outputs stay, to the rounding of the dtype, while entries that stick out of a matrix or an
    activation are spread over all (Ashkboos et al. 2024, arXiv 2404.00456; Chee et al. 2023, arXiv 2307.13304). So is
    what gains held down: on smollm2 weights that are rounded to nearest, without a look at inputs, lose by it. Nothing
    is computed that was not before, but for a head that is tied to the embedding: it stays so through a small matrix,
    R diag(g) R^T with g the gains of the last norm.

    Args:
        model: a causal language model of transformers whose layers are those of Llama, Mistral, Qwen 2 and 3, SmolLM 3,
            Granite or Phi 3, dense. Changed in place; its tensors are new ones, and other models that share the old
            ones stay as they are.
        seed: of the rotations.

    Raises:
        Refused: a model that is built otherwise, such as Gemma, whose norms multiply by 1 + g and stand behind the
            matrices too; one that is compressed already. Nothing is changed then.
    """
    stream = _stream(model)
    generator = torch.Generator().manual_seed(seed)
    tied = stream.head.weight is stream.embedding.weight
    table = stream.embedding.weight
    rotation = random_rotation(table.shape[1], generator)
    last = stream.norms[-1][0]
    gains = _wide(last.weight)
    if tied:
        stream.norms[-1] = (last, [])
    for norm, readers in stream.norms:
        for reader in readers:
            _put(reader, rotation.forward(_wide(reader.weight) * _wide(norm.weight)))
        norm.weight = nn.Parameter(torch.ones_like(norm.weight), norm.weight.requires_grad)
    for writer in stream.writers:
        _put(writer, rotation.forward(_wide(writer.weight).T).T)
        if writer.bias is not None:
            writer.bias = _like(writer.bias, rotation.forward(_wide(writer.bias)))
    for value, output, size in stream.heads:
        _rotate_heads(value, output, random_rotation(size, generator))
    rotated = _like(table, rotation.forward(_wide(table)))
    if not tied:
        stream.embedding.weight = rotated
        return
    turned = rotation.forward(rotation.forward(torch.diag(gains)).T)
    _tie(model, stream, Dense(rotated), Dense(_like(table, turned)))


def added_numbers(model: nn.Module) -> int:
    """How many numbers more a model has once it is rotated: those of the small matrix of a tied head.

    Raises:
        Refused: as `rotate` does.
    """
    stream = _stream(model)
    tied = stream.head.weight is stream.embedding.weight
    return stream.embedding.embedding_dim**2 if tied else 0


def _tie(model: Any, stream: _Stream, table: Dense, turned: Dense) -> None:
    """Makes the head the embedding times a small matrix."""
    names = {id(module): name for name, module in model.named_modules()}
    bias = None if stream.head.bias is None else stream.head.bias.detach()
    embedding = StructuredEmbedding(table, padding_idx=stream.embedding.padding_idx)
    set_module(model, names[id(stream.embedding)], embedding)
    set_module(model, names[id(stream.head)], StructuredLinear(Chain(Shared(table), turned), bias))
    model.config.tie_word_embeddings = False
    tied_by_construction(model)


def _rotate_heads(value: nn.Linear, output: nn.Linear, rotation: StructuredMatrix) -> None:
    """Values v of a head as R v, which the output matrix takes back; attention mixes tokens and not their entries."""
    values, outputs = (
        Repeated(rotation, copies=width // rotation.shape[0]) for width in (value.out_features, output.in_features)
    )
    _put(value, values.forward(_wide(value.weight).T).T)
    if value.bias is not None:
        value.bias = _like(value.bias, values.forward(_wide(value.bias)))
    _put(output, outputs.forward(_wide(output.weight)))


def _stream(model: Any) -> _Stream:
    """Who reads and writes the stream; Refused where that is not known of the model."""
    kind = type(model).__name__
    inner: Any = getattr(model, "model", None)
    layers = list(getattr(inner, "layers", None) or [])
    unknown = next((type(layer).__name__ for layer in layers if type(layer).__name__ not in _LAYERS), "")
    if unknown or not layers or not hasattr(model, "lm_head"):
        known = ", ".join(sorted(name.removesuffix("DecoderLayer") for name in _LAYERS))
        raise Refused(
            f"rotate: the residual stream of {kind}{f', with layers {unknown},' if unknown else ''} is not known; "
            f"causal language models with the layers of {known} can be rotated"
        )
    found = _Stream(_dense(inner.embed_tokens, nn.Embedding, kind), _dense(model.lm_head, nn.Linear, kind))
    for layer in layers:
        for norm, part, names in _READERS:
            holder = getattr(layer, part)
            readers = [_dense(getattr(holder, name), nn.Linear, kind) for name in names if hasattr(holder, name)]
            found.norms.append((getattr(layer, norm), readers))
        found.writers += [_dense(getattr(getattr(layer, part), name), nn.Linear, kind) for part, name in _WRITERS]
        attention = layer.self_attn
        if hasattr(attention, "v_proj"):
            found.heads.append((attention.v_proj, attention.o_proj, attention.head_dim))
    found.norms.append((inner.norm, [found.head]))
    for norm, _ in found.norms:
        _check_norm(norm)
    _check_all(model, found)
    return found


def _dense(module: Any, kind: type[Any], model: str) -> Any:
    """A module, once it is known to be an ordinary layer of its kind."""
    if type(module) is not kind:
        raise Refused(
            f"rotate: {model} holds a {type(module).__name__} where {kind.__name__} was expected: give the dense model"
        )
    return module


def _check_norm(norm: Any) -> None:
    """Refused unless the norm divides by the root mean square and multiplies by its weight."""
    x = torch.linspace(-1, 2, norm.weight.numel(), dtype=torch.float32, device=norm.weight.device)[None]
    expected = x * x.square().mean().rsqrt() * norm.weight.float()
    found = norm(x.to(norm.weight.dtype)).float()
    if not (found - expected).norm() <= (_TOLERANCE + 4 * torch.finfo(norm.weight.dtype).eps) * expected.norm():
        raise Refused(
            f"rotate: {type(norm).__name__} does more than to divide by the root mean square and to multiply by its "
            "weight"
        )


def _check_all(model: nn.Module, found: _Stream) -> None:
    """Refused where the model holds a number that nothing is known of."""
    known = [found.embedding, found.head, *found.writers]
    known += [module for norm, readers in found.norms for module in (norm, *readers)]
    held = {id(p) for module in known for p in module.parameters()}
    # Norms of the queries and keys of a head, and nothing else, may stand inside of an attention.
    for name, parameter in model.named_parameters():
        if id(parameter) not in held and not name.endswith(("self_attn.q_norm.weight", "self_attn.k_norm.weight")):
            raise Refused(f"rotate: it is not known what {name} of {type(model).__name__} does to the residual stream")


def _wide(tensor: Tensor) -> Tensor:
    """In float64, in the memory of the CPU."""
    return tensor.detach().cpu().double()


def _like(old: Tensor, new: Tensor) -> nn.Parameter:
    return nn.Parameter(new.to(old.dtype).to(old.device).contiguous(), old.requires_grad)


def _put(module: nn.Linear, weight: Tensor) -> None:
    module.weight = _like(module.weight, weight)
