"""The job: a model with fewer numbers that loses as little as possible."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn

from eckart.budget.contract import find as find_allocation
from eckart.errors import Refused
from eckart.jobs.calibration import Calibration, as_batches
from eckart.jobs.cluster import Cluster, cluster_at
from eckart.jobs.compress.block_streams import observe
from eckart.jobs.compress.choices import Choice
from eckart.jobs.compress.compression import Compression
from eckart.jobs.compress.coverage import covered_by, sites_of, unreached, untaken
from eckart.jobs.compress.data import check_data, known_of, measured, of_one_batch, set_aside, tokens_of
from eckart.jobs.compress.distill import distill, sides
from eckart.jobs.compress.heal import cut, heal
from eckart.jobs.compress.influence import attach_influence
from eckart.jobs.compress.plan import Plan, apply, make_plan
from eckart.jobs.compress.recipe import Recipe, needs_data
from eckart.jobs.compress.refit import refit
from eckart.jobs.compress.rotated import kept_by_rotation, rotated
from eckart.jobs.compress.rounded_inputs import rounded_inputs
from eckart.jobs.compress.sized import left_dense, sized
from eckart.jobs.compress.store import Store
from eckart.jobs.compress.timed import attach_clock
from eckart.jobs.compress.trials import Tried, trials
from eckart.jobs.coverage import warnings_of
from eckart.models.experts import per_token
from eckart.models.fused_experts import unfuse
from eckart.models.own_text import own_text
from eckart.models.places import asking, keep_frozen
from eckart.models.presence import no_single_layer, present, without_peft
from eckart.models.saving import describe
from eckart.models.sharing import in_eval_mode, share
from eckart.models.sites import as_patterns
from eckart.progress import Laps, Progress, phase, shown, silent
from eckart.statistics import cache_directory, collect
from eckart.statistics.batches import Batch
from eckart.statistics.precision import said_of
from eckart.texts.tokenizer import Tokenizer

Search = Callable[[Plan, nn.Module], Choice]
"""Picks the size of every group of a model."""


def compress(
    model: nn.Module,
    method: str = "auto",
    *,
    keep: float | str | None = None,
    of: str = "bytes",
    calibration: Calibration | None = None,
    tokenizer: Tokenizer | None = None,
    allocation: str | None = None,
    floor: float = 0.1,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    embeddings: bool | None = None,
    head: bool | None = None,
    rotate: bool = False,
    sequential: bool = False,
    heal: int = 0,
    distill: int = 0,
    samples: int = 64,
    length: int = 256,
    seed: int = 0,
    mixed_precision: bool = False,
    progress: Progress = shown,
    **scheme: int,
) -> Compression:
    """Compresses a model in place: structures with fewer numbers take the places of its matrices.

    Every matrix is fitted at all sizes, in the metric of the method; one solver picks a size for each so that the
    budget is kept and the errors sum up to least.

    Args:
        model: any nn.Module with linear layers, in eval mode. Fused experts of transformers are taken apart into
            linear layers first. What does not train stays so.
        method: a name from `eckart.METHODS`.
        keep: share in (0, 1], or "80%", that is kept; 0.8 where no size is said.
        of: what: `bytes`, `parameters`, `linear-parameters`, `macs`, or `decode-time` or `prefill-time`, which are
            predicted.
        calibration: text, texts, token ids (sequences, length), or batches the model can be called with; None lets a
            language model write its own text. A method that reads none checks it all the same.
        tokenizer: turns text into ids; needed for text.
        allocation: uniform, greedy, exact, threshold, farms or influence; None for the method's own.
        floor: least share of its dense cost that a matrix keeps.
        include: patterns of the names of matrices to take, such as `model.layers.*.mlp.*`, or regular expressions
            behind `re:`; all linear maps where there are none, and what `embeddings` and `head` say.
        exclude: patterns of those to leave, of what `include` takes.
        embeddings: take the embeddings too, and a head that is tied to them; None where `auto` shares out bytes without
            rotate.
        head: take the output head too; None where `auto` shares out bytes and takes embeddings.
        rotate: rotate the residual stream of a language model first, which changes its matrices and not its outputs.
        sequential: fit block by block again, on what the compressed blocks before it hand on.
        heal: steps of training for each block, after all else.
        distill: steps of training for each side of the factors of a language model, end to end, at the very last.
        samples: calibration sequences, of text.
        length: tokens in each.
        seed: of everything random.
        mixed_precision: measure statistics on the model as it computes in bfloat16.
        progress: told of the phases; by default it draws a line in a terminal or a notebook, and nothing elsewhere.
        **scheme: instead of a share of the whole a size that every matrix gets, in the word of the method's card
            (`bits=4` for `gptq`, `rank=64` for `svd`), and options of the method (`group=128`, `symmetric=True`); see
            `Recipe`.

    Returns:
        The model and what is known about it: the size of every matrix, errors, seconds.

    Raises:
        Refused: what is asked for is unknown or cannot be had, or weights are not finite; nothing is changed then.

    >>> import torch, eckart
    >>> net = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 8))
    >>> data = torch.randn(256, 64)
    >>> result = eckart.compress(net, method="kfac", keep=0.5, calibration=[data])
    >>> net[0].structure.cost().parameters < 64 * 64
    True
    """
    recipe = Recipe(
        method=method,
        keep=cast(float | None, keep),  # the recipe reads it
        of=of,
        allocation=allocation,
        floor=floor,
        include=as_patterns(include),
        exclude=as_patterns(exclude),
        embeddings=embeddings,
        head=head,
        rotate=rotate,
        sequential=sequential,
        heal=heal,
        distill=distill,
        samples=samples,
        length=length,
        seed=seed,
        mixed_precision=mixed_precision,
        **scheme,  # type: ignore[arg-type]
    )
    present(model)
    no_single_layer(model)
    without_peft(model)
    before = asking(model)
    unfuse(model)
    sites_of(model, recipe)
    if calibration is None and needs_data(recipe) and hasattr(model, "generation_config"):
        calibration = own_text(model, samples, length, seed, on_progress=phase(progress, "write text"))
    batches, info = as_batches(calibration, tokenizer, recipe.samples, recipe.length, recipe.seed)
    result = run(model, recipe, batches, info, progress=progress)
    keep_frozen(model, before)
    for text in result.warnings:
        warnings.warn(text, stacklevel=2)
    return result


def run(
    model: nn.Module,
    recipe: Recipe,
    batches: Sequence[Batch],
    info: Mapping[str, Any],
    *,
    cache: Path | None = None,
    identity: str | None = None,
    memory: int | None = None,
    scheduler: str | None = None,
    store: Store | None = None,
    search: Search | None = None,
    lap: Laps | None = None,
    progress: Progress = silent,
) -> Compression:
    """`compress` with its parts handed in.

    Args:
        model, recipe: what is changed in place, and how.
        batches, info: from `as_batches`.
        cache: directory for statistics; None keeps them in memory.
        identity: `model_fingerprint(model)`, where that is known already.
        memory: bytes the statistics may take in one pass.
        scheduler: address of a Dask scheduler for statistics, fits and trials.
        store: where finished sites are kept, so that an interrupted run goes on; None for nowhere.
        search: picks the sizes instead of `recipe.keep`.
        lap, progress: the clock, and what else is told of the phases; without a clock it has one of its own.
    """
    present(model)
    method = recipe.card
    sites = sites_of(model, recipe)
    check_data(model, recipe, method, batches)
    batches, back = set_aside(model, recipe, batches) if search is None else (batches, None)
    if recipe.distill and len(batches) < 2:
        raise Refused(
            f"distill={recipe.distill} trains on one batch of calibration tokens and judges on another, and there is "
            f"{len(batches)}: raise samples= or length="
        )
    lap = Laps() if lap is None else lap
    added = rotated(model, recipe)
    if recipe.rotate:
        sites, identity = sites_of(model, recipe), None  # what is known of the model as it was is not of this one
        lap("rotate")
    healing = distillation = None
    with in_eval_mode(model), cluster_at(scheduler) as cluster:
        dense = share(model) if recipe.distill else None
        observed = None
        if recipe.sequential or recipe.heal:
            observed = observe(model, sites, cut(batches) if recipe.heal else batches)
        collected = collect if cluster is None else cluster.collect
        statistics, passes, recomputed = measured(
            model, sites, recipe, batches, cache, identity, memory, progress, collected
        )
        lap("statistics")
        statistics = per_token(model, statistics)
        left = unreached(sites, method, statistics)
        found = covered_by(model, recipe, left | kept_by_rotation(model, added))
        plan = make_plan(model, [site for site in sites if site.name not in left], method, statistics, added)
        plan.without = "" if recipe.of == "linear-parameters" else untaken(model, sites)
        allocation = find_allocation(recipe.allocation or method.allocation)
        plan.fit(scheduler, phase(progress, "fit"), errors=search is not None or not (recipe.size or allocation.blind))
        lap("fit")
        timed = attach_clock(plan, model, recipe, cache or cache_directory(), progress)
        attach_influence(plan, model, recipe.allocation or method.allocation, batches)
        choice, tried = chosen(plan, model, recipe, search, back, progress, cluster)
        lap("solve")
        errors = apply(model, plan, choice, store, progress)
        lap("build")
        if observed is not None and recipe.sequential:
            errors |= refit(model, plan, choice, observed, on_progress=phase(progress, "sequential"))
            lap("sequential")
        if observed is not None and recipe.heal:
            healing = heal(model, observed, recipe.heal, seed=recipe.seed, on_progress=phase(progress, "heal"))
            lap("heal")
        amiss = [f"{name} stays dense: {reason}" for name, reason in plan.failures().items()]
        amiss += left_dense(plan, choice, *recipe.size) if recipe.size else []
        amiss += [] if observed is None else of_one_batch(recipe.heal, observed.batches)
        amiss += warnings_of(found)
        if dense is not None and not any(sides(model)):
            amiss.append("distillation was left out: the structures are made of no matrices, which are what it trains")
        elif dense is not None:
            tokens, told = tokens_of(batches), phase(progress, "distill")
            distillation = distill(model, dense, tokens, recipe.distill, seed=recipe.seed, on_progress=told)
            lap("distill")
    describe(model)
    return Compression(
        model,
        recipe,
        plan,
        choice,
        errors,
        calibration=known_of(info, recipe, passes, recomputed),
        seconds=lap.seconds,
        notes=rounded_inputs(model) + timed + said_of(recipe.mixed_precision),
        warnings=amiss,
        trials=tried,
        healing=healing,
        distillation=distillation,
        coverage=found,
    )


def chosen(
    plan: Plan,
    model: nn.Module,
    recipe: Recipe,
    search: Search | None,
    back: Tensor | None,
    progress: Progress,
    cluster: Cluster | None = None,
) -> tuple[Choice, list[Tried]]:
    """The size of every group: by a search, by trials on sequences that were held back, or by the errors alone."""

    def choose(only: str | None = None, *, even: bool = False, uniform: bool = False, guess: bool = False) -> Choice:
        allocation = recipe.allocation or ("uniform" if uniform else None)
        return (plan.solve if guess else plan.choose)(recipe.share, recipe.of, allocation, recipe.floor, only, even)

    if search is not None:
        return search(plan, model), []
    if recipe.size is not None:
        return sized(plan, *recipe.size), []
    if back is not None:
        judge = None if cluster is None else partial(cluster.divergence, model, back)
        return trials(plan, model, back, choose, apply, progress, judge)
    return choose(), []
