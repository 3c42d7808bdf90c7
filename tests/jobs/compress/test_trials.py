"""Several methods in one solve: their trials, their common scale, and what is picked."""

from __future__ import annotations

import copy
import inspect
import math
from pathlib import Path

import jsonschema
import pytest
import torch

import eckart
from eckart.cli.app import main
from eckart.compressors.auto import MEMBERS, NEGLIGIBLE
from eckart.files.json import read_json
from eckart.jobs.compress.choices import Choice, weights_of
from eckart.jobs.compress.plan import Plan, apply
from eckart.jobs.compress.report import matrices
from eckart.jobs.compress.trials import HOPELESS, held_back, trials
from eckart.jobs.evaluate.quality import evaluate
from eckart.progress import silent
from eckart.report import as_json, schema
from support.tiny import VOCABULARY, tiny_gpt2, tiny_llama


def ids(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(VOCABULARY, (count, 48), generator=torch.Generator().manual_seed(seed))


def test_every_eighth_sequence_is_held_back() -> None:
    whole = ids(19)
    kept, back = held_back([whole[:7], whole[7:8], whole[8:]])
    assert torch.equal(back, whole[[7, 15]])
    assert torch.equal(torch.cat(kept), whole[[i for i in range(19) if i not in (7, 15)]])
    assert len(kept) == 2


@pytest.mark.parametrize(("of", "keep"), [("bytes", 0.3), ("bytes", 0.2), ("linear-parameters", 0.6), ("macs", 0.7)])
def test_the_mixture_is_no_worse_than_its_best_member_on_what_was_held_back(of: str, keep: float) -> None:
    model = tiny_llama()
    result = eckart.compress(model, "auto", keep=keep, of=of, calibration=ids(16))
    trials = {trial["method"] for trial in result.trials}
    assert "mixture" in trials
    assert trials - {"mixture"} <= set(MEMBERS)
    best = min(float(trial["kl"]) for trial in result.trials)
    _, back = held_back([ids(16)])
    measured = evaluate(model, back, tiny_llama()).kl
    assert measured == pytest.approx(best, rel=1e-4, abs=1e-9)
    for site in map(as_json, matrices(result)):
        assert site["dense"] or site["method"] in MEMBERS


def test_errors_are_scaled_to_what_a_method_alone_measured() -> None:
    result = eckart.compress(tiny_llama(), "auto", keep=0.45, of="bytes", calibration=ids(16))
    plan = result.plan
    for trial in result.trials:
        name = str(trial["method"])
        if name == "mixture" or trial["even"] or trial["uniform"]:
            continue
        factor = float(trial["kl"]) / float(trial["predicted_kl"])
        for site in plan.sites:
            curve = plan.curves[site.name]
            exact = plan.method.entry(site.weight, plan.statistics[site.name]).errors
            assert curve.errors is not None
            assert curve.known is not None
            for i in curve.known:
                if curve.members[i][0] == name:
                    assert curve.errors[i] == pytest.approx(float(exact[i]) * factor)


def test_a_method_is_not_tried_whose_own_prediction_is_many_times_what_another_measured() -> None:
    result = eckart.compress(tiny_llama(), "auto", keep=0.5, of="bytes", calibration=ids(16))
    alone = {
        trial["method"]: trial
        for trial in result.trials
        if trial["method"] != "mixture" and not (trial["even"] or trial["uniform"])
    }
    assert set(alone) == {"gptq"}
    for name in set(MEMBERS) - set(alone):
        given = result.plan.factors[name]
        assert given == pytest.approx(alone["gptq"]["kl"] / alone["gptq"]["predicted_kl"])
        choice = result.plan.choose(0.5, "bytes", only=name)
        assert result.plan.error(choice) / 2 / given > HOPELESS * alone["gptq"]["kl"]


def test_a_method_is_also_tried_as_it_is_used_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eckart.jobs.compress.trials.UNLIKELY", math.inf)
    result = eckart.compress(tiny_llama(), "auto", keep=0.45, of="bytes", calibration=ids(16))
    own = [trial for trial in result.trials if trial["uniform"]]
    assert [trial["method"] for trial in own] == ["gptq"]
    assert min(trial["kl"] for trial in result.trials) <= own[0]["kl"]
    trial = tiny_llama()
    choice = result.plan.choose(0.45, "bytes", "uniform", only="gptq")
    apply(trial, result.plan, choice)
    _, back = held_back([ids(16)])
    assert evaluate(trial, back, tiny_llama()).kl == pytest.approx(own[0]["kl"], rel=1e-4)


def test_what_its_own_errors_take_for_worse_than_what_was_measured_is_not_tried() -> None:
    result = eckart.compress(tiny_llama(), "auto", keep=0.24, of="bytes", calibration=ids(16))
    assert not any(trial["uniform"] or trial["even"] for trial in result.trials)
    same = result.plan.solve(0.24, "bytes", "uniform", only="gptq")
    least = min(float(trial["kl"]) for trial in result.trials)
    assert result.plan.error(same) / 2 / result.plan.factors["gptq"] > least


def test_bytes_that_buy_nothing_are_not_spent() -> None:
    plan = eckart.compress(tiny_llama(), "auto", keep=0.6, of="bytes", calibration=ids(16)).plan
    thrifty = plan.solve(0.6, "bytes")
    assert plan.negligible == NEGLIGIBLE
    plan.negligible = 0.0
    lavish = plan.solve(0.6, "bytes")

    def spent(choice: Choice) -> int:
        curves = [(plan.curves[name], size) for name, size in choice.items()]
        return sum(curve.costs[curve.sizes.index(size)].bytes for curve, size in curves)

    assert [*thrifty.values()].count(None) < [*lavish.values()].count(None)
    assert spent(thrifty) < spent(lavish)
    assert plan.error(lavish) < plan.error(thrifty) < plan.error(lavish) + NEGLIGIBLE
    plan.negligible = NEGLIGIBLE
    assert {*plan.solve(1.0, "bytes").values()} == {None}


def test_what_was_tried_is_not_tried_again() -> None:
    result = eckart.compress(tiny_llama(), "auto", keep=0.45, of="bytes", calibration=ids(16))
    built: list[Choice] = []
    same = result.choice

    def put(model: torch.nn.Module, plan: Plan, choice: Choice) -> None:
        built.append(choice)
        apply(model, plan, choice)

    choice, history = trials(result.plan, tiny_llama(), ids(2), lambda *_, **__: same, put, silent)
    assert (choice, len(built)) == (same, 1)
    assert len({trial["kl"] for trial in history}) == 1


def test_the_defaults() -> None:
    assert (eckart.Recipe().method, eckart.Recipe().of) == ("auto", "bytes")
    defaults = inspect.signature(eckart.compress).parameters
    for name in ("method", "of"):
        assert defaults[name].default == getattr(eckart.Recipe(), name)


def test_even_takes_all_matrices_for_worth_the_same_for_each_number() -> None:
    plan = eckart.compress(tiny_llama(), "kfac", keep=0.6, of="linear-parameters", calibration=ids(8)).plan
    weights = weights_of(plan.curves, even=True)
    worth = {name: weights[name] * curve.zero_error / curve.costs[-1].parameters for name, curve in plan.curves.items()}
    assert max(worth.values()) == pytest.approx(min(worth.values()))
    plain, even = plan.choose(0.6, "parameters"), plan.choose(0.6, "parameters", even=True)
    assert plan.error(plain) <= plan.error(even)
    assert plan.error(even, weights) <= plan.error(plain, weights)


def test_one_method_alone_can_be_asked_of_a_plan() -> None:
    result = eckart.compress(tiny_llama(), "auto", keep=0.5, of="bytes", calibration=ids(8))
    for name in MEMBERS:
        choice = result.plan.choose(0.5, "bytes", only=name)
        for site, size in choice.items():
            curve = result.plan.curves[site]
            assert size is None or curve.members[curve.sizes.index(size)][0] == name


def test_conv1d_and_modules_without_logits() -> None:
    result = eckart.compress(tiny_gpt2(), "auto", keep=0.8, of="bytes", calibration=ids(8))
    assert result.trials
    net = torch.nn.Sequential(torch.nn.Linear(24, 32), torch.nn.ReLU(), torch.nn.Linear(32, 8))
    before = copy.deepcopy(net)
    x = torch.randn(64, 24, generator=torch.Generator().manual_seed(1))
    result = eckart.compress(net, "auto", keep=0.5, of="bytes", calibration=[x])
    assert not result.trials
    assert (net(x) - before(x)).norm() < 0.5 * before(x).norm()


def test_the_report_of_the_command_line(llama_directory: Path, texts: tuple[str, str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    given = ["--calibration", texts[0], "--eval", texts[1], "--samples", "16", "--length", "32", "--eval-samples", "3"]
    arguments = ["compress", str(llama_directory), "--out", str(out), "--method", "auto", "--no-speed", *given]
    assert main([*arguments, "--keep", "0.6", "--of", "bytes"]) == 0
    report = read_json(out / "report.json")
    jsonschema.validate(report, schema(), jsonschema.Draft202012Validator)
    assert "mixture" in {trial["method"] for trial in report["trials"]}
    assert report["size"]["bytes"]["after"] < 0.7 * report["size"]["bytes"]["before"]
