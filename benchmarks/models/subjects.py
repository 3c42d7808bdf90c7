"""The models of `trained`, made where they are not there yet, and data of the kind that each reads."""

from __future__ import annotations

import argparse
import gzip
import json
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import transformers as t
from PIL import Image
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from torch import Tensor, nn

from benchmarks.common.minilm import minilm
from benchmarks.common.pictures import fashion
from eckart.texts.corpora import corpus
from eckart.texts.media import read_sound

CLOTHES = ["T-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"]
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789 .,'-?!"
SIDE, LONGEST, SECONDS, RATE = 28, 48, 4, 16000
SMALL: dict[str, Any] = {"hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 128}


@dataclass(frozen=True)
class Subject:
    """A model as the command line is given it, and data of its kind.

    Attributes:
        model: a directory, or a GGUF file.
        calibration: what `--calibration` takes.
        held: what `--eval` takes.
        options: of all its runs.
    """

    model: str
    calibration: str
    held: str
    options: Sequence[str] = ()


def vit(work: Path, arguments: argparse.Namespace) -> Subject:
    images, labels = clothes(arguments.fashion, "train")
    directory = work / "model"
    if not directory.is_dir():
        config = t.ViTConfig(**SMALL, image_size=SIDE, patch_size=7, num_labels=10, id2label=dict(enumerate(CLOTHES)))
        model = t.ViTForImageClassification(config)
        learn(model, lambda i: {"pixel_values": images[i], "labels": labels[i]}, len(images), epochs=4)
        model.save_pretrained(directory)
        processor().save_pretrained(directory)
    write_pictures(work / "calibration", *fashion_bytes(arguments.fashion, "train", slice(0, 256)))
    write_pictures(work / "held", *fashion_bytes(arguments.fashion, "t10k", slice(0, 2000)))
    return Subject(
        str(directory), str(work / "calibration"), str(work / "held"), ["--samples", "256", "--eval-samples", "2000"]
    )


def clip(work: Path, arguments: argparse.Namespace) -> Subject:
    images, labels = clothes(arguments.fashion, "train")
    directory, tokenizer = work / "model", letters(24)
    captions = tokenizer([f"a picture of a {name.lower()}" for name in CLOTHES], padding=True, return_tensors="pt")
    if not directory.is_dir():
        text = {**SMALL, "num_hidden_layers": 2, "vocab_size": len(tokenizer), "max_position_embeddings": 40}
        sides = {
            "text_config": {**text, "eos_token_id": tokenizer.eos_token_id, "bos_token_id": tokenizer.bos_token_id},
            "vision_config": {**SMALL, "image_size": SIDE, "patch_size": 7},
        }
        model = t.CLIPModel(t.CLIPConfig(**sides, projection_dim=32))

        def loss(i: Tensor) -> Tensor:
            return F.cross_entropy(model(pixel_values=images[i], **captions).logits_per_image, labels[i])

        learn(model, loss, len(images), epochs=3)
        model.save_pretrained(directory)
        size = {"height": SIDE, "width": SIDE}
        t.CLIPProcessor(t.CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size=size), tokenizer).save_pretrained(
            directory
        )
    for side, part, rows in (("calibration", "train", slice(0, 128)), ("held", "t10k", slice(0, 128))):
        pictures, kinds = fashion_bytes(arguments.fashion, part, rows)
        files = write_pictures(work / side, pictures, kinds)
        lines = [
            {"text": f"a picture of a {CLOTHES[k].lower()}", "image": str(file.relative_to(work / side))}
            for file, k in zip(files, kinds, strict=True)
        ]
        (work / side / "pairs.jsonl").write_text("\n".join(map(json.dumps, lines)), "utf-8")
    return Subject(str(directory), str(work / "calibration/pairs.jsonl"), str(work / "held/pairs.jsonl"))


def t5(work: Path, arguments: argparse.Namespace) -> Subject:
    directory, tokenizer = work / "model", letters(LONGEST)
    pairs = [(re.sub("[aeiou]", "", text), text) for text in stretches(corpus("wikipedia"))]
    if not directory.is_dir():
        model = t.T5ForConditionalGeneration(
            t.T5Config(
                vocab_size=len(tokenizer), d_model=96, d_kv=24, d_ff=192, num_layers=3, num_heads=4,
                decoder_start_token_id=tokenizer.pad_token_id, pad_token_id=tokenizer.pad_token_id,
                eos_token_id=tokenizer.eos_token_id, dropout_rate=0.0,
            )
        )  # fmt: skip

        def batch(i: Tensor) -> dict[str, Tensor]:
            chosen = [pairs[k] for k in i.tolist()]
            read = encoded(tokenizer, [left for left, _ in chosen])
            return {**read, "labels": answers(tokenizer, [right for _, right in chosen])}

        learn(model, batch, min(len(pairs), 12000), epochs=3, batch_size=64)
        model.save_pretrained(directory)
        tokenizer.save_pretrained(directory)
    held = [(re.sub("[aeiou]", "", text), text) for text in stretches(corpus("news"))]
    for side, rows in (("calibration", pairs[-256:]), ("held", held[:256])):
        lines = [json.dumps({"prompt": left, "response": right}) for left, right in rows]
        (work / f"{side}.jsonl").write_text("\n".join(lines), "utf-8")
    options = ["--samples", "256", "--eval-samples", "256", "--length", str(2 * LONGEST + 8)]
    return Subject(str(directory), str(work / "calibration.jsonl"), str(work / "held.jsonl"), options)


def whisper(work: Path, arguments: argparse.Namespace) -> Subject:
    directory, tokenizer = work / "model", letters(64)
    extractor = t.WhisperFeatureExtractor(feature_size=40, chunk_length=SECONDS, sampling_rate=RATE)
    spoken = list(prompts(arguments.sounds))
    order = torch.randperm(len(spoken), generator=torch.Generator().manual_seed(0)).tolist()
    held, known = order[:64], order[64:]
    if not directory.is_dir():
        model = t.WhisperForConditionalGeneration(
            t.WhisperConfig(
                vocab_size=len(tokenizer), num_mel_bins=40, d_model=96, encoder_layers=3, decoder_layers=2,
                encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=192, decoder_ffn_dim=192,
                max_source_positions=SECONDS * 50, max_target_positions=80, pad_token_id=tokenizer.pad_token_id,
                bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
                decoder_start_token_id=tokenizer.bos_token_id, suppress_tokens=None, begin_suppress_tokens=None,
            )
        )  # fmt: skip
        sounds = [read_sound(spoken[k][0], RATE) for k in known]
        heard = extractor(sounds, sampling_rate=RATE, return_tensors="pt").input_features

        def batch(i: Tensor) -> dict[str, Tensor]:
            return {
                "input_features": heard[i],
                "labels": answers(tokenizer, [spoken[known[k]][1] for k in i.tolist()]),
            }

        learn(model, batch, len(known), epochs=40, batch_size=16)
        model.save_pretrained(directory)
        tokenizer.save_pretrained(directory)
        extractor.save_pretrained(directory)
    for side, picked in (("calibration", known[:128]), ("held", held)):
        shutil.rmtree(work / side, ignore_errors=True)
        (work / side).mkdir(parents=True)
        for k in picked:
            file, text = spoken[k]
            shutil.copy(file, work / side / f"{k}.wav")
            (work / side / f"{k}.txt").write_text(text, "utf-8")
    return Subject(
        str(directory), str(work / "calibration"), str(work / "held"), ["--samples", "128", "--eval-samples", "64"]
    )


def sentences(work: Path, arguments: argparse.Namespace) -> Subject:
    work.mkdir(parents=True, exist_ok=True)
    for side, name in (("calibration", "wikipedia"), ("held", "news")):
        lines = [line for line in re.split(r"(?<=[.!?])\s+", corpus(name)) if 20 < len(line) < 300]
        (work / f"{side}.txt").write_text("\n\n".join(lines[:400]), "utf-8")
    model, _ = minilm()
    return Subject(str(model.config._name_or_path), str(work / "calibration.txt"), str(work / "held.txt"))


def gemma(work: Path, arguments: argparse.Namespace) -> Subject | None:
    if arguments.gguf is None:
        return None
    work.mkdir(parents=True, exist_ok=True)
    few = ["--samples", "16", "--length", "128", "--eval-samples", "8"]
    return Subject(str(arguments.gguf), "wikipedia", "news", few)


def learn(
    model: nn.Module,
    batch: Callable[[Tensor], Any],
    count: int,
    *,
    epochs: int,
    batch_size: int = 128,
) -> None:
    """AdamW under a one-cycle rate, from seed 0; `batch` gives the arguments of the model, or the loss itself."""
    torch.manual_seed(0)
    steps = epochs * (count // batch_size)
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, steps)
    model.train()
    for step in range(steps):
        given = batch(torch.randint(count, (batch_size,)))
        loss: Tensor = given if isinstance(given, Tensor) else model(**given).loss
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            print(f"{type(model).__name__}: step {step} of {steps}, loss {loss.item():.3f}", flush=True)
    model.eval()


def letters(longest: int) -> Any:
    """A tokenizer of single letters."""
    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[BOS]", "[EOS]", "[UNK]", *LETTERS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    special = {"pad_token": "[PAD]", "bos_token": "[BOS]", "eos_token": "[EOS]", "unk_token": "[UNK]"}
    return t.PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=2 * longest, **special)


def encoded(tokenizer: Any, texts: list[str]) -> dict[str, Tensor]:
    found = tokenizer(texts, padding=True, return_tensors="pt")
    return {"input_ids": found["input_ids"], "attention_mask": found["attention_mask"]}


def answers(tokenizer: Any, texts: list[str]) -> Tensor:
    """Labels: the texts, each with its end, and nothing to learn behind it."""
    found = tokenizer([text + tokenizer.eos_token for text in texts], padding=True, return_tensors="pt")
    labels: Tensor = found["input_ids"].masked_fill(found["attention_mask"] == 0, -100)
    return labels


def stretches(text: str) -> list[str]:
    """A text in small letters, in pieces of whole words."""
    words = re.sub(f"[^{re.escape(LETTERS)}]+", " ", text.lower()).split()
    found, line = [], ""
    for word in words:
        if len(line) + len(word) >= LONGEST:
            found.append(line)
            line = ""
        line = f"{line} {word}".strip()[:LONGEST]
    return found


def prompts(root: Path) -> Iterator[tuple[Path, str]]:
    """The sounds of at most `SECONDS`, and what is said in them."""
    listed = next(root.rglob("core-sounds-en.txt.gz"))
    with gzip.open(listed, "rt", encoding="utf-8") as opened:
        said = dict(re.findall(r"^([\w/-]+): ([^\[\n]+)$", opened.read(), re.MULTILINE))
    for file in sorted(root.rglob("*.wav")):
        key = str(file.relative_to(next(root.rglob("sounds/*")))).removesuffix(".wav")
        text = re.sub(f"[^{re.escape(LETTERS)}]+", " ", said.get(key, "").lower())
        if text.strip() and file.stat().st_size < SECONDS * 8000 * 2:
            yield file, text.strip()[:64]


def clothes(directory: Path, part: str) -> tuple[Tensor, Tensor]:
    """Images as the processor gives them, and labels."""
    images, labels = fashion(directory, part)
    return ((images * 90.0 + 72.9) / 127.5 - 1).expand(-1, 3, -1, -1)[:12000], labels[:12000]


def fashion_bytes(directory: Path, part: str, rows: slice) -> tuple[np.ndarray, list[int]]:
    images, labels = fashion(directory, part)
    return (images[rows, 0] * 90.0 + 72.9).round().to(torch.uint8).numpy(), labels[rows].tolist()


def processor() -> Any:
    return t.ViTImageProcessor(size={"height": SIDE, "width": SIDE})


def write_pictures(directory: Path, pictures: np.ndarray, labels: list[int]) -> list[Path]:
    """PNG files in a folder for each label."""
    shutil.rmtree(directory, ignore_errors=True)
    files = []
    for i, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        file = directory / str(label) / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(file)
        files.append(file)
    return files


SUBJECTS: dict[str, Callable[[Path, argparse.Namespace], Subject | None]] = {
    "vit": vit,
    "clip": clip,
    "t5": t5,
    "whisper": whisper,
    "minilm": sentences,
    "gemma": gemma,
}
