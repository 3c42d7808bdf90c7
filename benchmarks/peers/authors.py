"""The authors' own code beside eckart's, on the same matrices and inputs, in the metric of each method.

    python -m benchmarks.peers.authors --svd-llm DIR --asvd DIR --sparsegpt DIR ...

Each DIR is a checkout that the user made; a method whose checkout is not named is left out. None of their code is here,
and none is changed: `checkouts.py`, `lq_lora.py` and `groups.py` say what stands in for modules that one
matrix on a CPU does not need. Measured with

    --svd-llm       AIoT-MLSys-Lab/SVD-LLM  1c1009a   Apache-2.0
    --asvd          hahnyuan/ASVD4LLM       8630427   MIT       (for FWSVD too)
    --welore        VITA-Group/welore       f69f015   no licence; only lib/LowRankLayer.py is imported
    --monarch       HazyResearch/fly        6b73449   Apache-2.0; needs einops
    --gptq          IST-DASLab/gptq         2d65066   Apache-2.0
    --sparsegpt     IST-DASLab/sparsegpt    147d215   Apache-2.0
    --wanda         locuslab/wanda          8e8fc87   MIT
    --eora          NVlabs/EoRA             11ff6c0   NVIDIA source code license: research or evaluation only
    --lq-lora       HanGuo97/lq-lora        c2424b3   MIT
    --basis-sharing TUDa-HWAI/Basis_Sharing 8fa941e   no licence
    --modegpt       cbacary/MoDeGPT         2a76ae8   no licence; not by the paper's authors

Errors are ||L^1/2 (W - What) R^1/2||_F / ||L^1/2 W R^1/2||_F in float64, from second moments in float64, of What as
stored by each side. `theirs/ours` above 1 means that ours is smaller. Seconds are CPU seconds of the fit on one thread,
without the pass over the inputs except where `checkouts.py` says so; kB are what each side stores.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from torch import Tensor

import eckart
from benchmarks.common.rows import Rows, add_option
from benchmarks.peers import checkouts as peers
from benchmarks.peers import lq_lora as peer_lq_lora
from benchmarks.peers.checkouts import Outcome
from benchmarks.peers.groups import basis_sharing, modegpt, relative
from benchmarks.peers.matrices import Matrix, hard, layers
from eckart.budget import Candidates, allocate
from eckart.compressors import gptq as own_gptq
from eckart.compressors.contract import METHODS
from eckart.jobs.compensate.branch import exact
from eckart.linalg.monarch import project
from eckart.metrics import Metric
from eckart.ops.packing import grid
from eckart.structures import Monarch, StructuredMatrix

RATIO = 0.6
RANK = 64
GROUP = 64
PAIRED = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "mlp.gate_proj", "mlp.up_proj")


@dataclass
class Material:
    """Layers of the model by number and kind; `plain` is the matrices of the layers asked for, `hard` others."""

    layers: dict[int, dict[str, Matrix]]
    plain: list[Matrix]
    hard: list[Matrix]


@dataclass
class Row:
    """One comparison: what, how large, relative errors, seconds and bytes of both sides."""

    name: str
    size: str
    setting: str
    errors: tuple[float, float]
    seconds: tuple[float, float]
    bytes: tuple[int, int]


def row(matrix: Matrix, setting: str, metric: Metric, theirs: Outcome, fit: Callable[[], StructuredMatrix]) -> Row:
    structure, seconds = peers.timed(fit)
    dense = exact(structure).detach()
    errors = relative(matrix.weight, theirs.dense, metric), relative(matrix.weight, dense, metric)
    costs = theirs.bytes, structure.cost().bytes
    return Row(matrix.name, matrix.size, setting, errors, (theirs.seconds, seconds), costs)


def rank_of(matrix: Matrix) -> int:
    out, columns = matrix.weight.shape
    return int(out * columns * RATIO / (out + columns))


def fit(matrix: Matrix, method: str, **size: int) -> StructuredMatrix:
    return eckart.fit(matrix.weight, method, metric=None, statistics=matrix.statistics, **size)


def best(weight: Tensor, metric: Metric, rank: int) -> StructuredMatrix:
    return eckart.fit(weight, "svd", metric=metric, rank=rank)


def svd_llm_rows(directory: Path, material: Material) -> Iterator[Row]:
    for m in material.plain + material.hard:
        theirs, rank = peers.svd_llm(directory, m, RATIO), rank_of(m)
        own = Metric(right=m.statistics.input_second_moment)
        yield row(m, f"rank {rank}", m.metric, theirs, partial(best, m.weight, own, rank))


def asvd_rows(directory: Path, material: Material) -> Iterator[Row]:
    for m in material.plain + material.hard:
        metric, rank = Metric(right=m.statistics.input_abs_mean), rank_of(m)
        theirs = peers.asvd(directory, m, RATIO)
        yield row(m, f"rank {rank}", metric, theirs, partial(fit, m, "asvd", rank=rank))


def fwsvd_rows(directory: Path, material: Material) -> Iterator[Row]:
    for m in material.plain:
        metric, rank = Metric(right=m.statistics.fisher_columns), rank_of(m)
        theirs = peers.asvd(directory, m, RATIO, fisher=True)
        yield row(m, f"rank {rank}", metric, theirs, partial(fit, m, "fwsvd", rank=rank))


def welore_rows(directory: Path, material: Material) -> Iterator[Row]:
    for m in material.plain:
        rank = rank_of(m)
        theirs = peers.welore(directory, m, rank)

        def short(m: Matrix = m, rank: int = rank) -> StructuredMatrix:
            return fit(m, "welore", rank=rank).bfloat16()

        yield row(m, f"rank {rank}, bfloat16", Metric(), theirs, short)


def monarch_rows(directory: Path, material: Material) -> Iterator[Row]:
    for m in material.plain:
        n = m.weight.shape[0]
        blocks = round(n**0.5)
        if m.weight.shape != (n, n) or blocks**2 != n:
            continue
        theirs = peers.monarch(directory, m)

        def one(w: Tensor = m.weight, blocks: int = blocks) -> StructuredMatrix:
            left, right, _ = project(w, blocks, blocks)
            return Monarch.from_blocks(left[..., :1].to(w.dtype), right[..., :1, :].to(w.dtype))

        yield row(m, f"{blocks} x {blocks} blocks, 1 term", Metric(), theirs, one)
        terms = blocks // 4
        yield row(m, f"as many numbers, 4 x 4, {terms}", Metric(), theirs, partial(fit, m, "monarch", terms=terms))


def gptq_rows(directory: Path, material: Material) -> Iterator[Row]:
    def ours(m: Matrix, bits: int, symmetric: bool = False) -> StructuredMatrix:
        moment = m.statistics.input_second_moment
        assert moment is not None
        return own_gptq.gptq_quantize(m.weight, moment, bits, GROUP, symmetric=symmetric)

    for m in material.plain + material.hard:
        theirs = peers.gptq(directory, m, 4, GROUP, symmetric=False, order=True, mse=False)
        with mock.patch.object(own_gptq, "searched_grid", lambda *given: grid(*given[:4])):
            yield row(m, "4 bits, same grid", m.metric, theirs, partial(ours, m, 4))
        for bits, symmetric in ((4, False), (3, False), (4, True)):
            theirs = peers.gptq(directory, m, bits, GROUP, symmetric=symmetric, order=True, mse=True)
            setting = f"{bits} bits, both search{', symmetric' if symmetric else ''}"
            yield row(m, setting, m.metric, theirs, partial(ours, m, bits, symmetric))
        theirs = peers.gptq(directory, m, 3, GROUP, symmetric=False, order=False, mse=False)
        yield row(m, "3 bits, defaults of both", m.metric, theirs, partial(ours, m, 3))


def pruned(name: str, peer: Callable[[Path, Matrix, int | None], Outcome]) -> Callable[..., Iterator[Row]]:
    def rows(directory: Path, material: Material) -> Iterator[Row]:
        for m in material.plain + material.hard:
            yield row(m, "half", m.metric, peer(directory, m, None), partial(fit, m, name, percent=50))
            yield row(m, "2 of 4", m.metric, peer(directory, m, 2), partial(fit, m, f"{name}-semi", kept=2))

    return rows


def eora_rows(directory: Path, material: Material) -> Iterator[Row]:
    for m in material.plain + material.hard:
        codes = eckart.fit(m.weight, "rtn", bits=3)
        theirs = peers.eora(directory, m, codes.to_dense().detach(), RANK)
        own = Metric(right=m.statistics.input_second_moment)
        rest = m.weight.double() - exact(codes).detach()
        path, seconds = peers.timed(partial(best, rest, own, RANK))
        path = path.to(m.weight.dtype)
        dense = exact(codes).detach() + exact(path).detach()
        errors = relative(m.weight, theirs.dense, m.metric), relative(m.weight, dense, m.metric)
        costs = theirs.bytes, path.cost().bytes
        yield Row(m.name, m.size, f"rtn 3 bits + {RANK}", errors, (theirs.seconds, seconds), costs)


def lq_lora_rows(directory: Path, material: Material) -> Iterator[Row]:
    for m in material.plain:
        metric = Metric(m.statistics.fisher_rows, m.statistics.fisher_columns)
        rank = min(RANK, min(m.weight.shape) // 8)
        for bits in (3, 4):
            theirs = peer_lq_lora.decomposition(directory, m, rank, bits)
            yield row(m, f"{bits} bits + {rank}", metric, theirs, partial(fit, m, "lq-lora", bits=bits))


def allocation(directory: Path, material: Material) -> None:
    """The integer program of LQ-LoRA with its SciPy backend, and eckart's, on the same costs and errors."""
    card = METHODS.find("lq-lora")
    families = [
        # The program wants as many sizes of each matrix.
        card.taking({"group": GROUP, "rank": min(RANK, min(m.weight.shape) // 8)}).entry(m.weight, m.statistics)
        for m in material.plain
    ]
    errors = np.array([f.errors.numpy() for f in families])
    costs = np.array([[c.bytes for c in f.costs] for f in families], dtype=float)
    print(f"{'kB allowed':>12} {'theirs':>12} {'ours':>12} {'CPU s':>7} {'ours':>7}")
    for share in (0.4, 0.5, 0.7):
        budget = float(costs[:, 0].sum() + share * (costs[:, -1] - costs[:, 0]).sum())
        solution, theirs = peer_lq_lora.program(directory, budget, errors, costs)
        candidates = [Candidates(c, e) for c, e in zip(costs, errors, strict=True)]
        choice, ours = peers.timed(partial(allocate, candidates, budget, "exact", floor=0.0))
        total = sum(float(e[i]) for e, i in zip(errors, choice, strict=True))
        print(f"{budget / 1e3:>12.0f} {solution:>12.6g} {total:>12.6g} {theirs:>7.2f} {ours:>7.2f}")


def basis_sharing_rows(directory: Path, material: Material) -> Iterator[Row]:
    for number in sorted(material.layers):
        if number + 1 not in material.layers:
            continue
        for kind in PAIRED:
            group = [material.layers[number][kind], material.layers[number + 1][kind]]
            metric, stack, rank, theirs = basis_sharing(directory, group, kind, round(100 * (1 - RATIO)))
            yield row(stack, f"rank {rank}", metric, theirs, partial(best, stack.weight, metric, rank))


def modegpt_rows(directory: Path, material: Material) -> Iterator[Row]:
    for number in sorted({m.name.split()[0] for m in material.plain}, key=int):
        for p in modegpt(directory, material.layers[int(number)], 0.7):
            yield Row(p.name, "", "formula as ours", (p.theirs, p.ours), (p.their_seconds, p.seconds), (0, 0))


TABLES: dict[str, dict[str, Callable[[Path, Material], Iterator[Row]]]] = {
    "svd-llm": {"svd-llm": svd_llm_rows},
    "asvd": {"asvd": asvd_rows, "fwsvd": fwsvd_rows},
    "welore": {"welore": welore_rows},
    "monarch": {"monarch": monarch_rows},
    "gptq": {"gptq": gptq_rows},
    "sparsegpt": {"sparsegpt": pruned("sparsegpt", peers.sparsegpt)},
    "wanda": {"wanda": pruned("wanda", peers.wanda)},
    "eora": {"eora": eora_rows},
    "lq-lora": {"lq-lora": lq_lora_rows},
    "basis-sharing": {"basis-sharing": basis_sharing_rows},
    "modegpt": {"modegpt": modegpt_rows},
}


def show(title: str, rows: Iterator[Row], kept: Rows) -> None:
    print(
        f"\n{title}\n{'matrix':<24} {'shape':>9} {'setting':<30} {'theirs':>10} {'ours':>10} {'theirs/ours':>12}",
        end="",
    )
    print(f" {'CPU s':>7} {'ours':>7} {'kB':>8} {'ours':>8}")
    ratios: dict[str, list[float]] = {}
    for r in rows:
        ratio = r.errors[0] / r.errors[1] if r.errors[1] else float("nan")
        ratios.setdefault(r.setting if title in ("gptq", "sparsegpt", "wanda", "lq-lora") else "all", []).append(ratio)
        sizes = f"{r.bytes[0] / 1e3:>8.0f} {r.bytes[1] / 1e3:>8.0f}" if r.bytes[0] else ""
        numbers = f"{r.errors[0]:>10.6f} {r.errors[1]:>10.6f} {ratio:>12.6f}"
        seconds = f"{r.seconds[0]:>7.2f} {r.seconds[1]:>7.2f}"
        print(f"{r.name:<24} {r.size:>9} {r.setting:<30} {numbers} {seconds} {sizes}", flush=True)
    for setting, values in ratios.items():
        worse = sum(not value >= 1 - 1e-4 for value in values)
        span = f"{min(values):.5f} to {max(values):.5f}, median {statistics.median(values):.5f}"
        kept.add({"title": title, "setting": setting}, {"matrices": len(values), "ratio": span, "worse": worse})
        print(f"{setting}: theirs/ours {span}; ours worse by more than 1e-4 on {worse} of {len(values)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in TABLES:
        parser.add_argument(f"--{name}", type=Path, metavar="DIR")
    parser.add_argument("--layers", default="0,10,29", help="of 30 (default: %(default)s)")
    parser.add_argument("--samples", type=int, default=16, help="sequences of 256 tokens (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    add_option(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    kept = Rows("peers.authors", options.json)
    asked = [int(n) for n in options.layers.split(",")]
    partners = [n + 1 if n < 29 else n - 1 for n in asked] if options.basis_sharing else []
    found = layers(sorted({*asked, *partners}), asked, options.samples, options.seed)
    plain = [m for n in asked for m in found[n].values()]
    material = Material(found, plain, hard(found[asked[len(asked) // 2]], options.seed))
    print(
        f"torch {torch.__version__}, 1 thread, smollm2, layers {options.layers}, {options.samples} x 256 tokens of news"
    )
    for name, tables in TABLES.items():
        directory = getattr(options, name.replace("-", "_"))
        if directory is None:
            continue
        for title, rows in tables.items():
            show(title, rows(directory.resolve(), material), kept)
        if name == "lq-lora":
            allocation(directory.resolve(), material)


if __name__ == "__main__":
    main()
