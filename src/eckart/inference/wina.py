"""Columns that hardly matter to a token are left out of its products, in decoding."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from eckart.errors import Refused
from eckart.inference._cache_bases import samples
from eckart.inference.contract import inside
from eckart.models.modules import StructuredLinear
from eckart.models.presence import check_model
from eckart.statistics.batches import Batch, call

_OCTAVES, _BINS = 64, 64
"""Scores are counted from 2^-32 to 2^32, so many bins an octave."""

Choose = Callable[[str, Tensor], Tensor]
"""The name of a linear layer and its inputs (..., n) -> which of them stay, bool (..., n)."""


@inside(
    "wina",
    paper="Chen et al. 2025, arXiv 2505.19427",
    saves="multiplications in decoding, where columns can be skipped",
    approximates="inputs left out whose |x_j| ||W_:j|| is small",
    limit={"keep": 1.0},
    calibrated=True,
)
@contextmanager
def skipped_columns(
    model: nn.Module, calibration: Tensor | Sequence[Batch], keep: float = 0.75, norms: bool = True
) -> Iterator[list[str]]:
    """Inside, a token being decoded leaves out the inputs x_j of each linear layer with small |x_j| ||W_:j||.

    ||W_:j|| |x_j| is what leaving x_j out changes in the output, and the sum of their squares the whole change where
    columns are orthogonal. An input stays where that is at least a threshold of its layer: the quantile at which a
    share `keep` stayed on the calibration, from a histogram. Prompts are computed in full: only calls on one token a
    sequence leave something out. The output head, and experts held as one tensor, do not.

    WINA (Chen et al. 2025, arXiv 2505.19427); with `norms=False` TEAL (Liu et al. 2024, arXiv 2408.14690), |x_j|
    alone. In WINA's published code only k_proj and gate_proj are weighed by their norms, after a rotation that makes
    the columns of just these orthogonal, and the K largest of every token are sorted out; here all layers are weighed,
    nothing is rotated, and all layers keep the same share. **What is left out is multiplied by zero: this saves no
    time**, in the published code neither; it shows what a product that skips columns would cost in quality.

    Args:
        model: a language model of transformers, in eval mode.
        calibration: tokens (samples, length), or batches.
        keep: share of the inputs of a layer that stay; 1 leaves nothing out.
        norms: whether the columns' norms count.

    Yields:
        The names of the linear layers.

    Raises:
        Refused: a model in training mode, that generates nothing or has no linear layers, no tokens, or a share that
            is not above 0 and at most 1.
    """
    if isinstance(keep, bool) or not isinstance(keep, int | float) or not 0 < keep <= 1:
        raise Refused(f"skipped_columns: keep must be above 0 and at most 1, got {keep!r}")
    found = linear_layers(model)
    weights = column_norms(found) if norms else {}
    thresholds = {name: h.threshold(keep) for name, h in score_histograms(model, calibration, weights).items()}

    def choose(name: str, x: Tensor) -> Tensor:
        return scores(x, weights.get(name)) >= thresholds[name]

    with skipping(model, choose):
        yield list(found)


def linear_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The linear layers of a language model but its output head, dense or compressed, by name.

    Raises:
        Refused: there are none, or the model does not generate.
    """
    owner: Any = model
    head = owner.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    found: dict[str, nn.Module] = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | StructuredLinear) and module is not head
    }
    if not found or not hasattr(model, "generation_config"):
        raise Refused(f"skipped_columns: {type(model).__name__} is no language model with linear layers that generates")
    return found


def column_norms(layers: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """||W_:j|| of each layer, (in,)."""
    return {name: _weight(layer).float().norm(dim=0) for name, layer in layers.items()}


def _weight(layer: Any) -> Tensor:
    with torch.no_grad():
        weight: Tensor = layer.structure.to_dense() if isinstance(layer, StructuredLinear) else layer.weight
    return weight


def scores(x: Tensor, norms: Tensor | None) -> Tensor:
    """|x_j| ||W_:j||, or |x_j|, in float32."""
    size = x.abs().float()
    return size if norms is None else size * norms


@dataclass
class Histogram:
    """How often scores of each size came, by their logarithm."""

    counts: Tensor

    def add(self, x: Tensor) -> None:
        """Some scores; zero counts as the smallest, and what is too large as the largest."""
        half = _OCTAVES // 2
        logarithms = x.float().log2().clamp(-half, half).flatten()
        self.counts += torch.histc(logarithms, _OCTAVES * _BINS, -half, half).to(self.counts)

    def threshold(self, keep: float) -> float:
        """A score that about a share `keep` is not below: the lower edge of a bin; 0 for all of them."""
        below = self.counts.cumsum(0) <= (1 - keep) * self.counts.sum()
        bins = int(below.sum())
        return 2.0 ** (bins / _BINS - _OCTAVES // 2) if bins and keep < 1 else 0.0


def score_histograms(
    model: nn.Module, calibration: Tensor | Sequence[Batch], norms: Mapping[str, Tensor]
) -> dict[str, Histogram]:
    """Histograms of the scores of each linear layer's inputs.

    Raises:
        Refused: as `skipped_columns`; or inputs that are NaN.
    """
    found = {name: Histogram(torch.zeros(_OCTAVES * _BINS, dtype=torch.float64)) for name in linear_layers(model)}

    def watch(name: str, x: Tensor) -> Tensor:
        size = scores(x, norms.get(name))
        if not torch.isfinite(size).all():
            raise Refused(f"skipped_columns: inputs of {name} are NaN or infinite on the calibration")
        found[name].add(size)
        return torch.ones_like(x, dtype=torch.bool)

    with skipping(model, watch, prompts=True), torch.no_grad():
        for sample in samples(model, calibration, "skipped_columns"):
            call(model, sample)
    return found


@contextmanager
def skipping(model: nn.Module, choose: Choose, *, prompts: bool = False) -> Iterator[None]:
    """Inside, linear layers see only the inputs that `choose` lets stay, in decoding or in all calls."""
    check_model(model, "skipped_columns")
    if model.training:
        raise Refused("skipped_columns is for inference: call model.eval() first")
    decoding = _Decoding(prompts)

    def entering(name: str) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...] | None]:
        def enter(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
            return (args[0] * choose(name, args[0]), *args[1:]) if decoding.now else None

        return enter

    with ExitStack() as stack:
        for name, layer in linear_layers(model).items():
            stack.callback(layer.register_forward_pre_hook(entering(name)).remove)
        for whole in {model, getattr(model, "base_model", model)}:
            stack.callback(whole.register_forward_pre_hook(decoding.begin, with_kwargs=True).remove)
            stack.callback(whole.register_forward_hook(decoding.end, always_call=True).remove)
        yield


class _Decoding:
    """Whether the call that runs is on one token a sequence."""

    def __init__(self, always: bool) -> None:
        self.always = self.now = always

    def begin(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = (kwargs.get("input_ids"), kwargs.get("inputs_embeds"), *args[:1])
        tokens = next((x for x in given if isinstance(x, Tensor)), None)
        self.now = self.always or (tokens is not None and tokens.shape[1] == 1)

    def end(self, module: nn.Module, args: tuple[Any, ...], output: object) -> None:
        self.now = self.always
