"""Methods that fit several matrices together, as their repositories do it and as the formula has it.

What stands in for what they import is said at each function; see `checkouts`. Errors are relative norms, and the
formula is the best that their form allows in exact arithmetic, where there is a closed form.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch import Tensor

import eckart
from benchmarks.peers.checkouts import Model, Outcome, checkout, module, stored, timed
from benchmarks.peers.matrices import Matrix
from eckart.metrics import Metric

HEAD = 64
DAMPING = 1e-12
"""Keeps the regression solvable, relative to the mean of the diagonal."""


@dataclass(frozen=True)
class Part:
    """Relative errors and CPU seconds of one part of a layer, theirs and the formula's."""

    name: str
    theirs: float
    ours: float
    their_seconds: float
    seconds: float


def basis_sharing(directory: Path, group: list[Matrix], kind: str, ratio: int) -> tuple[Metric, Matrix, int, Outcome]:
    """group.py: `Group` and its split; calib.py: `Hook` on each matrix, `Calib.get_s_inv_s`; utils.py: the rank.

    Patched: `Calib.get_calib_data` gives the sum of what the hooks found instead of reading pickles.

    Returns:
        The metric of the sum of the second moments, the stack of the group's matrices, the rank, and their outcome.
    """
    with checkout(directory) as load:
        code, calibration = load("group"), load("calib")
        model = Model(group, kind)
        total = torch.zeros(group[0].inputs.shape[-1], group[0].inputs.shape[-1])
        for i, matrix in enumerate(group):
            hook = calibration.Hook(model.linear(i))
            for x in matrix.inputs:
                model.linear(i)(x[None])
            total += hook.calib
            hook.close()
        out, columns = group[0].weight.shape
        rank = load("utils").compute_num_basis(columns, out, len(group), ratio)
        members = list(range(len(group)))

        def fit() -> tuple[Tensor, list[Tensor]]:
            made = code.Group(
                model, members, kind, out, "llama2", *calibration.Calib.get_s_inv_s(members, kind, "", "")
            )
            split = made._get_coefficient_split()
            return made.basis[:, :rank], [split[i][kind][:rank] for i in members]

        with mock.patch.object(calibration.Calib, "get_calib_data", return_value=total):
            (basis, coefficients), seconds = timed(fit)
    dense = torch.cat([(basis.double() @ c.double()).T for c in coefficients])
    name = " + ".join(m.name for m in group)
    stack = Matrix(name, torch.cat([m.weight for m in group]), group[0].inputs, group[0].statistics)
    return (
        Metric(right=sum(map(right, group), torch.zeros(()))),
        stack,
        rank,
        Outcome(dense, stored(basis, *coefficients), seconds),
    )


def modegpt(directory: Path, layer: dict[str, Matrix], keep: float) -> list[Part]:
    """src/compression: `compress_weights` (MLP), `compress_head_grouped` (values and outputs) and
    `compress_head_llama_grouped` (queries and keys), at `keep` of the hidden units and of the dimensions of a head.

    Stand-ins: `src.model_utils` (float64, the CPU), `src.adapters.model_adapter` (two types). Ridges are theirs: 1e-2,
    1e-4, 1e-6. They are handed exact second moments.
    """
    parts = [
        module("src.model_utils", dtype_p=torch.float64, d1="cpu", d2="cpu", calib_device="cpu"),
        module("src.adapters.model_adapter", ModelAdapter=object, MLPComponents=object),
    ]
    dimensions = int(HEAD * keep) // 2 * 2
    with checkout(directory, *parts) as load:
        root = load("src.compression_utils").sqrt_M
        return [
            units(load("src.compression.compress_mlp"), layer, keep),
            values(load("src.compression.compress_vo").compress_head_grouped, root, layer, dimensions),
            queries(load("src.compression.compress_qk").compress_head_llama_grouped, layer, dimensions),
        ]


def units(code: Any, layer: dict[str, Matrix], keep: float) -> Part:
    """Hidden units by ridge leverage; W_down regressed on those kept: W C[:, S] C[S, S]^-1, stored in bfloat16."""
    up, gate, down = (layer[f"mlp.{kind}_proj"] for kind in ("up", "gate", "down"))
    moment = right(down)
    linear = {f"{name}_proj": Model([m]).linear() for name, m in (("up", up), ("gate", gate), ("down", down))}
    (_, made, _, rank), seconds = timed(lambda: code.compress_weights(SimpleNamespace(**linear), moment, keep, 0, 1e-2))
    kept = torch.topk(code.get_ridge_scores(moment, 0), rank, largest=False).indices.sort().values
    w = down.weight.double()

    def formula() -> Tensor:
        gram = moment[kept][:, kept]
        level = DAMPING * gram.diagonal().mean()
        return torch.linalg.solve(gram + level * torch.eye(rank, dtype=gram.dtype), moment[kept] @ w.T).T

    best, own = timed(formula)
    theirs, ours = (
        relative(w, torch.zeros_like(w).index_copy(1, kept, each.bfloat16().double()), Metric(right=moment))
        for each in (made.T, best)
    )
    return Part(f"{down.name} from {rank} units", theirs, ours, seconds, own)


def values(code: Any, root: Any, layer: dict[str, Matrix], rank: int) -> Part:
    """For each head of values the map of all its queries' heads: the best of one rank under E[x x^T]."""
    v, o = (layer[f"self_attn.{kind}_proj"].weight.double() for kind in ("v", "o"))
    moment = right(layer["self_attn.v_proj"])
    heads, share = len(v) // HEAD, o.shape[1] // len(v)
    new_v: list[Tensor] = []
    new_o: list[Tensor] = []

    def fit() -> None:
        half = root(moment, ridge_lambda=1e-4)
        inverse = torch.linalg.inv(half)
        for head in range(heads):
            code(head, share, HEAD, rank, v, o, half, inverse, new_v, new_o)

    _, seconds = timed(fit)
    whole, theirs, ours, own, metric = 0.0, 0.0, 0.0, 0.0, Metric(right=moment)
    for head in range(heads):
        outputs = o[:, head * share * HEAD : (head + 1) * share * HEAD].reshape(len(o), share, HEAD)
        dense = outputs.transpose(0, 1).flatten(0, 1) @ v[head * HEAD : (head + 1) * HEAD]
        made = torch.cat(new_o[head * share : (head + 1) * share]) @ new_v[head]
        best, spent = timed(lambda dense=dense: eckart.fit(dense, "svd", metric=metric, rank=rank))
        own += spent
        whole += float(metric.error(dense))
        theirs += float(metric.error(dense - made))
        ours += float(metric.error(dense - best.to_dense().detach()))
    name = f"{layer['self_attn.v_proj'].name} and o, rank {rank} of {HEAD}"
    return Part(name, (theirs / whole) ** 0.5, (ours / whole) ** 0.5, seconds, own)


def queries(code: Any, layer: dict[str, Matrix], rank: int) -> Part:
    """Pairs of dimensions that rotate together, kept for a head of keys and its queries; error E (q' (I - S) k)^2.

    With H the sum over the queries' heads of E[q q'] * E[k k'] (entry by entry) that is the sum of H over what is cut.
    No closed form; the formula cuts the pair that costs least, given those cut already.
    """
    q, k = (layer[f"self_attn.{kind}_proj"].weight.double() for kind in ("q", "k"))
    moment = right(layer["self_attn.q_proj"])
    q, k = q.view(-1, HEAD, q.shape[1]), k.view(-1, HEAD, k.shape[1])
    share = len(q) // len(k)
    of_q, of_k = ([w @ moment @ w.T for w in heads] for heads in (q, k))
    kept: list[Tensor] = []

    def fit() -> None:
        for head in range(len(k)):
            code(head, share, of_q, of_k, q, k, [], [], kept, rank, ridge_lambda=1e-6)

    _, seconds = timed(fit)
    whole, theirs, ours, own = 0.0, 0.0, 0.0, 0.0
    for head in range(len(k)):
        joint = sum(of_q[head * share : (head + 1) * share], torch.zeros(())) * of_k[head]
        pairs = joint.view(2, HEAD // 2, 2, HEAD // 2).sum((0, 2))
        cut = torch.ones(HEAD // 2, dtype=torch.bool)
        cut[kept[head][: rank // 2]] = False
        chosen, spent = timed(lambda pairs=pairs: eliminated(pairs, (HEAD - rank) // 2))
        own += spent
        whole += float(pairs.sum())
        theirs += float(pairs[cut][:, cut].sum())
        ours += float(pairs[chosen][:, chosen].sum())
    name = f"{layer['self_attn.q_proj'].name} and k, {rank} of {HEAD}"
    return Part(name, (theirs / whole) ** 0.5, (ours / whole) ** 0.5, seconds, own)


def eliminated(pairs: Tensor, count: int) -> Tensor:
    """Indices (count,) whose block of a symmetric matrix has a small sum, one added at a time."""
    chosen: list[int] = []
    rise = pairs.diagonal().clone()
    for _ in range(count):
        rise[chosen] = float("inf")
        chosen.append(int(rise.argmin()))
        rise += 2 * pairs[:, chosen[-1]]
    return torch.tensor(chosen)


def right(matrix: Matrix) -> Tensor:
    assert isinstance(matrix.metric.right, Tensor)
    return matrix.metric.right


def relative(weight: Tensor, dense: Tensor, metric: Metric) -> float:
    """||W - What|| / ||W|| in a metric."""
    return float((metric.error(weight.double() - dense) / metric.error(weight.double())).sqrt())
