"""The job: a branch of low rank beside each matrix of a compressed model, for what its compression lost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from eckart.budget import Candidates, allocate
from eckart.compressors._low_rank import rank_step
from eckart.compressors.eora import METRICS
from eckart.errors import Refused, check_type
from eckart.jobs.calibration import Calibration, as_batches, check_sampling
from eckart.jobs.compensate.branch import Added, Place, branches_of, check_kinship, compensated
from eckart.machine import memory_available
from eckart.models.checkpointing import activation_bytes, checkpointed
from eckart.models.experts import per_token
from eckart.models.fused_experts import unfuse
from eckart.models.layers import is_linear
from eckart.models.modules import StructuredLinear, Tied
from eckart.models.own_text import own_text
from eckart.models.presence import present, without_peft
from eckart.models.saving import describe
from eckart.models.sharing import in_eval_mode
from eckart.models.sites import Site
from eckart.progress import Progress, shown, silent
from eckart.report.numbers import shown_change
from eckart.report.shown import Glance, Shown, noted
from eckart.statistics import Need, Statistics, statistics_for
from eckart.statistics.batches import Batch
from eckart.statistics.cache import finite_weights
from eckart.texts.tokenizer import Tokenizer

ALLOCATIONS = ("uniform", "greedy")


@dataclass(repr=False)
class Compensation(Shown):
    """A compensated model and what is known about it.

    Attributes:
        model: the model, changed in place.
        added: what each matrix was given, by its name: the rank of the branch, and the error before and after.
        calibration: fingerprint and number of the tokens that were read.
        warnings: what did not go as asked, in words.
    """

    model: nn.Module
    added: dict[str, Added]
    calibration: dict[str, Any]
    warnings: list[str] = field(default_factory=list)

    def glance(self) -> Glance:
        """How many branches there are, and the error of the outputs before and after."""
        found = list(self.added.values())
        before, after = (
            sum(getattr(each, when) for each in found) / max(1, len(found)) for when in ("before", "after")
        )
        rows = [
            ("branches", "", str(sum(each.rank > 0 for each in found)), ""),
            ("mean error of outputs", f"{before:.3g}", f"{after:.3g}", shown_change(before, after)),
        ]
        title = f"Compensation: {type(self.model).__name__}, {len(found)} matrices"
        return Glance(title, rows, ("before", "after", "change"), noted(self.warnings))


def compensate(
    model: nn.Module,
    dense: nn.Module,
    rank: int,
    *,
    metric: str | None = None,
    allocation: str = "uniform",
    calibration: Calibration | None = None,
    tokenizer: Tokenizer | None = None,
    samples: int = 64,
    length: int = 256,
    seed: int = 0,
    cache: Path | None = None,
    memory: int | None = None,
    progress: Progress = shown,
) -> Compensation:
    """Puts a low-rank branch beside each compressed linear layer, in place (EoRA, Liu et al. 2024, arXiv 2410.21271).

    With W dense, What compressed and x the inputs that the compressed model hands on, the branch is the best `B A` for
    `||(W - What - B A) R^1/2||_F`, and `Sum(What, Chain(B, A))` replaces What, compressed by whatever method. A bias
    that the compression changed is fitted again; embeddings and matrices that are tied to another are left alone.
    The authors' code adds its sequences up with weights that fall off by a factor of e, and is 0.1 to 0.6 % above this
    optimum on the calibration text itself (`benchmarks/peers/authors.py`).
    Inputs are measured once, before any branch is added: a branch sees what the compression in front of it did.

    Args:
        model: compressed by eckart, in eval mode.
        dense: the model that it was before.
        rank: of every branch. A matrix gets less where it would otherwise take as many bytes as the dense one.
        metric: what R is: `eigen` E[x x^T] as published, `diagonal` its diagonal, `svd` the identity. `kfac` weighs
            the outputs too, by the second moment of their gradients in the dense model. None is `eigen`, or `kfac`
            where the allocation is greedy.
        allocation: `uniform`, or `greedy`: one solve for the ranks of all matrices, which together cost what uniform
            ones would. It needs errors that can be compared between matrices, those of `kfac`.
        calibration: text, texts, token ids (sequences, length), or batches the model can be called with; None lets
            the dense model write text.
        tokenizer: turns text into ids; needed for text.
        samples: calibration sequences, of text.
        length: tokens in each.
        seed: of everything random.
        cache: directory for statistics; None keeps them in memory.
        memory: bytes the statistics may take in one pass.
        progress: told of the phases; by default it draws a line in a terminal or a notebook, and nothing elsewhere.

    Raises:
        Refused: what is asked for is unknown or pays for no matrix, the models do not fit each other, or there is
            nothing to compensate; nothing is changed then.

    >>> import copy, torch, eckart
    >>> net = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 64))
    >>> small = copy.deepcopy(net)
    >>> _ = eckart.compress(small, "rtn", keep=0.3, of="bytes")
    >>> result = eckart.compensate(small, net, rank=4, calibration=[torch.randn(256, 64)])
    >>> all(added.after < added.before for added in result.added.values())
    True
    """
    present(model)
    without_peft(model)
    present(dense, "the dense model")
    metric = metric_for(metric, allocation)
    check_sampling(samples, length, seed)
    check_type("rank", rank, int)
    unfuse(dense)
    places = find_places(model, dense)
    check_kinship(places)
    ranks = uniform_ranks(places, rank)
    if calibration is None and hasattr(dense, "generation_config"):
        calibration = own_text(dense, samples, length, seed)
    batches, info = as_batches(calibration, tokenizer, samples, length, seed)
    if not batches:
        raise Refused("compensation needs calibration data: pass calibration=")
    statistics = measured(model, dense, places, metric, batches, seed, cache, memory, progress)
    unseen = [place.name for place in places if not statistics[place.name].tokens]
    warnings = [f"{name} stays as it is: the calibration text never reached it" for name in unseen]
    places = [place for place in places if place.name not in unseen]
    if allocation == "greedy":
        ranks = greedy_ranks(places, statistics, metric, ranks, progress)
    elif capped := sum(ranks[place.name] < rank for place in places):
        warnings.append(f"{capped} matrices got less than rank {rank}, with which they would be larger than dense ones")
    fits = []
    for done, place in enumerate(places, 1):
        fits.append(compensated(place, statistics[place.name], metric, ranks[place.name]))
        progress("fit", done, len(places))
    added = {}
    for place, (structure, bias, gain) in zip(places, fits, strict=True):
        place.module.structure = structure.train(place.module.training)
        if bias is not place.module.bias:
            place.module.bias = None if bias is None else nn.Parameter(bias)
        added[place.name] = gain
    describe(model)
    return Compensation(model, added, info, warnings)


def metric_for(metric: str | None, allocation: str) -> str:
    """The metric that is meant; Refused where it or the allocation is unknown, or the two do not go together."""
    if allocation not in ALLOCATIONS:
        raise Refused(f"unknown allocation {allocation!r}; there are {', '.join(ALLOCATIONS)}")
    if metric is None:
        return "kfac" if allocation == "greedy" else "eigen"
    if metric not in METRICS:
        raise Refused(f"unknown metric {metric!r}; there are {', '.join(METRICS)}")
    if allocation == "greedy" and metric != "kfac":
        raise Refused(
            f"errors in the metric {metric!r} cannot be compared between matrices: greedy goes with metric 'kfac'"
        )
    return metric


def find_places(model: nn.Module, dense: nn.Module) -> list[Place]:
    """The compressed linear layers and convolutions that can take a branch, each with the dense one of the same name.

    Raises:
        Refused: there is none, the dense model has no such layer, or weights are not finite.
    """
    owners = {id(module.owner) for module in model.modules() if isinstance(module, Tied)}
    originals = dict(dense.named_modules(remove_duplicate=False))
    places = []
    for name, module in model.named_modules():
        if not isinstance(module, StructuredLinear) or id(module) in owners:
            continue
        original = originals.get(name)
        if original is None:
            raise Refused(f"the dense {type(dense).__name__} has no {name!r}: name the model that was compressed")
        if not is_linear(original):
            raise Refused(
                f"{name} of the dense model is a {type(original).__name__}: name the model from before compression"
            )
        site = Site(name, original)
        if site.shape != module.structure.shape:
            raise Refused(
                f"{name} is {site.shape} in the dense model and {module.structure.shape} in the compressed one: name "
                "the model that was compressed"
            )
        places.append(Place(name, module, site))
    if not places:
        raise Refused(f"{type(model).__name__} has no compressed linear layer to put a branch beside")
    for place in places:
        finite_weights({place.name: place.module, f"dense {place.name}": place.dense.module})
    return places


def measured(
    model: nn.Module,
    dense: nn.Module,
    places: Sequence[Place],
    metric: str,
    batches: Sequence[Batch],
    seed: int,
    cache: Path | None,
    memory: int | None,
    progress: Progress,
) -> dict[str, Statistics]:
    """Inputs of the compressed layers and, for `kfac`, output gradients of the dense ones."""

    def collected(phase: str, whose: nn.Module, modules: dict[str, nn.Module], *needs: Need) -> dict[str, Statistics]:
        def tick(done: int, total: int) -> None:
            progress(phase, done, total)

        found, _ = statistics_for(
            whose, modules, needs, batches, seed=seed, cache=cache, memory=memory, on_progress=tick
        )
        return found

    modules: dict[str, nn.Module] = {place.name: place.module for place in places}
    with in_eval_mode(model):
        statistics = collected("inputs", model, modules, Need.INPUT_SECOND_MOMENT, Need.INPUT_MEAN)
    if metric == "kfac":
        large = activation_bytes([place.dense.shape for place in places], batches)
        modules = {place.name: place.dense.module for place in places}
        with in_eval_mode(dense), checkpointed(dense, large > (memory or memory_available()) // 2):
            gradients = per_token(dense, collected("gradients", dense, modules, Need.GRADIENT_SECOND_MOMENT))
        for name, each in statistics.items():
            each.gradient_second_moment = gradients[name].gradient_second_moment
    return statistics


def uniform_ranks(places: Sequence[Place], rank: int) -> dict[str, int]:
    """One rank for all, less where a matrix would not stay smaller than dense; Refused where that is all of them."""
    roomy = max(places, key=lambda place: place.most)
    if roomy.most == 0:
        raise Refused("no compressed matrix leaves room for a branch: with one of rank 1 none is smaller than dense")
    if not 1 <= rank <= roomy.most:
        raise Refused(
            f"rank={rank} is not in 1..{roomy.most}: beyond that every matrix takes more bytes than a dense one "
            f"({roomy.name} is the last)"
        )
    return {place.name: min(rank, place.most) for place in places}


def greedy_ranks(
    places: Sequence[Place],
    statistics: Mapping[str, Statistics],
    metric: str,
    uniform: Mapping[str, int],
    progress: Progress = silent,
) -> dict[str, int]:
    """Ranks of the least summed error among those whose branches hold no more numbers than the uniform ones."""
    offers, candidates = [], []
    for done, place in enumerate(places, 1):
        # From rank 0 on: without a branch a matrix is no worse than it was.
        offers.append(list(range(0, place.most + 1, rank_step(*place.dense.shape))))
        errors = branches_of(place, statistics[place.name], metric).projection.errors[offers[-1]]
        candidates.append(Candidates(sum(place.dense.shape) * np.array(offers[-1], dtype=float), errors.numpy()))
        progress("ranks", done, len(places))
    budget = sum(uniform[place.name] * sum(place.dense.shape) for place in places)
    chosen = allocate(candidates, budget, "greedy", floor=0.0)
    return {place.name: ranks[i] for place, ranks, i in zip(places, offers, chosen, strict=True)}
