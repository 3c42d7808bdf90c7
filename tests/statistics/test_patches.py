"""Statistics of convolutions against unfolded images and ordinary autograd."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eckart import Metric, Need, Statistics
from eckart.models.places import replace
from eckart.models.sites import find_sites
from eckart.statistics import collect, patches, statistics_for
from eckart.statistics.sample import SAMPLED_PAIRS, Sample
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
    pairs = Sample(SAMPLED_PAIRS)
    pairs.add(torch.cat([x, g], 1))
    return Statistics(
        tokens=len(x),
        input_second_moment=x.T @ x / len(x),
        input_mean=x.mean(0),
        input_abs_mean=x.abs().mean(0),
        input_abs_max=x.abs().amax(0),
        gradient_second_moment=g.T @ g / len(xs),  # the sum over the positions of an image
        fisher_rows=squares.sum(1),
        fisher_columns=squares.sum(0),
        gradient_pairs=pairs.rows,
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


class Patchwork(nn.Module):
    """Filters over patches that do not overlap, their mean over the positions, and a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.filters = nn.Conv2d(2, 6, 2, stride=2, bias=False)
        self.head = nn.Linear(6, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.filters(x).mean((2, 3)))


def test_the_loss_rises_by_half_of_the_error_that_is_stated() -> None:
    """Under a Gaussian likelihood the factored Fisher is exact where patches and gradients are independent.

    Patches of white noise that do not overlap are independent of each other too, and the model is linear: what is left
    is the noise of the labels and of the patches of so many images.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Patchwork()
    mix = torch.diag(torch.tensor([3.0, 0.3]))
    x = torch.einsum("ij,njhw->nihw", mix, hard.normal(6000, 2, 8, 6, seed=11).float())
    needs = (Need.INPUT_SECOND_MOMENT, Need.GRADIENT_SECOND_MOMENT)
    s = collect(model, {"filters": model.filters}, needs, list(x.split(1500)), seed=1)["filters"]
    with torch.no_grad():
        expected = model(x)
        for seed in range(3):
            change = 0.1 * hard.normal(*model.filters.weight.shape, seed=seed)
            metric = Metric(s.get(Need.GRADIENT_SECOND_MOMENT), s.get(Need.INPUT_SECOND_MOMENT))
            model.filters.weight += change.float()
            rise = (model(x) - expected).square().sum(1).mean() / 2
            model.filters.weight -= change.float()
            assert float(metric.error(change.flatten(1))) / 2 == pytest.approx(float(rise), rel=0.05)
