"""Accuracy, perplexity of answers and drift, computed another way."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from eckart.errors import Refused
from eckart.jobs.evaluate.judge import judge, mean
from eckart.models.sentences import Sentences
from support.zoo import ids, zoo


class Fixed(nn.Module):
    """Gives the logits that its input is."""

    def __init__(self, add: float = 0.0) -> None:
        super().__init__()
        self.add = add

    def forward(self, x: Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=x + self.add * torch.arange(x.shape[-1]))


def test_accuracy_is_the_share_of_right_labels() -> None:
    logits = torch.tensor([[3.0, 1.0, 0.0], [0.0, 2.0, 1.0], [0.0, 1.0, 2.0], [5.0, 0.0, 4.0]])
    batches = [{"x": logits[:2], "labels": torch.tensor([0, 0])}, {"x": logits[2:], "labels": torch.tensor([2, 0])}]
    found = judge(Fixed(10.0), batches, Fixed(), text="t")
    assert found.metric == "accuracy"
    assert found.before is not None
    assert (found.before.mean, found.after.mean, found.tokens) == (0.75, 0.25, 4)
    assert found.top1_agreement == 0.25
    assert found.before.stderr == pytest.approx((0.75 * 0.25 / 3) ** 0.5)


def test_perplexity_of_answers_is_the_models_own_loss() -> None:
    model, batch = zoo()["T5"]()
    assert not isinstance(batch, Tensor)
    labels = ids(length=6)
    labels[0, 4:] = -100
    data = {"input_ids": batch["input_ids"], "labels": labels}
    other = copy.deepcopy(model)
    other.lm_head.weight.data *= 1.1
    found = judge(other, [data], model, text="t")
    assert found.metric == "perplexity"
    assert found.before is not None
    assert found.tokens == 16
    assert found.before.mean == pytest.approx(float(model(**data).loss.exp()), rel=1e-5)
    assert found.after.mean == pytest.approx(float(other(**data).loss.exp()), rel=1e-5)
    assert found.kl is not None
    assert found.kl > 0


def test_drift_is_the_relative_error_without_padding() -> None:
    model, batch = zoo()["BERT masked"]()
    assert not isinstance(batch, Tensor)
    mask = torch.ones_like(batch["input_ids"])
    mask[0, 5:] = 0
    other = copy.deepcopy(model)
    for p in other.parameters():
        p.data *= 1.01
    found = judge(other, [{"input_ids": batch["input_ids"], "attention_mask": mask}], model, text="t")
    errors = []
    for row, kept in zip(batch["input_ids"], mask.bool(), strict=True):
        y, before = (each(input_ids=row[kept][None]).logits.double() for each in (other, model))
        errors.append(float((y - before).norm() / before.norm()))
    assert found.metric == "drift of the outputs"
    assert found.after.mean == pytest.approx(sum(errors) / 3, rel=1e-4)
    assert found.after.stderr == pytest.approx(mean(errors).stderr, rel=1e-3)
    assert judge(model, [batch], model, text="t").after.mean == 0


@pytest.mark.parametrize("mode", ["mean", "cls", "max", "lasttoken"])
def test_embeddings_are_pooled_without_padding(mode: str, tmp_path: object) -> None:
    hidden, mask = torch.randn(2, 5, 4), torch.tensor([[1, 1, 1, 0, 0], [0, 1, 1, 1, 1]])
    sentences = Sentences(directory=tmp_path, transformer="", modes=(mode,), parts=())  # type: ignore[arg-type]
    found = sentences.embedding(hidden, mask)
    for one, kept, got in zip(hidden, mask.bool(), found, strict=True):
        rows = one[kept]
        pooled = {"mean": rows.mean(0), "cls": rows[0], "max": rows.amax(0), "lasttoken": rows[-1]}[mode]
        torch.testing.assert_close(got, pooled / pooled.norm())


def test_without_labels_and_reference_nothing_can_be_said() -> None:
    model, batch = zoo()["BERT masked"]()
    assert not isinstance(batch, Tensor)
    with pytest.raises(Refused, match="name that with --against"):
        judge(model, [batch], text="t")


def test_outputs_that_are_not_finite_are_refused() -> None:
    bad = {"x": torch.full((2, 3), torch.nan), "labels": torch.tensor([0, 1])}
    with pytest.raises(Refused, match="the model gives NaN or infinite outputs"):
        judge(Fixed(), [bad], text="t")
