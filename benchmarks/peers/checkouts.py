"""The authors' functions, imported from checkouts of their repositories and run unmodified on one matrix on a CPU.

Nothing of theirs is here. What stands in for what they import and do not need for one matrix, and what is patched, is
said at each function. Everywhere: `torch.cuda.synchronize` does nothing, and what they print is dropped. Each function
gives What in float64, the bytes of the tensors they would store, and the CPU seconds of the fit alone, without their
pass over the inputs except where it says so.
"""

from __future__ import annotations

import importlib
import io
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from benchmarks.peers.matrices import Matrix


@dataclass
class Outcome:
    """What, the bytes it is stored in, and the CPU seconds it took."""

    dense: Tensor
    bytes: int
    seconds: float


def stored(*tensors: Tensor) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


def module(name: str, **attributes: Any) -> ModuleType:
    """A stand-in for a module."""
    stand_in = ModuleType(name)
    stand_in.__dict__.update(attributes)
    return stand_in


@contextmanager
def checkout(directory: Path, *stand_ins: ModuleType) -> Iterator[Callable[[str], Any]]:
    """Imports from one checkout; its modules are forgotten afterwards, so that the next may use the same names."""
    fresh, before = {m.__name__: m for m in stand_ins}, dict(sys.modules)
    sys.modules.update(fresh)
    sys.path.insert(0, str(directory))
    try:
        with quiet():
            yield importlib.import_module
    finally:
        sys.path.remove(str(directory))
        for name in [name for name in set(sys.modules) - set(before) if name in fresh or _within(directory, name)]:
            del sys.modules[name]
        sys.modules.update({name: before[name] for name in fresh if name in before})


def _within(directory: Path, name: str) -> bool:
    here = vars(sys.modules[name])
    return any(str(place).startswith(str(directory)) for place in (here.get("__file__"), *(here.get("__path__") or ())))


@contextmanager
def quiet() -> Iterator[None]:
    with ExitStack() as stack:
        stack.enter_context(redirect_stdout(io.StringIO()))
        stack.enter_context(redirect_stderr(io.StringIO()))
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        stack.enter_context(mock.patch.object(torch.cuda, "synchronize"))
        stack.enter_context(torch.no_grad())
        yield


@contextmanager
def elsewhere() -> Iterator[None]:
    """In an empty directory, removed afterwards."""
    here = os.getcwd()
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)
        try:
            yield
        finally:
            os.chdir(here)


class Block(nn.Module):
    """A decoder layer that is one matrix, under a name the repositories look for; its output is its input."""

    def __init__(self, name: str, weight: Tensor) -> None:
        super().__init__()
        linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False, dtype=weight.dtype)
        linear.weight.data = weight.clone()
        part, leaf = name.split(".")
        self.add_module(part, nn.Module())
        self.get_submodule(part).add_module(leaf, linear)
        self.name, self.hidden_size = name, weight.shape[1]

    def forward(self, x: Tensor, **_: Any) -> tuple[Tensor]:
        self.get_submodule(self.name)(x)
        return (x,)


class Model(nn.Module):
    """A language model of such layers, as far as the repositories look at it."""

    def __init__(self, matrices: list[Matrix], name: str = "mlp.up_proj") -> None:
        super().__init__()
        inner = nn.Module()
        inner.layers = nn.ModuleList(Block(name, m.weight) for m in matrices)
        inner.embed_tokens, inner.norm = nn.Identity(), nn.Identity()
        self.model = inner
        self.seqlen, self.hf_device_map = matrices[0].inputs.shape[1], {}
        self.device = torch.device("cpu")
        self.config = SimpleNamespace(
            hidden_size=matrices[0].weight.shape[1],
            intermediate_size=matrices[0].weight.shape[0],
            hidden_act="silu",
            use_cache=False,
            _name_or_path="one",
        )

    def forward(self, x: Tensor) -> Any:
        layers: Any = self.model.layers
        return layers[0](x, attention_mask=None, position_ids=None)

    def linear(self, layer: int = 0) -> Any:
        layers: Any = self.model.layers
        return layers[layer].get_submodule(layers[layer].name)


def timed(function: Callable[[], Any]) -> tuple[Any, float]:
    start = time.process_time()
    result = function()
    return result, time.process_time() - start


def svd_llm(directory: Path, matrix: Matrix, ratio: float) -> Outcome:
    """SVDLLM.py: `profle_svdllm` (inputs, Cholesky factor; not timed), then `whitening`.

    Stand-ins: `utils.data_utils`, `evaluater`, and the rebuilt decoder classes of `component`, of which only the two
    slots that `whitening` fills are there.
    """

    class Slots(nn.Module):
        def __init__(self, **_: Any) -> None:
            super().__init__()
            self.up_u_proj, self.up_v_proj = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)

    parts = [
        module("component"),
        module("component.svd_llama", SVD_LlamaAttention=Slots, SVD_LlamaMLP=Slots),
        module("component.svd_mistral", SVD_MistralAttention=Slots, SVD_MistralMLP=Slots),
        module("component.svd_opt", SVDOPTDecoderLayer=Slots),
    ]
    with checkout(directory, module("utils.data_utils"), module("evaluater"), *parts) as load:
        code, model = load("SVDLLM"), Model([matrix])
        batches = [{"x": x[None]} for x in matrix.inputs]
        factors = code.profle_svdllm("llama", model, batches, "cpu")
        _, seconds = timed(lambda: code.whitening("llama", model, factors, ratio, "cpu"))
        slots: Any = model.model.layers[0].mlp  # type: ignore[index, union-attr]
        u, v = slots.up_u_proj.weight.data, slots.up_v_proj.weight.data
    return Outcome(u.double() @ v.double(), stored(u, v), seconds)


def asvd(directory: Path, matrix: Matrix, ratio: float, fisher: bool = False) -> Outcome:
    """act_aware_utils.py: `calib_input_distribution`, then modules/svd_linear.py: `SVDLinear.from_linear`.

    With `fisher` the scaling is the FWSVD one: their `fisher_info` is set to what our pass found, because theirs draws
    no labels. Runs in an empty directory, where they write a cache.
    """
    with checkout(directory) as load, elsewhere():
        model = Model([matrix])
        linear, alpha = model.linear(), 0.5
        if fisher:
            assert matrix.statistics.fisher_columns is not None
            linear.fisher_info, alpha = (matrix.statistics.fisher_columns / len(matrix.weight)).sqrt().float(), 1
        else:
            os.mkdir("cache")
            batches = [{"x": x[None]} for x in matrix.inputs]
            load("act_aware_utils").calib_input_distribution(model, batches, "abs_mean", use_cache=False)
        make = load("modules.svd_linear").SVDLinear.from_linear
        torch.manual_seed(0)
        layer, seconds = timed(lambda: make(linear, ratio, act_aware=True, alpha=alpha))
    if isinstance(layer, nn.Linear):
        return Outcome(layer.weight.detach().double(), stored(layer.weight), seconds)
    u, v = layer.ALinear.weight.detach(), layer.BLinear.weight.detach()
    return Outcome(u.double() @ v.double(), stored(u, v), seconds)


def welore(directory: Path, matrix: Matrix, rank: int) -> Outcome:
    """lib/LowRankLayer.py: `LowRankLayer`, which stores bfloat16 whatever the weight is. Stand-in: `lib` itself."""
    package = module("lib", __path__=[str(directory / "lib")])
    with checkout(directory, package) as load:
        layer = load("lib.LowRankLayer").LowRankLayer
        made, seconds = timed(lambda: layer(rank, matrix.weight.float()))
    u, v = made.U.weight.detach(), made.V.weight.detach()
    return Outcome(u.double() @ v.double(), stored(u, v), seconds)


def monarch(directory: Path, matrix: Matrix, blocks: tuple[int, int] | None = None) -> Outcome:
    """src/ops/blockdiag_butterfly_projection.py: `blockdiag_butterfly_project`. Needs einops."""
    with checkout(directory) as load:
        project = load("src.ops.blockdiag_butterfly_projection").blockdiag_butterfly_project
        multiply = load("src.models.layers.blockdiag_butterfly_multiply").blockdiag_butterfly_multiply_reference
        (first, last), seconds = timed(lambda: project(matrix.weight, blocks))
        dense = multiply(torch.eye(matrix.weight.shape[1], dtype=torch.float64), first.double(), last.double()).T
    return Outcome(dense, stored(first, last), seconds)


def gptq(directory: Path, matrix: Matrix, bits: int, group: int, symmetric: bool, order: bool, mse: bool) -> Outcome:
    """gptq.py: `GPTQ.add_batch` (not timed) and `GPTQ.fasterquant`; `order` is `actorder` with `static_groups`."""
    with checkout(directory) as load:
        code, linear = load("gptq"), Model([matrix]).linear()
        worker = code.GPTQ(linear)
        worker.quantizer = load("quant").Quantizer()
        worker.quantizer.configure(bits, perchannel=True, sym=symmetric, mse=mse)
        for x in matrix.inputs:
            worker.add_batch(x[None], None)
        fit = worker.fasterquant
        _, seconds = timed(lambda: fit(percdamp=0.01, groupsize=group, actorder=order, static_groups=order))
    return Outcome(linear.weight.detach().double(), stored(linear.weight), seconds)


def sparsegpt(directory: Path, matrix: Matrix, kept: int | None) -> Outcome:
    """sparsegpt.py: `SparseGPT.add_batch` (not timed) and `SparseGPT.fasterprune`; half, or `kept` of every 4."""
    with checkout(directory) as load:
        linear = Model([matrix]).linear()
        worker = load("sparsegpt").SparseGPT(linear)
        for x in matrix.inputs:
            worker.add_batch(x[None], None)
        n, m = (4 - kept, 4) if kept else (0, 0)
        _, seconds = timed(lambda: worker.fasterprune(0.5, prunen=n, prunem=m, blocksize=128, percdamp=0.01))
    return Outcome(linear.weight.detach().double(), stored(linear.weight), seconds)


def wanda(directory: Path, matrix: Matrix, kept: int | None) -> Outcome:
    """lib/prune.py: `prune_wanda`, its pass over the inputs included. Stand-ins: `lib.data`, `lib.ablate`, `lib`."""
    batches = [(x[None],) for x in matrix.inputs]
    parts = [
        module("lib", __path__=[str(directory / "lib")]),
        module("lib.data", get_loaders=lambda *_, **__: (batches, None)),
        module("lib.ablate", AblateGPT=object),
    ]
    arguments = SimpleNamespace(nsamples=len(batches), seed=0, sparsity_ratio=0.5, use_variant=False)
    with checkout(directory, *parts) as load:
        prune, model = load("lib.prune").prune_wanda, Model([matrix])
        n, m = (4 - kept, 4) if kept else (0, 0)
        _, seconds = timed(lambda: prune(arguments, model, None, torch.device("cpu"), prune_n=n, prune_m=m))
        weight = model.linear().weight.detach()
    return Outcome(weight.double(), stored(weight), seconds)


def eora(directory: Path, matrix: Matrix, compressed: Tensor, rank: int) -> Outcome:
    """EoRA/eora.py: `llama_sequential_eigen`, its pass over the inputs included: What + B A; the bytes are B and A.

    Stand-in: `evaluate_utils`. Patched: `Tensor.to("cuda")` stays where it is, `args` holds the rank and the number of
    sequences.
    """
    move = torch.Tensor.to

    def stay(tensor: Tensor, *arguments: Any, **keywords: Any) -> Tensor:
        return tensor if arguments == ("cuda",) else move(tensor, *arguments, **keywords)

    with checkout(directory / "EoRA", module("evaluate_utils", evaluate_model=None)) as load:
        code, model = load("eora"), Model([matrix])
        code.args = SimpleNamespace(eigen_nsamples=len(matrix.inputs), eigen_r=rank)
        batches, given = [(x[None],) for x in matrix.inputs], {"model.layers.0.mlp.up_proj": compressed}
        with mock.patch.object(torch.Tensor, "to", stay):
            paths, seconds = timed(lambda: code.llama_sequential_eigen(model, batches, given, "cpu"))
    (a,), (b,) = ([p for name, p in paths.items() if key in name] for key in ("lora_A", "lora_B"))
    return Outcome(compressed.double() + b.double() @ a.double(), stored(a, b), seconds)
