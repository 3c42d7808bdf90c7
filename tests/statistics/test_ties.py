"""Matrices that several modules hold are measured in all of them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from eckart import Need
from eckart.compressors.kfac import factored_fisher
from eckart.models.sites import all_sites
from eckart.statistics import Statistics, collect
from eckart.statistics.ties import BETWEEN, joined, with_ties
from support import hard
from support.tiny import tiny_llama
from support.zoo import zoo

FISHER = (Need.INPUT_SECOND_MOMENT, Need.INPUT_MEAN, Need.GRADIENT_SECOND_MOMENT)


def test_the_metric_of_a_tied_table_foresees_what_its_head_does() -> None:
    # The rows that change are of tokens which the text does not have: only the head multiplies by them.
    model = tiny_llama()
    table = model.get_input_embeddings()
    with torch.no_grad():
        table.weight.mul_(8)
    half = len(table.weight) // 2
    data = torch.randint(half, (32, 32), generator=torch.Generator().manual_seed(0))
    metric = factored_fisher(collect(model, {"table": table}, FISHER, [data])["table"], torch.float64)
    change = 1e-3 * hard.normal(*table.weight.shape, seed=1)
    change[:half] = 0

    @torch.no_grad()
    def logarithms() -> Tensor:
        return model(data).logits.double().log_softmax(-1)

    before = logarithms()
    with torch.no_grad():
        table.weight += change.float()
    divergence = (before.exp() * (before - logarithms())).sum(-1).mean()
    assert float(metric.error(change)) / 2 == pytest.approx(float(divergence), rel=0.15)


@pytest.mark.parametrize("name", ["T5", "BART", "Whisper"])
def test_embeddings_that_an_encoder_and_a_decoder_share_are_reached(name: str) -> None:
    model, batch = zoo()[name]()
    tied = {site.name: site.module for site in all_sites(model, embeddings=True, head=True) if site.tied}
    found = collect(model, tied, [Need.INPUT_SECOND_MOMENT], [batch])
    assert tied
    assert all(found[each].tokens and found[each].lookup for each in tied)


class Twice(nn.Module):
    """Two maps of one matrix, of which the first gets inputs three times as large."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(5, 5, bias=False)
        self.second = nn.Linear(5, 5, bias=False)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.second(x) + self.first(3 * x)


def test_two_maps_of_one_matrix_both_count() -> None:
    model, x = Twice(), hard.normal(40, 5).float()
    assert with_ties(model, {"a": model.first}) == {"a": model.first, f"a{BETWEEN}second": model.second}
    found = collect(model, {"a": model.first}, (Need.INPUT_SECOND_MOMENT, Need.INPUT_ABS_MAX), [x])["a"]
    torch.testing.assert_close(found.input_second_moment, (1 + 9) / 2 * x.T @ x / 40, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.input_abs_max, 3 * x.double().abs().amax(0))
    assert (found.tokens, found.uses) == (40, 2)


@pytest.mark.parametrize("vector", [True, False], ids=["diagonal", "whole"])
@pytest.mark.parametrize("same", ["gradients", "inputs"])
def test_uses_that_differ_on_one_side_only_are_added_exactly(same: str, vector: bool) -> None:
    def moment(n: int, seed: int) -> Tensor:
        return (root := hard.normal(n, n, seed=seed)) @ root.T

    a = [moment(6, 0), moment(6, 1)]
    b = [moment(4, 2), moment(4, 3)]
    if same == "gradients":
        a[1] = 0.2 * a[0]
    else:
        b[1] = 7 * b[0]
    if vector:
        a = [each.diagonal() for each in a]
    uses = [1.0, 3.0]
    parts = [Statistics(10, b[k], gradient_second_moment=a[k], uses=uses[k]) for k in range(2)]
    whole = joined({"w": parts[0], f"w{BETWEEN}head": parts[1]})["w"]

    def product(left: Tensor, right: Tensor) -> Tensor:
        return torch.kron(left.diag() if vector else left, right)

    assert whole.input_second_moment is not None
    assert whole.gradient_second_moment is not None
    found = whole.uses * product(whole.gradient_second_moment, whole.input_second_moment)
    torch.testing.assert_close(found, sum(u * product(x, y) for u, x, y in zip(uses, a, b, strict=True)))


def test_of_uses_that_never_came_nothing_is_taken() -> None:
    ran = Statistics(3, torch.eye(2), input_mean=torch.ones(2), gradient_second_moment=torch.ones(4))
    found = joined({"w": Statistics(lookup=True), f"w{BETWEEN}head": ran})["w"]
    assert (found.tokens, found.lookup) == (3, True)
    torch.testing.assert_close(found.input_second_moment, ran.input_second_moment)
    torch.testing.assert_close(found.gradient_second_moment, ran.gradient_second_moment)
    torch.testing.assert_close(found.input_mean, torch.zeros(2))  # a table takes no bias
    assert joined({"w": Statistics(), f"w{BETWEEN}v": Statistics()})["w"].tokens == 0
