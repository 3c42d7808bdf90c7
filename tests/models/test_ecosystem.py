"""Compressed and adapted models in what people train and serve them with: Trainer, SFTTrainer, accelerate."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from datasets import Dataset
from sentence_transformers import SentenceTransformer
from sentence_transformers.models import Pooling, Transformer
from torch import Tensor
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments
from trl import SFTConfig, SFTTrainer

import eckart
from eckart import optim
from eckart.trainer import AdapterCallback, ParametrizationCallback
from support.tiny import tiny_llama, tiny_tokenizer

IDS = torch.arange(24).view(2, 12) * 7 % 290
ROWS = [
    {"input_ids": row, "labels": row}
    for row in torch.randint(5, 290, (32, 12), generator=torch.Generator().manual_seed(0))
]
QUIET: dict[str, Any] = {"report_to": [], "use_cpu": True, "disable_tqdm": True, "logging_steps": 100, "seed": 1}


def logits(model: Any) -> Tensor:
    with torch.no_grad():
        found: Tensor = model.eval()(IDS).logits
    return found


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model: Any = tiny_llama()
    eckart.compress(model, "svd", keep=0.7, of="linear-parameters")
    path = tmp_path_factory.mktemp("compressed") / "model"
    model.save_pretrained(path)
    return path


def read(directory: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(directory)


def trainer(model: Any, out: Path, callbacks: list[Any]) -> Trainer:
    arguments = TrainingArguments(
        str(out), max_steps=6, save_steps=3, per_device_train_batch_size=2, gradient_accumulation_steps=2,
        learning_rate=1e-2, lr_scheduler_type="constant", **QUIET,
    )  # fmt: skip
    return Trainer(model, arguments, train_dataset=ROWS, callbacks=callbacks)  # type: ignore[arg-type]


@pytest.mark.parametrize("method", [None, "lora", "pissa", "sorsa", "adalora"])
def test_training_saves_and_resumes_to_the_same_tensors(method: str | None, directory: Path, tmp_path: Path) -> None:
    def run(resume: Path | None) -> tuple[Any, Tensor]:
        model = read(directory)
        adapter = None if method is None else eckart.adapt(model, method, rank=2)
        callbacks = [] if adapter is None else [AdapterCallback(adapter)]
        training = trainer(model, tmp_path / "run", callbacks)
        training.train(resume_from_checkpoint=None if resume is None else str(resume))
        return training, logits(model)

    training, trained = run(None)
    assert (trained - logits(read(directory))).norm() > 1e-3 * trained.norm()
    training.save_model(str(tmp_path / "final"))
    torch.testing.assert_close(logits(read(tmp_path / "final")), trained)
    assert torch.equal(run(tmp_path / "run" / "checkpoint-3")[1], trained)


def test_a_schedule_without_its_state_is_not_gone_on_with(directory: Path, tmp_path: Path) -> None:
    model = read(directory)
    trainer(model, tmp_path / "run", [AdapterCallback(eckart.adapt(model, "adalora", rank=2))]).train()
    (tmp_path / "run" / "checkpoint-3").rename(tmp_path / "elsewhere")
    model = read(directory)
    training = trainer(model, tmp_path / "run", [AdapterCallback(eckart.adapt(model, "adalora", rank=2))])
    with pytest.raises(eckart.Refused, match=r"eckart_schedule.safetensors is not there, and adalora"):
        training.train(resume_from_checkpoint=str(tmp_path / "elsewhere"))


def test_parametrizations_and_optimizers_resume_to_the_same_tensors(tmp_path: Path) -> None:
    def run(resume: Path | None) -> tuple[Any, Tensor]:
        model: Any = tiny_llama()
        made = eckart.reparametrize(model, "rigl", keep=0.4, every=2)
        training = trainer(model, tmp_path / "run", [ParametrizationCallback(made)])
        training.optimizer = optim.GaLore(optim.groups(model, show=False), lr=1e-2, rank=2, every=2)
        training.train(resume_from_checkpoint=None if resume is None else str(resume))
        made.finish()
        return training, logits(model)

    training, trained = run(None)
    assert (trained - logits(tiny_llama())).norm() > 1e-3 * trained.norm()
    training.save_model(str(tmp_path / "final"))
    torch.testing.assert_close(logits(read(tmp_path / "final")), trained)
    assert torch.equal(run(tmp_path / "run" / "checkpoint-3")[1], trained)


@pytest.mark.parametrize("adapted", [False, True])
def test_supervised_fine_tuning(adapted: bool, directory: Path, tmp_path: Path) -> None:
    model, tokenizer = read(directory), tiny_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token
    callbacks = [AdapterCallback(eckart.adapt(model, "lora", rank=2))] if adapted else []
    config = SFTConfig(
        str(tmp_path / "run"), max_steps=2, per_device_train_batch_size=2, learning_rate=1e-2, max_length=16,
        bf16=False, save_strategy="no", **QUIET,
    )  # fmt: skip
    rows = Dataset.from_dict({"text": ["the cat sat on the mat and looked at the dog"] * 8})
    training = SFTTrainer(model, args=config, train_dataset=rows, processing_class=tokenizer, callbacks=callbacks)
    training.train()
    trained = logits(model)
    assert (trained - logits(read(directory))).norm() > 1e-3 * trained.norm()
    training.save_model(str(tmp_path / "final"))
    torch.testing.assert_close(logits(read(tmp_path / "final")), trained)


def with_state(accelerator: Accelerator, model: Any, out: Path) -> None:
    accelerator.unwrap_model(model).save_pretrained(out, state_dict=accelerator.get_state_dict(model))


def tensors_and_config(accelerator: Accelerator, model: Any, out: Path) -> None:
    accelerator.save_model(model, out)
    accelerator.unwrap_model(model).config.save_pretrained(out)


@pytest.mark.parametrize("save", [with_state, tensors_and_config])
def test_accelerate(save: Callable[[Accelerator, Any, Path], None], tmp_path: Path) -> None:
    model: Any = tiny_llama()
    eckart.compress(model, "svd", keep=0.7, of="linear-parameters")
    accelerator = Accelerator(cpu=True)
    save(accelerator, accelerator.prepare(model), tmp_path / "saved")
    torch.testing.assert_close(logits(read(tmp_path / "saved")), logits(model))


def test_sentence_transformers(tmp_path: Path) -> None:
    base: Any = tiny_llama()
    base.save_pretrained(tmp_path / "base")
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.save_pretrained(tmp_path / "base")
    transformer = Transformer(str(tmp_path / "base"), max_seq_length=16)
    pooling = Pooling(transformer.get_embedding_dimension(), "mean")
    embedder = SentenceTransformer(modules=[transformer, pooling], device="cpu")
    texts = ["the cat sat on the mat", "a dog", "numbers and letters"]
    before = embedder.encode(texts, convert_to_tensor=True)
    eckart.compress(embedder, "svd", keep=0.7, of="linear-parameters")
    expected = embedder.encode(texts, convert_to_tensor=True)
    assert (expected - before).norm() > 0.01 * before.norm()
    embedder.save(str(tmp_path / "saved"))
    loaded = SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    torch.testing.assert_close(loaded.encode(texts, convert_to_tensor=True), expected)
