"""What a report says of each matrix."""

from __future__ import annotations

from typing import Any

import torch

from eckart.compressors.contract import METHODS
from eckart.jobs.compress.plan import Curve, dense_cost
from eckart.jobs.compress.run import Compression
from eckart.structures import StructuredMatrix


def expression(module: StructuredMatrix) -> str:
    """A structure as an expression: `Chain(Dense, Dense)`."""
    children = module.operands()
    name = type(module).__name__
    return f"{name}({', '.join(map(expression, children))})" if children else name


def site_reports(result: Compression) -> list[dict[str, Any]]:
    """The `sites` of a report: what each matrix became, its error, and its nested curve."""
    reports = []
    halved = result.plan.method.predicts_loss
    for group, site in [(g, s) for g in result.plan.groups for s in g.sites]:
        curve, size = result.plan.curves[group.name], result.choice[group.name]
        dense = dense_cost([site.weight])
        module = result.model.get_submodule(site.name)
        structure = getattr(module, "structure", None)
        error = result.errors.get(site.name, 0.0)
        entry: dict[str, Any] = {
            "name": site.name,
            "structure": expression(structure) if structure is not None else "Dense",
            "shape": list(site.shape),
            "parameters": structure.cost().parameters if structure is not None else dense.parameters,
            "bytes": structure.cost().bytes if structure is not None else dense.bytes,
            "dense_bytes": dense.bytes,
            "error": error / curve.zero_error if curve.zero_error > 0 else 0.0,
            "dense": size is None,
            **(_curve(curve, group.kind, halved) if len(group.sites) == 1 else {"group": group.name}),
        }
        if halved:
            entry["predicted_kl"] = error / 2
        if size is not None:
            name, own = curve.members[curve.sizes.index(size)]
            entry |= {"method": name, _counts(name, group.kind): own}
        if curve.reason:
            entry["reason"] = curve.reason
        reports.append(entry)
    return reports


def _counts(method: str, kind: str) -> str:
    """What the sizes of a method count in a group of a kind: a word of `eckart.SIZES`."""
    card = METHODS.find(method)
    return card.counted.get(kind, card.size)


def _curve(curve: Curve, kind: str, halved: bool, points: int = 33) -> dict[str, Any]:
    if curve.errors is None or curve.zero_error <= 0 or len(curve.sizes) < 2:
        return {}
    sure = [i for i, size in enumerate(curve.sizes) if curve.known is None or size is None or size in curve.known]
    picked = [sure[i] for i in torch.linspace(0, len(sure) - 1, min(points, len(sure))).round().long().tolist()]
    extra: dict[str, Any] = {
        "curve": {
            "parameters": [curve.costs[i].parameters for i in picked],
            "bytes": [curve.costs[i].bytes for i in picked],
            "error": [curve.errors[i] / curve.zero_error for i in picked],
            "size": [
                "dense" if curve.sizes[i] is None else f"{_counts(name, kind)} {own}"
                for i in picked
                for name, own in [curve.members[i] if curve.sizes[i] is not None else ("", 0)]
            ],
        }
    }
    if halved:
        extra["curve"]["predicted_kl"] = [max(0.0, curve.errors[i]) / 2 for i in picked]
    if curve.spectrum is not None:
        s = curve.spectrum
        at = torch.linspace(0, len(s) - 1, min(64, len(s))).round().long()
        extra["spectrum"] = [float(v) for v in s[at].clamp_min(0).sqrt()]
    return extra
