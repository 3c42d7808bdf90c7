"""Models of the zoo as directories with what reads for them, and data of every kind that they read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import transformers as t
from PIL import Image
from scipy.io import wavfile
from tokenizers import Tokenizer, models, pre_tokenizers

from support.commands import WORDS, prose
from support.zoo import HIDDEN, zoo

SIDE = 16
"""Pixels of the images that the zoo sees."""


def word_tokenizer() -> t.PreTrainedTokenizerFast:
    """A tokenizer of whole words that fits the vocabulary of the zoo."""
    words = ["[PAD]", "[BOS]", "[EOS]", "[UNK]", *sorted(set(WORDS.split()))]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"pad_token": "[PAD]", "bos_token": "[BOS]", "eos_token": "[EOS]", "unk_token": "[UNK]"}
    return t.PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=64, **special)


def save_zoo(name: str, directory: Path) -> Path:
    """Writes a model of the zoo and its tokenizer or processors to a directory."""
    model = zoo()[name]()[0]
    assert isinstance(model, t.PreTrainedModel)
    model.save_pretrained(directory)
    save_processors(name, model, directory)
    return directory


def save_processors(name: str, model: t.PreTrainedModel, directory: Path) -> None:
    """Writes what reads data for a model of the zoo."""
    size = {"height": SIDE, "width": SIDE}
    if name == "CLIP":
        images = t.CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size=size)
        t.CLIPProcessor(images, word_tokenizer()).save_pretrained(directory)
    elif model.main_input_name == "pixel_values":
        t.ViTImageProcessor(size=size).save_pretrained(directory)
    else:
        word_tokenizer().save_pretrained(directory)
    if model.main_input_name == "input_features":
        sound = t.WhisperFeatureExtractor(feature_size=8, chunk_length=1, sampling_rate=16000, hop_length=666)
        sound.save_pretrained(directory)


def save_data(kind: str, directory: Path, seed: int) -> str:
    """Writes data and returns the name to give: "text", "pairs" (labelled), "images", "sounds" or "captions"."""
    directory.mkdir(parents=True)
    generator = np.random.default_rng(seed)
    lines = prose(seed, 24).splitlines()
    if kind == "text":
        (directory / "text.txt").write_text(prose(seed, 60), "utf-8")
        return str(directory / "text.txt")
    if kind == "pairs":
        rows = [{"prompt": line, "response": line[:20], "label": i % 3} for i, line in enumerate(lines)]
        return _lines(rows, directory / "pairs.jsonl")
    if kind == "sounds":
        for i in range(6):
            samples = generator.integers(-9000, 9000, 4000 + 500 * i, dtype=np.int16)
            wavfile.write(directory / f"{i}.wav", 8000, samples)
            (directory / f"{i}.txt").write_text(lines[i][:20], "utf-8")
        return str(directory)
    for i in range(12):
        file = directory / str(i % 3) / f"{i}.png"
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(generator.integers(0, 255, (HIDDEN + 4, HIDDEN + 8, 3), dtype=np.uint8)).save(file)
    if kind == "images":
        return str(directory)
    return _lines([{"text": lines[i], "image": f"{i % 3}/{i}.png"} for i in range(12)], directory / "captions.jsonl")


def _lines(rows: list[dict[str, object]], file: Path) -> str:
    file.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    return str(file)
