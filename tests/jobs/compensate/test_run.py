"""Paths of low rank beside compressed matrices: their optimum, what they leave alone, files, and the command line."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

import eckart
from eckart.cli.app import main
from eckart.jobs.exports.dense import write as to_dense_directory
from eckart.jobs.exports.peft import low_rank_terms
from eckart.jobs.exports.peft import write as to_peft_directory
from eckart.models import transformers as hf
from eckart.models.modules import StructuredLinear
from eckart.models.places import replace
from eckart.models.sites import find_sites
from eckart.structures import Chain, Dense, Quantized, Sum, low_rank
from support.tiny import CONTEXT, VOCABULARY, tiny_gpt2, tiny_llama, tiny_tokenizer

IDS = torch.randint(0, VOCABULARY, (24, 40), generator=torch.Generator().manual_seed(3))
BASES: dict[str, dict[str, Any]] = {
    "rtn": {"bits": 3},
    "magnitude-semi": {"kept": 2},
    "svd": {"rank": 6},
}
SMALL = ["--samples", "4", "--length", "32", "--eval-samples", "3"]


def compressed(base: str, dense: nn.Module) -> nn.Module:
    """A copy of a model with every linear layer compressed to one size."""
    model = copy.deepcopy(dense)
    for site in find_sites(model):
        replace(model, site, eckart.fit(site.weight, base, **BASES[base]))
    return model


def structured(model: nn.Module) -> dict[str, StructuredLinear]:
    return {name: m for name, m in model.named_modules() if isinstance(m, StructuredLinear)}


@torch.no_grad()
def inputs(model: nn.Module, ids: Tensor = IDS) -> dict[str, Tensor]:
    """What each compressed layer of a model reads, (tokens, in), float64."""
    seen: dict[str, Tensor] = {}
    handles = [
        m.register_forward_pre_hook(lambda _, a, n=name: seen.__setitem__(n, a[0].flatten(0, -2).double()))
        for name, m in structured(model).items()
    ]
    model(ids)
    for handle in handles:
        handle.remove()
    return seen


def tail(matrix: Tensor, rank: int) -> float:
    """Squared norm of what the best matrix of a rank leaves of a matrix."""
    return float(torch.linalg.svdvals(matrix)[rank:].square().sum())


def weight_of(model: nn.Module, name: str) -> Tensor:
    module = model.get_submodule(name)
    assert isinstance(module.weight, Tensor)
    weight = module.weight.detach().double()
    return weight.T if type(module).__name__ == "Conv1D" else weight


# --- the optimum ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2])
@pytest.mark.parametrize("base", BASES)
def test_errors_are_the_optimum(base: str, make: Callable[[], nn.Module]) -> None:
    dense = make()
    model = compressed(base, dense)
    before, xs = copy.deepcopy(model), inputs(model)
    result = eckart.compensate(model, dense, 4, calibration=IDS)
    assert set(result.added) == set(structured(model)) == {site.name for site in find_sites(dense)}
    assert not result.warnings
    for name, added in result.added.items():
        w, x = weight_of(dense, name), xs[name]
        lost = x @ (w - structured(before)[name].structure.to_dense().detach().double()).T
        whole = float((x @ w.T).square().sum())
        assert added.rank == 4
        assert added.before == pytest.approx(float(lost.square().sum()) / whole, rel=1e-4)
        assert added.after == pytest.approx(tail(lost, 4) / whole, rel=1e-4)
        left = x @ (w - structured(model)[name].structure.to_dense().detach().double()).T
        assert added.after == pytest.approx(float(left.square().sum()) / whole, rel=1e-4)


def test_the_other_metrics_against_an_svd() -> None:
    dense = tiny_llama()
    for metric in ("diagonal", "svd"):
        model = compressed("rtn", dense)
        before, xs = copy.deepcopy(model), inputs(model)
        eckart.compensate(model, dense, 3, metric=metric, calibration=IDS)
        for name, module in structured(model).items():
            lost = weight_of(dense, name) - structured(before)[name].structure.to_dense().detach().double()
            scale = xs[name].square().mean(0).sqrt() if metric == "diagonal" else torch.ones(lost.shape[1]).double()
            u, s, vt = torch.linalg.svd(lost * scale, full_matrices=False)
            expected = (u[:, :3] * s[:3]) @ vt[:3] / scale
            [(left, right)] = low_rank_terms(module.structure)
            torch.testing.assert_close((left @ right).double(), expected, rtol=1e-3, atol=1e-5)


def test_the_path_of_kfac_is_the_optimum_of_its_metric() -> None:
    generator = torch.Generator().manual_seed(0)
    net = nn.Sequential(nn.Linear(12, 20, bias=False)).eval()
    model = nn.Sequential(StructuredLinear(Quantized.quantize(net[0].weight.detach(), 2, 12))).eval()
    x = torch.randn(400, 12, generator=generator) @ torch.randn(12, 12, generator=generator)
    lost = net[0].weight.detach().double() - model[0].structure.to_dense().detach().double()
    eckart.compensate(model, net, 2, metric="kfac", calibration=[x])
    [(left, right)] = low_rank_terms(model[0].structure)
    # Gradients are Gaussian noise around the output, the same for every seed.
    noise = torch.randn(400, 20, generator=torch.Generator().manual_seed(0)).double()
    sides = [y.T @ y / 400 for y in (noise, x.double())]
    sides = [side + 1e-2 * side.trace() / len(side) * torch.eye(len(side)) for side in sides]
    roots = [torch.linalg.cholesky(side) for side in sides]
    u, s, vt = torch.linalg.svd(roots[0].T @ lost @ roots[1])
    best = torch.linalg.solve(roots[0].T, (u[:, :2] * s[:2]) @ vt[:2]) @ torch.linalg.inv(roots[1])
    torch.testing.assert_close((left @ right).double(), best, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("method", ["kfac", "lord", "svd"])
def test_biases_that_compression_changed_are_fitted_again(method: str) -> None:
    for dense in (tiny_llama(), tiny_gpt2()):
        model = copy.deepcopy(dense)
        eckart.compress(model, method, keep=0.6, of="linear-parameters", calibration=IDS)
        before, xs = copy.deepcopy(model), inputs(model)
        result = eckart.compensate(model, dense, 2, calibration=IDS)
        assert any(added.bias for added in result.added.values()) == (method != "svd")
        fitted = {name: added for name, added in result.added.items() if added.rank}
        assert fitted
        for name, added in fitted.items():
            w, x = weight_of(dense, name), xs[name]
            lost = x @ (w - structured(before)[name].structure.to_dense().detach().double()).T
            # The best bias takes the mean away, whatever the path.
            lost = lost - lost.mean(0) if added.bias else lost
            assert added.after == pytest.approx(tail(lost, added.rank) / float((x @ w.T).square().sum()), rel=1e-3)
            assert added.after <= added.before


@settings(max_examples=30, deadline=None)
@given(
    shape=st.tuples(st.integers(8, 20), st.integers(8, 20)),
    tokens=st.integers(1, 60),
    bits=st.integers(2, 4),
    metric=st.sampled_from(["eigen", "kfac"]),
    seed=st.integers(0, 1000),
)
def test_a_larger_rank_never_has_a_larger_error(
    shape: tuple[int, int], tokens: int, bits: int, metric: str, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    net = nn.Sequential(nn.Linear(shape[1], shape[0]).double()).eval()
    x = torch.randn(tokens, shape[1], generator=generator, dtype=torch.float64)
    base = Quantized.quantize(net[0].weight.detach(), bits, 8)
    errors = []
    for rank in (1, 2):
        model = nn.Sequential(StructuredLinear(copy.deepcopy(base), net[0].bias.detach())).eval()
        added = eckart.compensate(model, net, rank, metric=metric, calibration=[x]).added["0"]
        errors += [added.before, added.after] if rank == 1 else [added.after]
        assert torch.isfinite(model(x)).all()
    if metric == "eigen":
        assert all(b <= a * (1 + 1e-6) + 1e-12 for a, b in pairwise(errors))


def test_nothing_is_lost_where_nothing_was() -> None:
    net = nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 16)).eval()
    weights = [layer.weight.detach() for layer in net]
    with torch.no_grad():
        net[1].weight.zero_()
    # The first matrix is stored exactly, the second is zero.
    grid = Quantized.quantize(weights[0], 2, 16)
    net[0].weight = nn.Parameter(grid.to_dense().detach().clone())
    model = nn.Sequential(
        StructuredLinear(grid, net[0].bias.detach()),
        StructuredLinear(Quantized.quantize(net[1].weight.detach(), 2, 16), net[1].bias.detach()),
    ).eval()
    x = torch.randn(50, 16)
    expected = net(x)
    result = eckart.compensate(model, net, 2, calibration=[x])
    assert [(a.before, a.after) for a in result.added.values()] == [(0, 0), (0, 0)]
    torch.testing.assert_close(model(x), expected)


# --- ranks ----------------------------------------------------------------------------------------------------------


def test_greedy_ranks_cost_no_more_and_lose_less() -> None:
    dense = tiny_llama()
    found = {}
    for allocation in ("uniform", "greedy"):
        model = compressed("rtn", dense)
        result = eckart.compensate(model, dense, 4, metric="kfac", allocation=allocation, calibration=IDS)
        cost = sum(a.rank * sum(structured(model)[n].structure.shape) for n, a in result.added.items())
        with torch.no_grad():
            p, q = (m(IDS).logits.double().log_softmax(-1) for m in (dense, model))
        found[allocation] = cost, float((p.exp() * (p - q)).sum(-1).mean())
        ranks = {a.rank for a in result.added.values()}
        assert (ranks == {4}) == (allocation == "uniform")
        for name, added in result.added.items():
            assert isinstance(structured(model)[name].structure, Sum) == (added.rank > 0)
    assert 0.95 * found["uniform"][0] <= found["greedy"][0] <= found["uniform"][0]
    assert found["greedy"][1] < found["uniform"][1]


def test_no_matrix_becomes_larger_than_dense() -> None:
    dense = tiny_llama()
    model = copy.deepcopy(dense)
    eckart.compress(model, "svd", keep=0.8, of="linear-parameters")
    result = eckart.compensate(model, dense, 4, calibration=IDS)
    ranks = {name: added.rank for name, added in result.added.items()}
    assert len(set(ranks.values())) > 1
    assert any("matrices got less than rank 4" in warning for warning in result.warnings)
    for name, module in structured(model).items():
        assert module.structure.cost().bytes < 4 * weight_of(dense, name).numel()
        if ranks[name] < 4:
            assert module.structure.cost().bytes + 4 * sum(module.structure.shape) >= 4 * weight_of(dense, name).numel()


# --- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 0}, r"rank=0 is not in 1\.\.18: beyond that every matrix takes more bytes than a dense one"),
        ({"rank": -3}, "rank=-3 is not in"),
        ({"rank": 19}, r"rank=19 is not in 1\.\.18: .*mlp"),
        ({"metric": "swd"}, "unknown metric 'swd'; there are eigen, diagonal, svd, kfac"),
        ({"allocation": "exact"}, "unknown allocation 'exact'; there are uniform, greedy"),
        (
            {"metric": "eigen", "allocation": "greedy"},
            "'eigen' cannot be compared between matrices: greedy goes with metric 'kfac'",
        ),
        ({"calibration": []}, "calibration is empty"),
        ({"calibration": "some text"}, "needs a tokenizer"),
        ({"calibration": IDS.double()}, "token ids must be integers"),
    ],
)
def test_requests_that_cannot_be_met(options: dict[str, Any], message: str) -> None:
    dense = tiny_llama()
    model = compressed("rtn", dense)
    state = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=message):
        eckart.compensate(model, dense, **{"rank": 2, "calibration": IDS, **options})
    assert state.keys() == model.state_dict().keys()


def test_models_that_do_not_fit() -> None:
    dense = tiny_llama()
    model = compressed("rtn", dense)
    for first, second, message in (
        (dense, dense, "LlamaForCausalLM has no compressed linear layer to put a branch beside"),
        (model, model, "of the dense model is a StructuredLinear: name the model from before compression"),
        (model, tiny_gpt2(), r"the dense GPT2LMHeadModel has no 'model\.layers\.0\.self_attn\.q_proj'"),
        (model, tiny_llama(gqa=False), r"k_proj is \(32, 32\) in the dense model and \(16, 32\) in the compressed one"),
    ):
        with pytest.raises(ValueError, match=message):
            eckart.compensate(first, second, 2, calibration=IDS)
    broken = copy.deepcopy(dense)
    broken.model.layers[1].mlp.up_proj.weight.data[0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"dense model\.layers\.1\.mlp\.up_proj\.weight has 1 NaN or Inf entries"):
        eckart.compensate(model, broken, 2, calibration=IDS)
    net = nn.Sequential(nn.Linear(16, 16))
    small = nn.Sequential(StructuredLinear(Quantized.quantize(net[0].weight.detach(), 2, 16)))
    with pytest.raises(ValueError, match="compensation needs calibration data: pass calibration="):
        eckart.compensate(small, net, 1)
    full = nn.Sequential(StructuredLinear(Dense(net[0].weight.detach())))
    with pytest.raises(ValueError, match="no compressed matrix leaves room for a branch"):
        eckart.compensate(full, net, 1, calibration=[torch.randn(4, 16)])


# --- what is left alone ---------------------------------------------------------------------------------------------


def test_embeddings_and_tied_matrices_are_left_alone() -> None:
    dense = tiny_llama()
    model = copy.deepcopy(dense)
    eckart.compress(model, "rtn", keep=0.4, of="bytes", embeddings=True)
    kept = model.model.embed_tokens.structure
    result = eckart.compensate(model, dense, 2, calibration=IDS)
    assert model.model.embed_tokens.structure is kept
    assert model.lm_head.structure is kept
    assert all(name.startswith("model.layers.") for name in result.added)
    assert len(result.added) == 14


def test_a_linear_owner_of_tied_matrices_is_left_alone() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.third = (nn.Linear(16, 16) for _ in range(3))
            self.second.weight = self.first.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.third(self.second(self.first(x)))

    dense = Twice().eval()
    model = copy.deepcopy(dense)
    eckart.compress(model, "rtn", keep=0.3, of="bytes")
    x = torch.randn(64, 16)
    assert list(eckart.compensate(model, dense, 2, calibration=[x]).added) == ["third"]


def test_a_matrix_that_never_ran_stays() -> None:
    class Idle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.idle = nn.Linear(16, 16), nn.Linear(16, 16)

        def forward(self, x: Tensor) -> Tensor:
            return self.used(x)

    dense = Idle().eval()
    model = copy.deepcopy(dense)
    eckart.compress(model, "rtn", keep=0.3, of="bytes")
    result = eckart.compensate(model, dense, 2, calibration=[torch.randn(64, 16)])
    assert list(result.added) == ["used"]
    assert result.warnings == ["idle stays as it is: the calibration text never reached it"]
    assert isinstance(model.idle.structure, Quantized)


def test_modes_and_the_dense_model_are_kept() -> None:
    dense = tiny_llama()
    model = compressed("svd", dense).train()
    state = copy.deepcopy(dense.state_dict())
    eckart.compensate(model, dense, 2, calibration=IDS)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(state[name], tensor) for name, tensor in dense.state_dict().items())
    assert all(not p.requires_grad or p.grad is None for p in dense.parameters())


def test_the_same_twice() -> None:
    dense = tiny_llama()
    first, second = (compressed("magnitude-semi", dense) for _ in range(2))
    for model in (first, second):
        eckart.compensate(model, dense, 3, metric="kfac", allocation="greedy", calibration=IDS)
    assert all(torch.equal(a, second.state_dict()[name]) for name, a in first.state_dict().items())


def test_a_language_model_writes_its_own_calibration() -> None:
    dense = tiny_llama()
    model = compressed("rtn", dense)
    result = eckart.compensate(model, dense, 2, samples=3, length=24)
    assert result.calibration["tokens"] == 3 * 24


# --- what comes out -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("base", BASES)
def test_saving_and_loading_bit_for_bit(base: str, tmp_path: Path) -> None:
    dense = tiny_llama()
    model = compressed(base, dense)
    eckart.compensate(model, dense, 4, calibration=IDS)
    eckart.save(model, tmp_path / "own")
    same = eckart.load(tmp_path / "own", tiny_llama(seed=1))
    (tmp_path / "hf").mkdir()
    hf.write_model(model, None, tmp_path / "hf")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "hf")
    for other in (same, loaded):
        for name, tensor in model.state_dict().items():
            assert torch.equal(tensor, other.state_dict()[name]), name
        assert torch.equal(other(IDS).logits, model(IDS).logits)


def test_gradients_flow() -> None:
    dense = tiny_llama()
    model = compressed("magnitude-semi", dense)
    eckart.compensate(model, dense, 2, calibration=IDS)
    model(IDS, labels=IDS).loss.backward()
    for name, module in structured(model).items():
        path = module.structure.operands()[1]
        assert isinstance(path, Chain)
        for factor in path.parameters():
            assert factor.requires_grad, name
            assert factor.grad is not None
            assert factor.grad.abs().sum() > 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("base", BASES)
def test_short_dtypes(base: str, dtype: torch.dtype) -> None:
    dense = tiny_llama().to(dtype)
    model = compressed(base, dense)
    before, xs = copy.deepcopy(model), inputs(model)
    result = eckart.compensate(model, dense, 4, calibration=IDS)
    assert {p.dtype for p in model.parameters()} == {dtype}
    for name, added in result.added.items():
        w, x = weight_of(dense, name), xs[name]
        lost, left = (x @ (w - structured(m)[name].structure.to_dense().detach().double()).T for m in (before, model))
        whole = float((x @ w.T).square().sum())
        # Inputs of a batch of another size are rounded otherwise, and so are the factors once they are made.
        assert added.before == pytest.approx(float(lost.square().sum()) / whole, rel=2e-3)
        assert added.after == pytest.approx(tail(lost, 4) / whole, rel=2e-3)
        assert added.after == pytest.approx(float(left.square().sum()) / whole, rel=5e-3)
    assert model(IDS).logits.dtype == dtype


# --- the command line -----------------------------------------------------------------------------------------------


@pytest.fixture
def base_directory(llama_directory: Path, tmp_path: Path) -> Path:
    out = tmp_path / "base"
    arguments = ["compress", str(llama_directory), "--out", str(out), "--method", "rtn", "--keep", "0.5"]
    assert main([*arguments, "--of", "bytes", "--eval", "none", "--no-speed"]) == 0
    return out


@pytest.fixture
def run(base_directory: Path, llama_directory: Path, texts: tuple[str, str]) -> Callable[..., int]:
    def call(out: Path, *options: str) -> int:
        given = ["--against", str(llama_directory), "--out", str(out), "--calibration", texts[0], "--eval", texts[1]]
        return main(["compensate", str(base_directory), *given, *SMALL, "--rank", "3", *options])

    return call


@pytest.mark.parametrize("options", [[], ["--allocation", "greedy"], ["--eval", "none"]])
def test_command(
    options: list[str],
    run: Callable[..., int],
    base_directory: Path,
    llama_directory: Path,
    tmp_path: Path,
    texts: tuple[str, str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    assert run(out, *options) == 0
    assert f"wrote {out}" in capsys.readouterr().out.replace("\n", "")
    files = {p.name for p in base_directory.iterdir()} - {"report.json"}
    assert {p.name for p in out.iterdir()} == files | {"compensation.json"}
    report = json.loads((out / "compensation.json").read_text())
    assert report["eckart"] == eckart.__version__
    assert (report["model"], report["against"]) == (str(base_directory), str(llama_directory))
    assert (report["rank"], report["seed"], report["warnings"]) == (3, 0, [])
    assert report["metric"] == ("kfac" if "greedy" in options else "eigen")
    assert report["calibration"]["text"] == texts[0]
    assert report["calibration"]["tokens"] == 4 * 32
    size = report["size"]
    assert size["before"]["bytes"] < size["after"]["bytes"] < size["dense"]["bytes"]
    assert len(report["matrices"]) == 14
    for entry in report["matrices"]:
        assert entry["after"] < entry["before"] or entry["rank"] == 0
    if "none" in options:
        assert report["quality"] is None
    else:
        quality = report["quality"]
        assert (quality["text"], quality["tokens"]) == (texts[1], 3 * 31)
        assert 0 < quality["after"]["kl"] < quality["before"]["kl"]
        assert quality["dense"]["perplexity"] > 1
    loaded = AutoModelForCausalLM.from_pretrained(out)
    assert {type(module.structure) for module in structured(loaded).values()} <= {Sum, Quantized}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--rank", "0"], "rank=0 is not in 1.."),
        (["--rank", "100"], "rank=100 is not in 1.."),
        (["--metric", "swd"], "unknown metric 'swd'; there are eigen, diagonal, svd, kfac"),
        (["--allocation", "best"], "unknown allocation 'best'; there are uniform, greedy"),
        (["--metric", "svd", "--allocation", "greedy"], "greedy goes with metric 'kfac'"),
        (["--samples", "0"], "samples=0 and length=32 must be at least 1 and 2"),
        (["--seed", str(2**64)], f"seed={2**64} is not in 0..2^63 - 1"),
        (["--length", "100000"], f"sequences of 100000 tokens do not fit the model's context of {CONTEXT}"),
        (["--calibration", "nowhere.txt"], "there is no text file 'nowhere.txt'"),
        (["--against", "/nonexistent"], "there is no directory /nonexistent"),
        (["--memory", "0"], "memory=0.0 is no number of GB above 0"),
    ],
)
def test_command_refuses(
    options: list[str], message: str, run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run(out, *options) == 2
    shown = capsys.readouterr().err.replace("\n", "")
    assert message in shown
    assert "Traceback" not in shown
    assert not out.exists()
    assert not out.with_name("out.partial").exists()


def test_command_refuses_what_is_dense_or_the_same_text(
    run: Callable[..., int], llama_directory: Path, tmp_path: Path, texts: tuple[str, str], capsys: Any
) -> None:
    given = ["--out", str(tmp_path / "out"), "--calibration", texts[0], "--eval", texts[1], *SMALL]
    assert main(["compensate", str(llama_directory), "--against", str(llama_directory), *given]) == 2
    assert "has no compressed linear layer to put a branch beside" in capsys.readouterr().err.replace("\n", "")
    assert run(tmp_path / "out", "--eval", texts[0]) == 2
    assert "are the same" in capsys.readouterr().err.replace("\n", "")
    assert not (tmp_path / "out").exists()


# --- adapters -------------------------------------------------------------------------------------------------------


def adapter_of(directory: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    config: dict[str, Any] = json.loads((directory / "adapter_config.json").read_text())
    return config, load_file(directory / "adapter_model.safetensors")


@pytest.mark.parametrize("options", [[], ["--metric", "kfac", "--allocation", "greedy"]])
def test_an_adapter_and_the_base_make_the_compensated_model(
    options: list[str], run: Callable[..., int], base_directory: Path, tmp_path: Path
) -> None:
    assert run(tmp_path / "out", *options) == 0
    assert main(["export", str(tmp_path / "out"), "--to", "peft", "--out", str(tmp_path / "adapter")]) == 0
    assert {p.name for p in (tmp_path / "adapter").iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
    config, tensors = adapter_of(tmp_path / "adapter")
    assert (config["peft_type"], config["r"], config["lora_alpha"]) == ("LORA", config["r"], config["r"])
    assert config["rank_pattern"] == config["alpha_pattern"]
    compensated = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    base = AutoModelForCausalLM.from_pretrained(base_directory)
    targets = {name for name, m in structured(compensated).items() if isinstance(m.structure, Sum)}
    assert set(config["target_modules"]) == targets
    assert len(tensors) == 2 * len(targets)
    for name in targets:
        a, b = (tensors[f"base_model.model.{name}.lora_{letter}.weight"] for letter in "AB")
        assert len(a) == b.shape[1] == config["rank_pattern"].get(f"^{re.escape(name)}", config["r"])
        replaced = base.get_submodule(name)
        replaced.structure = Sum(replaced.structure, low_rank(b, a))
    assert torch.equal(base(IDS).logits, compensated(IDS).logits)


@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2])
def test_peft_reads_the_adapter(make: Callable[[], Any], tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    dense = make()
    model = compressed("rtn", dense)
    for name in ("base", "compensated"):
        if name == "compensated":
            eckart.compensate(model, dense, 4, metric="kfac", allocation="greedy", calibration=IDS)
        (tmp_path / name).mkdir()
        hf.write_model(model, tiny_tokenizer(), tmp_path / name)
    to_dense_directory(str(tmp_path / "base"), tmp_path / "dense")
    to_peft_directory(str(tmp_path / "compensated"), tmp_path / "adapter")
    adapted = peft.PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(tmp_path / "dense"), str(tmp_path / "adapter")
    )
    torch.testing.assert_close(adapted(IDS).logits, model(IDS).logits, rtol=1e-4, atol=1e-4)


def test_terms_of_a_sum() -> None:
    base = Quantized.quantize(torch.randn(6, 8), 2, 8)
    (a, b), (c, d) = ((torch.randn(6, r), torch.randn(r, 8)) for r in (1, 2))
    assert low_rank_terms(base) == []
    assert low_rank_terms(low_rank(a, b)) == []
    assert low_rank_terms(Sum(base, Dense(torch.randn(6, 8)))) == []
    # What was compensated may be a sum, and may have been compensated before.
    [(left, right)] = low_rank_terms(Sum(Sum(low_rank(a, b), low_rank(a, b)), low_rank(c, d)))
    assert torch.equal(left, c)
    assert torch.equal(right, d)


def test_what_has_no_adapter(
    base_directory: Path, llama_directory: Path, tmp_path: Path, texts: tuple[str, str], capsys: Any
) -> None:
    def refused(source: Path) -> str:
        assert main(["export", str(source), "--to", "peft", "--out", str(tmp_path / "adapter")]) == 2
        assert not (tmp_path / "adapter").exists()
        shown: str = capsys.readouterr().err.replace("\n", "")
        return shown

    for source in (base_directory, llama_directory):
        assert "has no low-rank branches beside its matrices; eckart compensate adds them" in refused(source)
    text = ["--calibration", texts[0], "--eval", "none", *SMALL]
    small, again = tmp_path / "small", tmp_path / "again"
    assert (
        main(
            [
                "compress",
                str(llama_directory),
                "--out",
                str(small),
                "--keep",
                "0.6",
                "--no-speed",
                "--no-embeddings",
                *text,
            ]
        )
        == 0
    )
    given = ["--against", str(llama_directory), "--rank", "2", "--out", str(again)]
    assert main(["compensate", str(small), *given, *text]) == 0
    assert "matrices (model.layers.0.self_attn.q_proj) were fitted with the branches" in refused(again)


def test_a_rotated_model_with_a_tied_head_is_refused_by_name() -> None:
    dense = tiny_llama(tied=True)
    small = copy.deepcopy(dense)
    eckart.compress(small, "rtn", bits=4, rotate=True)
    with pytest.raises(eckart.Refused, match="--rotate"):
        eckart.compensate(small, dense, rank=2, calibration=torch.randint(60, (4, 12)))
