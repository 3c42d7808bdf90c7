"""Click models: tables of few columns looked up in several ways, one logit, and the method made for them."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import eckart
from eckart import METHODS, Need, Statistics
from eckart.compressors.kfac import factored_fisher
from eckart.models.checkpoint import state
from eckart.models.sites import find_sites
from eckart.statistics import collect, statistics_for
from support import hard

USERS, TAGS, DIMENSION = 40, 25, 12
TABLES = ["user", "tag"]


class Clicks(nn.Module):
    """A table looked up once a sample, one looked up three times, their products, an MLP; returns one logit."""

    def __init__(self, as_object: bool = False) -> None:
        super().__init__()
        self.user = nn.Embedding(USERS, DIMENSION)
        self.tag = nn.Embedding(TAGS, DIMENSION)
        self.mlp = nn.Sequential(nn.Linear(2 * DIMENSION, 24), nn.ReLU(), nn.Linear(24, 1))
        self.as_object = as_object

    def forward(self, user: Tensor, tag: Tensor) -> object:
        u, t = self.user(user), self.tag(tag).mean(1)
        logit = (u * t).sum(-1) + self.mlp(torch.cat([u, t], -1))[:, 0]
        return SimpleNamespace(logits=logit) if self.as_object else logit


def clicks(as_object: bool = False) -> Clicks:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Clicks(as_object).eval()


def batch(samples: int, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    # Squared, so that some rows are looked up far more often than others, and some never.
    user = (torch.rand(samples, generator=generator).square() * USERS).long()
    return {"user": user, "tag": torch.randint(TAGS - 5, (samples, 3), generator=generator)}


@pytest.mark.parametrize("shape", [(40000, 1), (40000,), (200, 200, 1)], ids=str)
def test_a_single_logit_is_that_of_a_bernoulli_label(shape: tuple[int, ...]) -> None:
    # p (1 - p) is its Fisher information; a categorical label of one class would have none.
    model = nn.Sequential(nn.Linear(1, 1, bias=False))
    nn.init.constant_(model[0].weight, 1.5)
    inner = model.forward
    model.forward = lambda x: SimpleNamespace(logits=inner(x).view(shape))
    found = collect(model, {"0": model[0]}, [Need.GRADIENT_SECOND_MOMENT], [torch.ones(40000, 1)])["0"]
    p = torch.tensor(1.5).double().sigmoid()
    torch.testing.assert_close(found.gradient_second_moment, (p * (1 - p)).view(1, 1), atol=5e-3, rtol=0)
    assert found.uses == 1


def test_tables_are_measured_however_they_are_looked_up() -> None:
    model = clicks(as_object=True).double()
    data = batch(30)
    modules = {name: model.get_submodule(name) for name in TABLES}
    found = collect(model, modules, tuple(Need), [data], seed=3)
    with torch.no_grad():
        p = model(**data).logits.float().sigmoid()
    labels = (torch.rand(30, generator=torch.Generator().manual_seed(3)) < p).double()
    for name, uses in (("user", 1), ("tag", 3)):
        table, ids, entry = modules[name].weight, data[name].view(30, -1), found[name]
        assert (entry.lookup, entry.uses, entry.tokens) == (True, uses, 30 * uses)
        frequency = torch.bincount(ids.flatten(), minlength=len(table)).double() / (30 * uses)
        torch.testing.assert_close(entry.gradient_second_moment, frequency)
        moment, fisher = torch.zeros(DIMENSION, DIMENSION).double(), torch.zeros(table.shape).double()
        for i in range(30):
            one = {key: value[i : i + 1] for key, value in data.items()}
            loss = F.binary_cross_entropy_with_logits(model(**one).logits, labels[i : i + 1])
            (gradient,) = torch.autograd.grad(loss, table)
            fisher += gradient.square() / 30
            for row in ids[i]:
                # A row that is looked up n times in a sample has the gradient of one look-up n times.
                g = gradient[row] / (ids[i] == row).sum()
                moment += g.outer(g) / (30 * uses)
        torch.testing.assert_close(entry.input_second_moment, moment, rtol=1e-4, atol=1e-9)
        torch.testing.assert_close(entry.fisher_rows, fisher.sum(1), rtol=1e-4, atol=1e-9)
        torch.testing.assert_close(entry.fisher_columns, fisher.sum(0), rtol=1e-4, atol=1e-9)


def test_the_rise_of_the_loss_counts_every_look_up() -> None:
    # Three independent look-ups in a sum: what a change of the table does to the logit has three times the variance.
    table, data = nn.Embedding(6, 2), torch.randint(6, (30000, 3), generator=torch.Generator().manual_seed(1))
    model = nn.Sequential(table)
    model.forward = lambda ids: SimpleNamespace(logits=table(ids).sum((1, 2)))
    nn.init.constant_(table.weight, 0.0)
    entry = collect(
        model, {"0": table}, (Need.GRADIENT_SECOND_MOMENT, Need.INPUT_SECOND_MOMENT, Need.INPUT_MEAN), [data]
    )
    change = 0.1 * hard.normal(6, 2, seed=4)
    change -= change.mean(0)
    predicted = factored_fisher(entry["0"], torch.float64).error(change) / 2
    moved = change.float()[data].sum((1, 2)).double()
    torch.testing.assert_close(predicted, 0.25 * moved.square().mean() / 2, rtol=0.05, atol=0)


def test_afm_of_a_matrix_is_lord_with_ranks_by_their_effect_on_the_loss() -> None:
    model, data = clicks(as_object=True), batch(500)
    site = find_sites(model, ["mlp.0"])[0]
    entry = collect(model, {site.name: site.module}, METHODS["afm"].needs, [data])[site.name]
    family, plain = (METHODS[name].entry(site.weight, entry) for name in ("afm", "lord"))
    metric = factored_fisher(entry, torch.float64)
    for rank in (1, 5, 9):
        mimicked, expected = family.build(rank), plain.build(rank)
        dense = mimicked.structure.to_dense().detach()
        torch.testing.assert_close(dense, expected.structure.to_dense().detach())
        torch.testing.assert_close(mimicked.bias, expected.bias)
        error = float(metric.error(site.weight.double() - dense.double()))
        assert mimicked.error == pytest.approx(error, rel=1e-4)


@pytest.mark.parametrize(("rows", "columns"), [(60, 8), (5, 8)])
def test_afm_of_a_table_is_the_pca_of_what_is_looked_up(rows: int, columns: int) -> None:
    table = hard.normal(rows, columns, seed=7) + 0.5
    counts = torch.arange(rows) % 7
    looked_up = table.repeat_interleave(counts, 0)
    entry = Statistics(
        tokens=len(looked_up),
        input_second_moment=torch.eye(columns).double(),
        input_mean=torch.zeros(columns).double(),
        gradient_second_moment=counts.double() / counts.sum(),
        lookup=True,
    )
    family = METHODS["afm"].entry(table, entry)
    basis = torch.linalg.svd(looked_up)[2].T
    for rank in (1, 3):
        fitted = family.build(rank)
        assert fitted.bias is None
        found = fitted.structure.to_dense().detach().repeat_interleave(counts, 0)
        torch.testing.assert_close(found, looked_up @ basis[:, :rank] @ basis[:, :rank].T, rtol=1e-8, atol=1e-9)
    # Why it is not centred: with a column of ones for the mean, rank 2 costs what rank 3 does, and errs no less.
    mean = looked_up.mean(0)
    axes = torch.linalg.svd(looked_up - mean)[2].T[:, :2]
    centred = (looked_up - mean - (looked_up - mean) @ axes @ axes.T).square().sum()
    assert (looked_up - found).square().sum() <= centred * (1 + 1e-9)


def test_a_table_takes_no_bias_and_pays_for_none() -> None:
    table = hard.normal(30, 6, seed=9)
    model, data = nn.Sequential(nn.Embedding.from_pretrained(table.float())), torch.arange(30)[:, None]
    needs = METHODS["auto"].needs
    entry = collect(model, {"0": model[0]}, needs, [data])["0"]
    for name in ("kfac", "auto", "lord", "afm", "kfac-int8"):
        family = METHODS[name].entry(table.float(), entry)
        fitted = family.build(family.sizes[0])
        assert fitted.bias is None
        assert fitted.structure.cost() == family.costs[0]
    linear = METHODS["kfac"].entry(table.float(), replace(entry, lookup=False))
    assert linear.costs[0].parameters == METHODS["kfac"].entry(table.float(), entry).costs[0].parameters + 30


@pytest.mark.parametrize("as_object", [False, True])
@pytest.mark.parametrize("method", ["afm", "kfac", "lord", "rtn", "nf4", "gptq", "magnitude", "sparsegpt", "auto"])
def test_a_click_model_is_compressed_and_comes_back(method: str, as_object: bool, tmp_path: Path) -> None:
    model, held_out = clicks(as_object), batch(50, seed=9)

    def logits(of: nn.Module) -> Tensor:
        with torch.no_grad():
            output = of(**held_out)
        return output.logits if as_object else output

    before = logits(model)
    total = sum(t.numel() * t.element_size() for t in model.state_dict().values())
    data = [batch(200, seed=i) for i in range(3)]
    result = eckart.compress(model, method, keep=0.6, of="bytes", embeddings=True, calibration=data)
    assert not result.warnings
    written = sum(t.numel() * t.element_size() for t in state(model).values())
    assert written <= 0.6 * total
    for name in TABLES:
        curve, size = result.plan.curves[name], result.choice[name]
        stored = sum(t.numel() * t.element_size() for t in model.get_submodule(name).state_dict().values())
        assert stored == curve.costs[curve.sizes.index(size)].bytes
    assert any(result.choice[name] is not None for name in TABLES)
    after = logits(model)
    assert F.mse_loss(after, before) < 0.5 * before.var()
    eckart.save(model, tmp_path / "saved")
    # Copied, because a file aligns tensors to 8 bytes only, and the order of a sum can depend on that.
    assert torch.equal(logits(copy.deepcopy(eckart.load(tmp_path / "saved", Clicks(as_object)))), after)


def test_what_is_known_of_a_table_survives_the_cache(tmp_path: Path) -> None:
    model, data = clicks(as_object=True), [batch(20)]
    modules = {name: model.get_submodule(name) for name in TABLES}
    first, second = (statistics_for(model, modules, METHODS["afm"].needs, data, cache=tmp_path) for _ in range(2))
    assert (first[1], second[1]) == (1, 0)
    assert [(s.lookup, s.uses) for s in second[0].values()] == [(True, 1.0), (True, 3.0)]


def test_a_table_that_is_rescaled_when_read_is_left_alone() -> None:
    model = nn.ModuleDict({"plain": nn.Embedding(9, 4), "rescaled": nn.Embedding(9, 4, max_norm=1.0)})
    assert [site.name for site in find_sites(model, embeddings=True)] == ["plain"]
