"""Batches that no model can be called with: refused with their number and the cause, never in torch's words alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import pytest
import torch
from torch import Tensor, nn

import eckart
from eckart.models.sites import find_sites
from eckart.statistics import Need, statistics_for
from eckart.statistics.batches import Batch
from eckart.statistics.gradients import mean_gradients
from support.tiny import VOCABULARY, tiny_llama
from support.zoo import Make, ids, zoo

WRONG: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "one number": (lambda _: torch.tensor(3), "one number, 3"),
    "one sequence": (lambda b: b[0], r"shape \(12,\): token ids are \(sequences, length\)"),
    "bool": (lambda b: b.bool(), "input_ids is bool: token ids are int64"),
    "float": (lambda b: b.float(), "input_ids is float32: token ids are int64"),
    "strange tokens": (lambda b: b + 1000, f"token 10.*vocabulary is 0 to {VOCABULARY - 1}"),
    "negative": (lambda b: b - 100, "holds token -"),
    "no rows": (lambda b: b[:0], "holds no samples"),
    "no tokens": (lambda b: b[:, :0], "holds no samples"),
}
JOBS: dict[str, Callable[[nn.Module, list[Batch]], object]] = {
    "compress": lambda model, given: eckart.compress(
        model, "kfac", keep=0.9, of="linear-parameters", calibration=given
    ),
    "compress, which reads none": lambda model, given: eckart.compress(
        model, "svd", keep=0.9, of="linear-parameters", calibration=given
    ),
    "heal": lambda model, given: eckart.compress(
        model, "svd", keep=0.9, of="linear-parameters", calibration=given, heal=1
    ),
    "adapt": lambda model, given: eckart.adapt(model, "eva", 2, calibration=given),
    "adapt by gradients": lambda model, given: eckart.adapt(model, "lora-ga", 2, calibration=given),
    "adapt, which reads none": lambda model, given: eckart.adapt(model, "lora", 2, calibration=given),
    "diagnose": lambda model, given: eckart.diagnose(model, tokens=given),
}


@pytest.mark.parametrize("job", JOBS)
def test_token_ids_that_are_none(job: str) -> None:
    model, right = tiny_llama(), ids(8, 12)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for wrong, says in WRONG.values():
        with pytest.raises(eckart.Refused, match=f"calibration batch 1: .*{says}"):
            JOBS[job](model, [right, wrong(right)])
    after = model.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def changed(batch: Batch) -> Iterator[Batch]:
    """A batch, each of its entries damaged in every way at a time."""
    damages: list[Callable[[Tensor], Tensor]] = [
        lambda t: t.flatten()[0],
        lambda t: t[0],
        lambda t: t[:0],
        lambda t: t[:-1],
        lambda t: t.bool(),
        lambda t: t.long() if t.is_floating_point() else t.double(),
        lambda t: t * float("nan") if t.is_floating_point() else t + 10**6,
        lambda t: t.new_zeros(t.shape),
        lambda t: t[..., None],
    ]
    for damage in damages:
        if isinstance(batch, Tensor):
            yield damage(batch)
        else:
            yield from ({**batch, name: damage(value)} for name, value in batch.items())


@pytest.mark.parametrize("make", zoo().values(), ids=zoo().keys())
def test_no_batch_ends_in_an_error_of_torch(make: Make) -> None:
    model, batch = make()
    first = find_sites(model)[0]
    for wrong in changed(batch):
        try:
            found, _ = statistics_for(model, {first.name: first.module}, (Need.INPUT_ABS_MEAN,), [wrong])
        except eckart.Refused as refused:
            assert str(refused).startswith("calibration batch 0: ")  # noqa: PT017
        else:
            known = found[first.name].input_abs_mean
            assert known is None or not known.isnan().any()


def test_what_the_model_says_is_quoted() -> None:
    model = nn.Sequential(nn.Linear(4, 4))
    with pytest.raises(eckart.Refused, match=r"batch 1: Sequential cannot be called with float32 \(2, 5\): RuntimeE"):
        statistics_for(model, {"0": model[0]}, (Need.INPUT_MEAN,), [torch.ones(2, 4), torch.ones(2, 5)])


@pytest.mark.parametrize("labels", [torch.ones(2, 3, dtype=torch.long), torch.full((2, 12), VOCABULARY), ids(3, 12)])
def test_labels_of_odd_shape(labels: Tensor) -> None:
    model = tiny_llama()
    batch = {"input_ids": ids(2, 12), "labels": labels}
    head = {"head": model.lm_head}
    with pytest.raises(eckart.Refused, match=r"calibration batch 0: .*labels"):
        mean_gradients(model, head, [batch])


def test_a_mask_that_leaves_nothing() -> None:
    batch: Mapping[str, Tensor] = {"input_ids": ids(2, 12), "attention_mask": torch.zeros(2, 12, dtype=torch.long)}
    for job in ("compress", "heal", "adapt"):
        with pytest.raises(eckart.Refused, match="'attention_mask' leaves out every token"):
            JOBS[job](tiny_llama(), [batch])


def test_where_memory_ends_nothing_is_wrong_with_the_batch() -> None:
    class Large(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            raise MemoryError("no more")

    model = Large(4, 4)
    with pytest.raises(MemoryError, match="no more"):
        statistics_for(model, {"": model}, (Need.INPUT_MEAN,), [torch.ones(2, 4)])


def test_an_error_of_ours_is_no_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr("eckart.statistics.recorder.Recorder._add_input", broken)
    model = nn.Sequential(nn.Linear(4, 4))
    with pytest.raises(RuntimeError, match="a fault"):
        statistics_for(model, {"0": model[0]}, (Need.INPUT_MEAN,), [torch.ones(2, 4)])
