"""Padding is no data, whatever a model does with the tokens on their way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
import transformers as hf
from torch import Tensor, nn

import eckart
from eckart.errors import Refused
from eckart.models.fused_experts import unfuse
from eckart.models.sites import find_sites
from eckart.statistics import Need, Statistics, collect
from eckart.statistics.gradients import mean_gradients
from support.padded import Sample, cut, padded
from support.statistics import tokens
from support.tiny import tiny_gpt2, tiny_llama
from support.zoo import zoo

TEXTS = [name for name, make in zoo().items() if name not in ("TransformerEncoder", "ConvolutionalRecurrent", "Waves")]
TEXTS = [name for name in TEXTS if name not in ("ViT", "ResNet", "ConvNeXt")]
LENGTHS = (7, 12, 4)
EQUAL = (6, 6, 6)
ALL = tuple(Need)


def made(kind: str, lengths: Sequence[int]) -> tuple[nn.Module, dict[str, nn.Module], list[Sample]]:
    """A model of the zoo, its matrices, and samples for it."""
    model, batch = zoo()[kind]()
    unfuse(model)
    modules = {site.name: site.module for site in find_sites(model, embeddings=True, head=True)}
    return model, modules, cut(batch, lengths)


def differences(found: Mapping[str, Statistics], expected: Mapping[str, Statistics]) -> list[str]:
    """What differs by more than rounding."""
    wrong = []
    assert found.keys() == expected.keys()
    for name, entry in expected.items():
        if found[name].tokens != entry.tokens:
            wrong.append(f"{name}: {found[name].tokens} tokens for {entry.tokens}")
        for need in Need:
            a, b = getattr(found[name], need.value), getattr(entry, need.value)
            if (a is None) != (b is None):
                wrong.append(f"{name}: {need.value} is there or not")
            elif a is not None and not (a - b).double().norm() <= 1e-3 * b.double().norm() + 1e-12:
                wrong.append(f"{name}: {need.value} is off by {float((a - b).norm() / b.norm()):.2g}")
    return wrong


@pytest.mark.parametrize("lengths", [LENGTHS, EQUAL], ids=["padded", "equal"])
@pytest.mark.parametrize("kind", TEXTS)
def test_statistics_of_a_batch_are_those_of_its_samples(kind: str, lengths: Sequence[int]) -> None:
    model, modules, samples = made(kind, lengths)
    alone = collect(model, modules, ALL, samples)
    assert sum(entry.tokens for entry in alone.values())
    for left in (False, True):
        assert not differences(collect(model, modules, ALL, [padded(samples, left)]), alone), left


@pytest.mark.parametrize("kind", TEXTS)
def test_so_are_those_that_need_no_gradient(kind: str) -> None:
    model, modules, samples = made(kind, LENGTHS)
    inside = {name: module for name, module in modules.items() if not isinstance(module, nn.Embedding)}
    needs = [Need.INPUT_SECOND_MOMENT, Need.INPUT_MEAN]
    alone = collect(model, inside, needs, samples)
    assert not differences(collect(model, inside, needs, [padded(samples)]), alone)


@pytest.mark.parametrize("kind", ["ViT", "ResNet", "ConvNeXt", "ConvolutionalRecurrent"])
def test_statistics_of_images_are_those_of_each(kind: str) -> None:
    model, batch = zoo()[kind]()
    modules = {site.name: site.module for site in find_sites(model)}
    images = batch if isinstance(batch, Tensor) else batch["pixel_values"]
    # Labels of other outputs than logits are drawn for a whole batch: those of one sample are others.
    needs = list(ALL)[:3] if isinstance(batch, Tensor) else ALL
    alone = [image[None] if isinstance(batch, Tensor) else {"pixel_values": image[None]} for image in images]
    assert not differences(collect(model, modules, needs, [batch]), collect(model, modules, needs, alone))


def test_a_matrix_that_is_used_again_has_the_gradient_of_all_its_uses() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(6, 6, dtype=torch.double)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.inner(torch.tanh(self.inner(x)))
            return y

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, x = Twice(), torch.randn(5, 3, 6, dtype=torch.double)
    expected = torch.zeros(6, 6, dtype=torch.double)
    labels = torch.randn(5, 3, 6, generator=torch.Generator().manual_seed(0), dtype=torch.double)
    for one, label in zip(x, labels, strict=True):
        (gradient,) = torch.autograd.grad((model(one[None]) * label).sum(), model.inner.weight)
        expected += gradient.square() / 5
    found = collect(model, {"inner": model.inner}, ALL, [x])["inner"]
    torch.testing.assert_close(found.fisher_rows, expected.sum(1), rtol=1e-5, atol=0)
    torch.testing.assert_close(found.fisher_columns, expected.sum(0), rtol=1e-5, atol=0)
    assert found.tokens == 30


@pytest.mark.parametrize("labels", [4, 8])
@pytest.mark.parametrize("left", [False, True])
def test_classes_may_be_as_many_as_tokens(labels: int, left: bool) -> None:
    """Labels of samples are no labels of tokens, although they may have their shape."""
    size: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "vocab_size": 300}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = hf.BertConfig(num_attention_heads=4, num_labels=labels, initializer_range=0.2, **size)
        model = hf.BertForSequenceClassification(config).eval()
    samples: list[Sample] = [{"input_ids": tokens(1, n, seed=n)} for n in (5, 8, 3)]
    several = torch.rand(3, labels, generator=torch.Generator().manual_seed(1)).round()
    batch = {**padded(samples, left), "labels": several}
    with_labels: list[Sample] = [{**one, "labels": several[i : i + 1]} for i, one in enumerate(samples)]
    modules = {site.name: site.module for site in find_sites(model)}
    assert not differences(collect(model, modules, ALL, [batch]), collect(model, modules, ALL, with_labels))
    found, alone = mean_gradients(model, modules, [batch]), mean_gradients(model, modules, with_labels)
    for name, gradient in alone.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-6)
    eckart.compress(model, "kfac", keep=0.5, of="linear-parameters", calibration=[batch])


def test_models_that_pad_by_themselves_say_so() -> None:
    size: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "vocab_size": 300}
    model = hf.LongformerForMaskedLM(hf.LongformerConfig(attention_window=4, num_attention_heads=4, **size)).eval()
    modules = {site.name: site.module for site in find_sites(model)}
    found = collect(model, modules, [Need.INPUT_MEAN], [{"input_ids": tokens(2, 8)}])
    assert {entry.tokens for entry in found.values()} <= {0, 16}
    with pytest.raises(Refused, match="the model pads sequences of 7 tokens to 8 by itself"):
        collect(model, modules, [Need.INPUT_MEAN], [{"input_ids": tokens(2, 7)}])


def ignored(labels: Sequence[Tensor], left: bool) -> Tensor:
    longest = max(map(len, labels))
    rows = []
    for row in labels:
        fill = row.new_full((longest - len(row),), -100)
        rows.append(torch.cat([fill, row] if left else [row, fill]))
    return torch.stack(rows)


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("kind", ["Llama", "OPT", "GPT2", "Mixtral", "BERT masked", "T5", "BART"])
def test_gradients_of_a_task_are_those_of_its_labels(kind: str, left: bool) -> None:
    """Independently: the sum of the losses of the labels by ordinary autograd, sequence by sequence."""
    model, modules, samples = made(kind, LENGTHS)
    modules = {name: module for name, module in modules.items() if not isinstance(module, nn.Embedding)}
    model.double()  # attention of T5 is nearly all or nothing
    written = "decoder_input_ids" if "decoder_input_ids" in samples[0] else "input_ids"
    labels = []
    for i, sample in enumerate(samples):
        own = sample[written][0].clone()
        own[: i + 1] = -100  # a prompt, which is not learned
        labels.append(own)
    total, count = dict.fromkeys(modules, 0.0), 0
    for sample, own in zip(samples, labels, strict=True):
        model.zero_grad()
        follows = kind not in ("BERT masked", "T5", "BART")
        logits = model(**sample).logits[0]
        loss = nn.functional.cross_entropy(
            logits[:-1] if follows else logits, own[1:] if follows else own, reduction="sum"
        )
        loss.backward()
        count += int((own[1:] if follows else own).ne(-100).sum())
        for name, module in modules.items():
            if module.weight.grad is not None:
                gradient = module.weight.grad.clone()
                total[name] = total[name] + (gradient if isinstance(module, nn.Linear) else gradient.T)
    model.zero_grad()
    batch = {**padded(samples, left), "labels": ignored(labels, left)}
    for name, gradient in mean_gradients(model, modules, [batch]).items():
        torch.testing.assert_close(gradient.double(), total[name] / count, rtol=1e-4, atol=1e-6)


def test_labels_end_a_decoder_that_has_no_mask() -> None:
    """As transformers' own collator pads pairs: labels with -100, and no mask for what is written."""
    model, modules, samples = made("T5", LENGTHS)
    written = [sample.pop("decoder_input_ids")[0] for sample in samples]
    batch = {**padded(samples), "labels": ignored(written, False)}
    alone = [{**sample, "labels": own[None]} for sample, own in zip(samples, written, strict=True)]
    assert not differences(collect(model, modules, ALL, [batch]), collect(model, modules, ALL, alone))


def pair_mask(real: Tensor, sequences: Tensor) -> Tensor:
    """What each token of packed sequences sees: those of its own in front of it; (samples, 1, tokens, tokens), bool."""
    own = sequences[:, :, None] == sequences[:, None, :]
    return (own.tril() & real[:, None, :])[:, None]


@pytest.mark.parametrize("form", ["bool", "added", "self"])
@pytest.mark.parametrize("left", [False, True])
def test_masks_of_pairs_of_tokens(form: str, left: bool) -> None:
    """Packed sequences: positions start anew in each, and a token sees only its own."""
    model = tiny_llama()
    modules = {site.name: site.module for site in find_sites(model, embeddings=True)}
    parts = [[5, 3], [4, 7], [2, 6]]
    alone = [{"input_ids": tokens(1, n, seed=10 * i + n)} for i, lengths in enumerate(parts) for n in lengths]
    rows = [torch.cat([alone[2 * i]["input_ids"], alone[2 * i + 1]["input_ids"]], 1) for i in range(3)]
    batch = padded([{"input_ids": row} for row in rows], left)
    real = batch["attention_mask"].bool()
    numbered = [torch.cat([torch.full((n,), k + 1) for k, n in enumerate(lengths)]) for lengths in parts]
    positions = [torch.cat([torch.arange(n) for n in lengths]) for lengths in parts]
    sequences, batch["position_ids"] = (ignored(each, left).clamp_min(0) for each in (numbered, positions))
    mask = pair_mask(real, sequences)
    if form == "self":
        mask = mask | torch.eye(mask.shape[-1], dtype=torch.bool)
    batch["attention_mask"] = mask if form != "added" else (~mask) * torch.finfo(torch.float32).min
    needs = [Need.INPUT_SECOND_MOMENT, Need.INPUT_MEAN]
    inside = {name: module for name, module in modules.items() if not isinstance(module, nn.Embedding)}
    expected = collect(model, inside, needs, alone)
    assert not differences(collect(model, inside, needs, [batch]), expected)


def test_packed_sequences_stay_packed() -> None:
    """Positions that start anew part the sequences, where there is no mask."""
    model = tiny_llama()
    modules = {site.name: site.module for site in find_sites(model)}
    alone = [{"input_ids": tokens(1, n, seed=n)} for n in (5, 3, 6)]
    packed = {
        "input_ids": torch.cat([one["input_ids"] for one in alone], 1),
        "position_ids": torch.cat([torch.arange(n) for n in (5, 3, 6)])[None],
    }
    needs = [Need.INPUT_SECOND_MOMENT, Need.INPUT_MEAN, Need.GRADIENT_SECOND_MOMENT]
    assert not differences(collect(model, modules, needs, [packed]), collect(model, modules, needs, alone))


def test_a_mask_that_a_model_does_not_read_cuts_nothing() -> None:
    """Whisper listens to a window of one length, silence included; what is written has a mask of its own."""
    model, modules, samples = made("Whisper", LENGTHS)
    heard = torch.ones(3, 24, dtype=torch.long)
    heard[1, 7:9] = heard[2] = 0
    batch = {**padded(samples), "attention_mask": heard}
    assert not differences(collect(model, modules, ALL, [batch]), collect(model, modules, ALL, samples))


@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2])
@pytest.mark.parametrize("options", [{"sequential": True}, {"heal": 4}], ids=str)
def test_blocks_see_no_padding_either(make: Any, options: dict[str, Any]) -> None:
    samples: list[Sample] = [{"input_ids": tokens(1, n, seed=n)} for n in (9, 14, 6, 11)]
    found = []
    for batches in ([padded(samples)], samples):
        model = make()
        eckart.compress(model, "kfac", keep=0.5, of="linear-parameters", calibration=batches, **options)
        found.append(model(tokens(2, 8)).logits)
    torch.testing.assert_close(found[0], found[1], rtol=1e-2, atol=1e-2)
