"""Batches without their padding.

What a model does with the tokens on their way, whether it flattens them, gathers those of an expert or pools them, only
the model knows. So padding is no matter of what is counted afterwards: a model is never run on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from eckart.errors import Refused
from eckart.statistics.batches import Batch, check_positions, picked, samples_in

IGNORED = -100
"""A label that does not count."""
MASKS = {"attention_mask": "", "decoder_attention_mask": "decoder_", "encoder_attention_mask": "encoder_"}
"""Masks of tokens, and how the names of the entries begin that they are about."""
NO_PADDING = frozenset({"special_tokens_mask", "global_attention_mask", "cross_attention_mask"})
"""Masks that say something else than which tokens are padding."""
HIDDEN = -9000.0
"""A number that is added to a score hides it where it is lower."""
OTHERS = ("decoder_", "encoder_", "pixel", "image", "video", "visual", "audio", "entity")
"""Beginnings of names of entries that no mask of the main input is about, whatever their shape."""


@dataclass
class _Side:
    """Some entries of a batch that share their tokens: those of an encoder, or of a decoder.

    Attributes:
        real: (samples, tokens), bool.
        entries: names of what has one row for each token, the mask included.
    """

    real: Tensor
    entries: list[str]


def without_padding(model: nn.Module, batch: Batch) -> list[Batch]:
    """The samples of a batch cut to their real tokens, those of one length together, in order.

    Padding is what `attention_mask` (samples, tokens) or (samples, [heads,] tokens, tokens) leaves out, and behind
    the last label of a decoder whose inputs have no mask of their own. Positions that a model numbers itself are then
    those that it would give the sample alone; `position_ids` are cut with the tokens.

    Args:
        model: an encoder-decoder has the labels on its decoder's side; any other on its tokens' side.
        batch: what it is called with.

    Returns:
        `[batch]` where there is no padding; samples that are nothing but padding are left out.

    Raises:
        Refused: there is padding that cannot be left out, and which; or nothing but padding.
    """
    if isinstance(batch, Tensor):
        return [batch]
    _check_masks(batch)
    sides = [side for side in _sides(model, batch) if not bool(side.real.all())]
    if not sides:
        return [batch]
    check_positions(batch)
    groups: dict[tuple[int, ...], list[int]] = {}
    for i in range(samples_in(batch)):
        lengths = tuple(int(side.real[i].sum()) for side in sides)
        if all(lengths):
            groups.setdefault(lengths, []).append(i)
    if not groups:
        raise Refused(f"{sides[0].entries[-1]!r} leaves out every token: it is 1 where one counts")
    owner = {name: side for side in sides for name in side.entries}
    rest = {name: value for name, value in batch.items() if name not in owner}
    found: list[Batch] = []
    for members in groups.values():
        group: dict[str, Any] = dict(_rest(rest, batch, members))
        for name, side in owner.items():
            group[name] = torch.stack([_cut(batch[name], i, side.real[i]) for i in members])
        found.append(_shifted(group, sides[0], members))
    return found


def longest(model: nn.Module, batch: Batch) -> int | None:
    """Tokens of the longest sequences that are given to a model that pads them itself, as Longformer does.

    None for all other models, in which a layer may have more tokens than were given, such as one that is pooled.
    """
    kinds = {type(module) for module in model.modules()}
    if not any(name.startswith("_pad_to_") for kind in kinds for name in dir(kind)):
        return None
    entries = {"input_ids": batch} if isinstance(batch, Tensor) else batch
    lengths = [value.shape[1] for name, value in entries.items() if name.endswith("input_ids") and value.ndim == 2]
    return max(lengths, default=None)


def _rest(rest: Mapping[str, Tensor], batch: Mapping[str, Tensor], members: list[int]) -> Mapping[str, Tensor]:
    """Entries that have no padding, for some samples of the batch."""
    some = picked({"input_ids": torch.empty(samples_in(batch)), **rest}, members)
    assert not isinstance(some, Tensor)
    return {name: some[name] for name in rest}


def _cut(value: Tensor, sample: int, real: Tensor) -> Tensor:
    """What one sample has of a tensor, for its real tokens; a mask of pairs of tokens loses rows and columns."""
    own = value[sample if len(value) > 1 else 0]
    where = real.nonzero().flatten().to(value.device)
    if own.shape[-2:] == (len(real), len(real)) and own.shape[0] != len(real):
        return own[..., where, :][..., where]
    if value.ndim == 3 and own.shape == (len(real), len(real)):
        return own[where][:, where]
    return own[where]


def _shifted(group: dict[str, Any], side: _Side, members: list[int]) -> Batch:
    """The answer's place in a text, counted from its first real token."""
    for name in ("start_positions", "end_positions"):
        if name in group:
            group[name] = group[name] - side.real[members].int().argmax(1).to(group[name].device)
    return group


def _sides(model: nn.Module, batch: Mapping[str, Tensor]) -> list[_Side]:
    config = getattr(model, "config", None)
    labelled = bool(getattr(config, "is_encoder_decoder", False)) or any(n.startswith("decoder_") for n in batch)
    sides = []
    for mask, prefix in MASKS.items():
        if isinstance(batch.get(mask), Tensor):
            real = _real(mask, batch[mask], samples_in(batch))
            if entries := _entries(batch, mask, prefix, real, labelled):
                sides.append(_Side(real, entries))
    if labelled and "decoder_attention_mask" not in batch:
        sides += _by_labels(batch)
    for side in sides:
        _check_gaps(batch, side)
    return sides


def _entries(batch: Mapping[str, Tensor], mask: str, prefix: str, real: Tensor, labelled: bool) -> list[str]:
    """The entries that a mask is about; none, where the model takes the padding for data itself."""
    found = []
    for name, value in batch.items():
        if not isinstance(value, Tensor) or value.ndim < 2 or name == mask:
            continue
        if name.endswith("labels"):
            # Numbers are what a sample is to be given, one for each class or answer; classes may be one a token.
            here = not value.is_floating_point() and prefix == ("decoder_" if labelled else "")
        else:
            here = name.startswith(prefix) if prefix else not name.startswith(OTHERS)
        if here and len(value) in (1, len(real)) and value.shape[1] == real.shape[1]:
            found.append(name)
    frames = batch.get("input_features")
    if not found and not bool(real.all()) and not (frames is not None and frames.shape[-1] == real.shape[1]):
        raise Refused(
            f"{mask!r} marks padding, and no entry of the batch has its {real.shape[1]} tokens in the second "
            "dimension: give each sample by itself, without padding"
        )
    # Frames in the last dimension are Whisper's, which listens to a window of one length, silence included.
    return [*found, mask] if found else []


def _by_labels(batch: Mapping[str, Tensor]) -> list[_Side]:
    """The tokens of a decoder up to the last label; no side where there are no labels of tokens."""
    labels = batch.get("labels")
    if labels is None or labels.ndim != 2 or labels.is_floating_point():
        return []
    counted = labels.ne(IGNORED)
    real = counted.flip(1).cumsum(1).flip(1) > 0
    names = [name for name, value in batch.items() if name.startswith("decoder_") and isinstance(value, Tensor)]
    if any(batch[name].shape[:2] != labels.shape for name in names):
        return []
    return [_Side(real, [*names, "labels"])]


def _real(name: str, mask: Tensor, samples: int) -> Tensor:
    """Which tokens are no padding, (samples, tokens), by a mask of tokens or of pairs of them."""
    if mask.ndim < 2 or len(mask) not in (1, samples):
        raise Refused(f"{name!r} of shape {tuple(mask.shape)} does not have one row for each of {samples} samples")
    if mask.ndim == 2:
        return mask.ne(0).expand(samples, -1)
    # Numbers that are added to scores hide what they make tiny; older models write -10000.
    added = mask.is_floating_point() and not bool((mask > 0).any())
    seen = mask > HIDDEN if added else mask.ne(0)
    if bool(seen.all()):
        return seen.new_ones(samples, seen.shape[-1])
    if mask.ndim not in (3, 4) or mask.shape[-1] != mask.shape[-2]:
        raise Refused(f"{name!r} of shape {tuple(mask.shape)} does not have one row and one column for each token")
    seen = seen.any(1) if seen.ndim == 4 else seen
    itself = seen.diagonal(dim1=-2, dim2=-1)
    alone = itself & (seen.sum(-1) == 1) & (seen.sum(-2) == 1)
    # A row of padding may see other tokens, or itself, so that no softmax is empty; but no other token sees it.
    return (seen.any(-2) & ~(alone & bool(seen.shape[-1] > 1))).expand(samples, -1)


def _check_gaps(batch: Mapping[str, Tensor], side: _Side) -> None:
    """Raises Refused where tokens would move against each other: padding between them, and no positions given."""
    if any(name.endswith("position_ids") for name in side.entries):
        return
    starts = side.real.int().diff(dim=1, prepend=side.real.new_zeros(len(side.real), 1, dtype=torch.int32)).eq(1).sum(1)
    if bool((starts > 1).any()):
        raise Refused(
            f"{side.entries[-1]!r} leaves out tokens between others (sequence {int(starts.argmax())}), so that it is "
            "not known at which positions the others stand: give position_ids, or each sequence by itself"
        )


def _check_masks(batch: Mapping[str, Tensor]) -> None:
    """Raises Refused that names a mask with padding of which it is not known what it is about."""
    for name, mask in batch.items():
        if not isinstance(mask, Tensor) or not name.endswith("mask") or name in MASKS or name in NO_PADDING:
            continue
        if mask.ndim > 1 and bool((mask != mask.flatten()[0]).any()):
            raise Refused(
                f"{name!r} of shape {tuple(mask.shape)} leaves something out, and of a mask of that name it is not "
                f"known what: give samples without padding, or {', '.join(MASKS)} (samples, tokens)"
            )
