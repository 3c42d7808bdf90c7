"""Statistics of convolutions against unfolded images and ordinary autograd."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from eckart import Metric, Need, Statistics
from eckart.models.places import replace
from eckart.models.sites import find_sites
from eckart.statistics import collect, patches, statistics_for
from eckart.structures import Dense
from support import hard
from support.convolutions import Net, images, net


def independent(model: Net, name: str, batches: list[Tensor], seed: int) -> Statistics:
    """Statistics of a convolution by F.unfold and ordinary autograd, image by image."""
    generator = torch.Generator().manual_seed(seed)
    layer = model.get_submodule(name)
    xs, gs, squares = [], [], torch.zeros_like(layer.weight.flatten(1), dtype=torch.float64)
    for batch in batches:
        labels = torch.randn(len(batch), 5, generator=generator)
        for image, label in zip(batch, labels, strict=True):
            seen = model.features(image[None])
            x, y = seen[name]
            output = model.head(seen["third"][1].mean((2, 3)))
            g, dw = torch.autograd.grad((output * label).sum(), [y, layer.weight])
            padding = layer.padding if layer.padding != "same" else 1
            xs.append(F.unfold(x, layer.kernel_size, layer.dilation, padding, layer.stride)[0].T.double())
            gs.append(g[0].flatten(1).T.double())
            squares += dw.flatten(1).double().square() / sum(map(len, batches))
    x, g = torch.cat(xs).detach(), torch.cat(gs)
    return Statistics(
        tokens=len(x),
        input_second_moment=x.T @ x / len(x),
        input_mean=x.mean(0),
        input_abs_mean=x.abs().mean(0),
        input_abs_max=x.abs().amax(0),
        gradient_second_moment=g.T @ g / len(xs),  # the sum over the positions of an image
        fisher_rows=squares.sum(1),
        fisher_columns=squares.sum(0),
    )


@pytest.mark.parametrize("entries", [1 << 23, 3000])
def test_statistics_are_those_of_the_patches(entries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patches, "ENTRIES", entries)
    model, batches = net(), [images(5), images(2, seed=4)]
    names = ["first", "second", "short", "third"]
    found = collect(model, {name: model.get_submodule(name) for name in names}, tuple(Need), batches, seed=7)
    for name in names:
        expected = independent(model, name, batches, seed=7)
        assert found[name].tokens == expected.tokens
        assert found[name].patch == model.get_submodule(name).kernel_size
        for need in set(Need) - {Need.INPUT_SAMPLE}:
            got, wanted = found[name].get(need), expected.get(need)
            assert (got - wanted).norm() <= 1e-4 * wanted.norm(), (name, need)


def test_statistics_of_a_structured_convolution_are_those_of_the_dense_one(tmp_path: Path) -> None:
    model = net()
    site = find_sites(model, ["second"])[0]
    expected, _ = statistics_for(model, {"second": model.second}, tuple(Need), [images()])
    replace(model, site, Dense(site.weight.clone()))
    cached = [statistics_for(model, {"second": model.second}, tuple(Need), [images()], cache=tmp_path) for _ in "ab"]
    assert [passes for _, passes in cached] == [1, 0]
    for found, _ in cached:
        assert found["second"].patch == (3, 2)
        for need in set(Need) - {Need.INPUT_SAMPLE}:
            torch.testing.assert_close(found["second"].get(need), expected["second"].get(need), rtol=1e-3, atol=1e-6)
    assert statistics_for(model, {"second": model.second}, (), [])[0]["second"].patch == (3, 2)


def test_the_loss_rises_by_half_of_the_error_that_is_stated() -> None:
    """For small changes of one filters under a Gaussian likelihood, up to what the factored Fisher leaves out."""
    model, x = net(), images(400, seed=11)
    data = {name: model.get_submodule(name) for name in ("first", "third")}
    found = collect(model, data, (Need.INPUT_SECOND_MOMENT, Need.GRADIENT_SECOND_MOMENT), [x], seed=1)
    expected = model(x)
    for name, layer in data.items():
        change = 1e-3 * hard.normal(*layer.weight.shape, seed=12)
        s = found[name]
        stated = Metric(s.get(Need.GRADIENT_SECOND_MOMENT), s.get(Need.INPUT_SECOND_MOMENT)).error(change.flatten(1))
        filters = layer.weight.detach().clone()
        layer.weight.data += change.float()
        rise = (model(x) - expected).square().sum() / len(x)
        layer.weight.data = filters
        assert 0.2 < float(rise / stated) < 5, name
