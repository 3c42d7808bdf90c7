"""Fitting again, block by block, to the inputs that the compressed blocks in front hand on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from eckart.errors import Refused
from eckart.jobs.compress.block_streams import Observed, entering, forward
from eckart.jobs.compress.plan import Plan
from eckart.machine import exact_sum
from eckart.models import places
from eckart.models.experts import mixtures
from eckart.models.sites import Site
from eckart.statistics import Need, Statistics
from eckart.structures import Dense

RIDGE = 0.1
"""How strongly the corrected weight is held to the original one, relative to the mean eigenvalue of E[x x^T]."""


def corrected_weight(weight: Tensor, cross: Tensor, moment: Tensor, ridge: float = RIDGE) -> Tensor:
    """The weight V that maps changed inputs z to the outputs W x: argmin E||W x - V z||^2 + s ||V - W||^2.

    V = W (E[x z^T] + s I) (E[z z^T] + s I)^-1, s = ridge times the mean of the diagonal of E[z z^T].

    Args:
        weight: W (out, in).
        cross: E[x z^T], (in, in).
        moment: E[z z^T], (in, in).
        ridge: above 0; large values return W.

    Raises:
        Refused: a moment has NaN or Inf entries.
    """
    if not (torch.isfinite(cross).all() and torch.isfinite(moment).all()):
        raise Refused("E[x z^T] or E[z z^T] has NaN or Inf entries; are the compressed model's activations finite?")
    s = ridge * moment.diagonal().mean()
    if not s > 0:
        return weight.double()
    identity = torch.eye(len(moment), dtype=torch.float64)
    right = weight.double() @ (cross.double() + s * identity)
    factor = torch.linalg.cholesky(moment.double() + s * identity)
    return torch.cholesky_solve(right.T, factor).T


@dataclass
class _Moments:
    """Running sums of x (dense stream), z (compressed stream), x z^T and z z^T."""

    tokens: int
    x: Tensor
    z: Tensor
    cross: Tensor
    moment: Tensor

    @staticmethod
    def of(xs: Sequence[Tensor], zs: Sequence[Tensor]) -> _Moments:
        n = xs[0].shape[-1]
        m = _Moments(0, *(torch.zeros(n, dtype=torch.float64) for _ in range(2)), *(_zeros(n) for _ in range(2)))
        for x, z in zip(xs, zs, strict=True):
            a, b = x.flatten(0, -2).float(), z.flatten(0, -2).float()
            m.tokens += len(a)
            m.x += exact_sum(a, 0)
            m.z += exact_sum(b, 0)
            m.cross += (a.T @ b).cpu()
            m.moment += (b.T @ b).cpu()
        return replace(m, x=m.x / m.tokens, z=m.z / m.tokens, cross=m.cross / m.tokens, moment=m.moment / m.tokens)


def _zeros(n: int) -> Tensor:
    return torch.zeros(n, n, dtype=torch.float64)


@torch.no_grad()
def refit(
    model: nn.Module,
    plan: Plan,
    choice: Mapping[str, int | None],
    observed: Observed,
    *,
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[str, float]:
    """Fits every site of the model's blocks again, at the chosen sizes, first block first.

    Each matrix is first corrected so that it gives the outputs of the dense model on the inputs it now gets, and then
    compressed in the metric of those inputs; matrices that stay dense are corrected too. Experts of a mixture stay as
    they are: other tokens reach them than in the dense model. Two streams of hidden states
    run side by side, and one block is worked on at a time.

    Args:
        model: compressed at `choice`; its sites in blocks are replaced again.
        plan: made from the dense model.
        choice: sizes by site name.
        observed: of the dense model, before it was compressed.
        on_progress: called with (blocks done, blocks in all).

    Returns:
        The squared error of each corrected matrix that is not dense, by site name.
    """
    errors: dict[str, float] = {}
    prefix, calls, hidden, count = observed.prefix, observed.calls, observed.hidden, len(observed.calls)
    compressed = entering(model, observed)
    routed = tuple(f"{name}." for name in mixtures(model))
    by_block: dict[int, list[Site]] = {}
    for site in plan.sites:
        if site.name.startswith(prefix + ".") and not site.name.startswith(routed):
            by_block.setdefault(int(site.name[len(prefix) + 1 :].split(".")[0]), []).append(site)
    for b, (twin, block) in enumerate(observed.blocks(model)):
        here = by_block.get(b, [])
        inner = {site.name: site.name.removeprefix(f"{prefix}.{b}.") for site in here}
        hidden, seen = forward(twin, hidden, calls[b], list(inner.values()))
        for group in _groups(here, inner, seen):
            leader = inner[group[0].name]
            zs = forward(block, compressed, calls[b], [leader], stop=True)[1][leader]
            if all(map(torch.equal, seen[leader], zs)):
                continue  # nothing in front has changed
            moments = _Moments.of(seen[leader], zs)
            for site in group:
                errors |= _refit_site(model, plan, site, choice[site.name], moments)
        compressed, _ = forward(block, compressed, calls[b], [])
        if on_progress:
            on_progress(b + 1, count)
    return errors


def _refit_site(model: nn.Module, plan: Plan, site: Site, size: int | None, m: _Moments) -> dict[str, float]:
    if size is None and plan.curves[site.name].failed:
        return {}
    centred = Need.INPUT_MEAN in plan.method.needs and (size is not None or site.bias is not None)
    cross, moment = m.cross, m.moment
    if centred:
        cross, moment = cross - m.x.outer(m.z), moment - m.z.outer(m.z)
    dense = site.weight.cpu()
    weight = corrected_weight(dense, cross, moment)
    shift = dense.double() @ m.x - weight @ m.z if centred else None
    dtype = dense.dtype
    if size is None:
        places.replace(model, site, Dense(weight.to(dtype)), None if shift is None else shift.to(dtype))
        return {}
    old = plan.statistics.get(site.name, Statistics())
    statistics = replace(old, tokens=m.tokens, input_second_moment=m.moment, input_mean=m.z)
    fitted = plan.method.entry(weight.to(dtype), statistics).build(size)
    bias = fitted.bias
    if shift is not None:
        bias = shift.to(dtype) if bias is None else (bias.double() + shift).to(dtype)
    places.replace(model, site, fitted.structure, bias)
    return {site.name: fitted.error}


def _groups(here: Sequence[Site], inner: Mapping[str, str], seen: Mapping[str, list[Tensor]]) -> list[list[Site]]:
    """Sites that read the same tensor, in the order of the module tree; a site that never ran is left out."""
    groups: dict[int, list[Site]] = {}
    for site in here:
        if tensors := seen[inner[site.name]]:
            groups.setdefault(id(tensors[0]), []).append(site)
    return list(groups.values())
