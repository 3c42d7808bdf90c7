"""The job: a frozen model plus a small trainable structure beside each of its matrices."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from zlib import crc32

import torch
from torch import Tensor, nn

from eckart.adapters.contract import ADAPTERS, AdapterCard, Layer, Start
from eckart.errors import Refused, check_type
from eckart.jobs.adapt.adapted import Adapted
from eckart.jobs.adapt.adapter import Adapter, adapted_layers, check_name, check_unshared
from eckart.jobs.adapt.bases import dense_of, matrix_shape, on_cpu, structure_of
from eckart.jobs.adapt.ranks import rank_within, shared_out
from eckart.jobs.adapt.starts import at_start, check_starts, relative_error, started, unknown, without_gradient
from eckart.jobs.calibration import Calibration, as_batches, check_sampling
from eckart.jobs.coverage import NAMED_HEAD, NO_ADAPTER, covered, reasons, warnings_of
from eckart.machine import peak_rss_bytes
from eckart.models.fused_experts import apart
from eckart.models.own_text import own_text
from eckart.models.places import set_module
from eckart.models.presence import no_single_layer, present, without_peft
from eckart.models.sharing import in_eval_mode
from eckart.models.sites import as_patterns, linear_layers, matches, select
from eckart.progress import Progress, shown
from eckart.statistics import Statistics, statistics_for
from eckart.statistics.batches import Batch
from eckart.statistics.cache import finite_weights
from eckart.statistics.gradients import mean_gradients
from eckart.structures import exact_input, patch_of
from eckart.texts.tokenizer import Tokenizer


def adapt(
    model: nn.Module,
    method: str = "lora",
    rank: int = 16,
    *,
    name: str = "default",
    alpha: float | None = None,
    parameters: int | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    calibration: Calibration | None = None,
    tokenizer: Tokenizer | None = None,
    samples: int = 64,
    length: int = 256,
    seed: int = 0,
    cache: Path | None = None,
    progress: Progress = shown,
) -> Adapter:
    """Freezes a model and puts a small trainable structure beside each of its linear maps, in place.

    Args:
        model: any nn.Module; its linear layers and convolutions, those that eckart compressed included.
        method: a name from `eckart.ADAPTERS`.
        rank: how large; what it counts is on the adapter's card.
        name: of this adapter; a model can have several, of which the last one added is active.
        alpha: paths are multiplied by alpha / rank, for methods that are `scaled`; None for 1.
        parameters: instead of `rank`: the largest rank with at most so many trainable numbers in all.
        include: patterns of the names of matrices to take, or regular expressions behind `re:`; all linear maps but
            the head where there are none. A pattern that matches only the head takes the head.
        exclude: patterns of those to leave.
        calibration: for methods that look at data: text, texts, token ids (sequences, length), or batches the model
            can be called with; None lets a language model write its own text.
        tokenizer: turns text into ids; needed for text.
        samples: calibration sequences, of text.
        length: tokens in each.
        seed: of whatever is drawn.
        cache: directory for statistics, which one method leaves for the next; None keeps them in memory.
        progress: told of the phases; by default it draws a line in a terminal or a notebook, and nothing elsewhere.

    Returns:
        The adapter, active.

    Raises:
        Refused: what is asked for is unknown or cannot be had, or weights are not finite; nothing is changed then.

    >>> import torch, eckart
    >>> net = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 8))
    >>> adapter = eckart.adapt(net, "lora", rank=4)
    >>> sum(p.numel() for p in adapter.trainable_parameters())
    800
    >>> optimizer = torch.optim.AdamW(adapter.trainable_parameters(), lr=1e-3)
    >>> loss = net(torch.ones(2, 64)).square().mean() + adapter.regulariser()
    >>> loss.backward()
    >>> optimizer.step()
    >>> adapter.step()
    """
    present(model)
    no_single_layer(model)
    without_peft(model)
    card = ADAPTERS.find(method)
    check_name(name)
    check_sampling(samples, length, seed)
    check_type("rank", rank, int)
    check_type("alpha", alpha, float | None)
    check_type("parameters", parameters, int | None)
    if alpha is not None and not (card.scaled and math.isfinite(alpha) and alpha > 0):
        raise Refused(
            f"alpha={alpha} must be above 0" if card.scaled else f"{method} has no scale: leave out alpha={alpha}"
        )
    clock = time.perf_counter()
    with apart(model) as packed:
        bases = find_bases(model, include, exclude)
        taken = [where for where, base in bases.items() if isinstance(base, Adapted) and name in base.paths]
        if taken:
            raise Refused(f"{taken[0]} has an adapter {name!r} already: remove it or choose another name")
        shapes = {where: matrix_shape(base_of(module)) for where, module in bases.items()}
        patches = {where: patch_of(module) for where, module in bases.items()}
        ranks = dict.fromkeys(shapes, rank)
        if parameters is not None:
            rank = rank_within(card, shapes, patches, parameters)
            ranks = {where: min(rank, *shape) for where, shape in shapes.items()}
        with switched_off(model):
            if card.reads_data and calibration is None and hasattr(model, "generation_config"):
                calibration = own_text(model, samples, length, seed)
            batches, _ = as_batches(calibration, tokenizer, samples, length, seed)
            statistics, gradients = measured(model, bases, card, batches, seed, cache, progress)
            left = unknown(bases, card, statistics, gradients)
            why = reasons(model, embeddings=False, head=False, left=left, of_embeddings=NO_ADAPTER, of_head=NAMED_HEAD)
            bases = {where: module for where, module in bases.items() if where not in left}
            account, flat = covered(model, bases, why), without_gradient(bases, card, statistics, gradients)
            if card.ranks is not None:
                matrices = {
                    where: exact_input(on_cpu(structure_of(base_of(module)))) for where, module in bases.items()
                }
                rank, ranks = shared_out(card, matrices, statistics, rank, parameters)
                bases = {where: module for where, module in bases.items() if ranks[where]}
            starts: dict[str, Start] = {}
            scale = 1.0 if alpha is None else alpha / rank
            for done, (where, module) in enumerate(bases.items(), 1):
                generator = torch.Generator().manual_seed(seed ^ crc32(where.encode()))
                standing, known = on_cpu(structure_of(base_of(module))), statistics[where]
                dense = exact_input(standing).to_dense().detach()
                layer = Layer(dense, known, ranks[where], scale, generator, gradients.get(where), standing)
                start = started(card, where, layer)
                if start is not None:
                    if start.split or start.frozen is not None:
                        check_unshared(model, where, base_of(module))
                    starts[where] = start
                    ranks[where] = ranks[where] if start.rank is None else start.rank
                progress("start", done, len(bases))
            check_starts(card, starts, parameters)
        model.requires_grad_(False)
        places, errors = {}, {}
        for where in starts:
            module = bases[where]
            place = places[where] = module if isinstance(module, Adapted) else Adapted(module)
            if place is not module:
                set_module(model, where, place)
            before = dense_of(place.base)
            place.add(name, starts[where])
            place.activate(name)
            errors[where] = relative_error(before, place.beside(), at_start(starts[where]))
        result = Adapter(model, name, card, places, {where: ranks[where] for where in places}, alpha, errors)
    result.packed, result.coverage, result.warnings = packed, account, [*warnings_of(account), *flat]
    for text in flat:
        warnings.warn(text, stacklevel=2)
    result.activate()
    result.seconds, result.peak_bytes = time.perf_counter() - clock, peak_rss_bytes()
    return result


def measured(
    model: nn.Module,
    bases: dict[str, nn.Module],
    card: AdapterCard,
    batches: Sequence[Batch],
    seed: int,
    cache: Path | None,
    progress: Progress,
) -> tuple[dict[str, Statistics], dict[str, Tensor]]:
    """What a method reads about each layer, statistics and gradients of the loss; Refused where there is no data."""
    if card.reads_data and not batches:
        needs = ", ".join([*(need.value for need in card.needs), *["gradients of the loss"] * card.task_gradient])
        raise Refused(f"{card.name} needs calibration data (for {needs}): pass calibration=")
    with in_eval_mode(model):
        found, _ = statistics_for(
            model,
            bases,
            card.needs,
            batches,
            seed=seed,
            cache=cache,
            on_progress=lambda d, n: progress("statistics", d, n),
        )
        gradients: dict[str, Tensor] = {}
        if card.task_gradient:
            modules = {name: base_of(module) for name, module in bases.items()}
            gradients = mean_gradients(model, modules, batches, on_progress=lambda d, n: progress("gradients", d, n))
    return found, gradients


@contextmanager
def switched_off(model: nn.Module) -> Iterator[None]:
    """No adapter is active inside, nor afterwards; after an error the same ones as before are.

    Raises:
        Refused: an adapter is merged, and whether it is to stay is not for this to say.
    """
    merged = {place.merged for place in adapted_layers(model).values()} - {""}
    if merged:
        raise Refused(f"adapter {min(merged)!r} is merged: call its remove() to leave it in the model, or unmerge()")
    active = {place: place.active for place in adapted_layers(model).values()}
    for place in active:
        place.activate("")
    try:
        yield
    except BaseException:
        for place, name in active.items():
            place.activate(name)
        raise


def find_bases(
    model: nn.Module, include: Sequence[str] = (), exclude: Sequence[str] = (), *, head: bool = False
) -> dict[str, nn.Module]:
    """The linear maps that adapters can stand beside, by name: dense, compressed, or adapted already.

    Args:
        model: any module.
        include, exclude: see `adapt`.
        head: whether the head of a language model is one of them though no pattern names it alone.

    Raises:
        Refused: a pattern matches nothing, nothing is left, or weights are not finite.
    """
    wrapped = adapted_layers(model)

    def outermost(layers: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
        outer = {name: name.removesuffix(".base") for name in layers}
        return {outer[n] if outer[n] in wrapped else n: wrapped.get(outer[n], m) for n, m in layers.items()}

    def named(pattern: str, layers: Mapping[str, nn.Module]) -> bool:
        return any(matches(pattern, name) for name in layers)

    found, everything = (outermost(linear_layers(model, head=each)) for each in (False, True))
    if head or any(named(p, everything) and not named(p, found) for p in as_patterns(include)):
        found = everything
    names = list(found)
    names = [names[i] for i in select([(name,) for name in names], include, exclude, model)]
    if not names:
        raise Refused(f"{type(model).__name__} has no linear map for an adapter to stand beside")
    finite_weights({name: found[name] for name in names})
    return {name: found[name] for name in names}


def base_of(module: nn.Module) -> nn.Module:
    """What stands beside adapters, or the layer itself where it has none."""
    return module.base if isinstance(module, Adapted) else module
