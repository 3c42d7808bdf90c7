"""AFM against the principal components of what is looked up."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import eckart
from eckart import METHODS, Statistics
from eckart.compressors.kfac import factored_fisher
from eckart.models.checkpoint import state
from eckart.models.sites import find_sites
from eckart.statistics import collect
from support import hard
from support.clicks import TABLES, Clicks, batch, clicks


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
