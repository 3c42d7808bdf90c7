"""Statistics of tables that are looked up, and of single logits."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from eckart import METHODS, Need
from eckart.compressors.kfac import factored_fisher
from eckart.models.sites import find_sites
from eckart.statistics import collect, statistics_for
from support import hard
from support.clicks import DIMENSION, TABLES, batch, clicks


@pytest.mark.parametrize("shape", [(40000, 1), (40000,), (200, 200, 1)], ids=str)
def test_a_single_logit_is_that_of_a_bernoulli_label(shape: tuple[int, ...]) -> None:
    # p (1 - p) is its Fisher information; a categorical label of one class would have none.
    model = nn.Sequential(nn.Linear(1, 1, bias=False))
    nn.init.constant_(model[0].weight, 1.5)
    inner = model.forward
    model.forward = lambda x: SimpleNamespace(logits=inner(x).view(shape))
    found = collect(model, {"0": model[0]}, [Need.GRADIENT_SECOND_MOMENT], [torch.ones(40000, 1)])["0"]
    p = torch.tensor(1.5).double().sigmoid()
    torch.testing.assert_close(found.gradient_second_moment.double(), (p * (1 - p)).view(1, 1), atol=5e-3, rtol=0)
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
        torch.testing.assert_close(entry.input_second_moment.double(), moment, rtol=1e-4, atol=1e-9)
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


def test_what_is_known_of_a_table_survives_the_cache(tmp_path: Path) -> None:
    model, data = clicks(as_object=True), [batch(20)]
    modules = {name: model.get_submodule(name) for name in TABLES}
    first, second = (statistics_for(model, modules, METHODS["afm"].needs, data, cache=tmp_path) for _ in range(2))
    assert (first[1], second[1]) == (1, 0)
    assert [(s.lookup, s.uses) for s in second[0].values()] == [(True, 1.0), (True, 3.0)]


def test_a_table_that_is_rescaled_when_read_is_left_alone() -> None:
    model = nn.ModuleDict({"plain": nn.Embedding(9, 4), "rescaled": nn.Embedding(9, 4, max_norm=1.0)})
    assert [site.name for site in find_sites(model, embeddings=True)] == ["plain"]
