"""One sentence from a model and from its compressed copy, loaded like any other transformers model.

eckart compress smollm2 --keep 0.4 --samples 16 --out demo-out/model
python examples/demo.py demo-out/model
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

import eckart  # noqa: F401  (registers the loader, so that from_pretrained reads compressed models)
from eckart.models.transformers import load_model


@torch.inference_mode()
def continued(model: Any, tokenizer: Any, prompt: str, tokens: int) -> str:
    """The prompt and what the model finds most likely after it."""
    inputs = tokenizer(prompt, return_tensors="pt")
    output = model.generate(**inputs, max_new_tokens=tokens, do_sample=False, pad_token_id=tokenizer.eos_token_id)
    text: str = tokenizer.decode(output[0], skip_special_tokens=True)
    return " ".join(text.split())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("compressed", type=Path, help="a directory that eckart compress wrote")
    parser.add_argument("--prompt", default="The Moon goes around the Earth because")
    parser.add_argument("--tokens", type=int, default=24, help="tokens to write (default: %(default)s)")
    arguments = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()

    report = json.loads((arguments.compressed / "report.json").read_text(encoding="utf-8"))
    original, tokenizer = load_model(report["model"])
    first = continued(original, tokenizer, arguments.prompt, arguments.tokens)
    del original

    compressed = AutoModelForCausalLM.from_pretrained(arguments.compressed)
    tokenizer = AutoTokenizer.from_pretrained(arguments.compressed)
    second = continued(compressed, tokenizer, arguments.prompt, arguments.tokens)

    size = report["size"]["bytes"]
    print(f"\noriginal   ({size['before'] / 1e6:,.0f} MB): {first}")
    print(f"compressed ({size['after'] / 1e6:,.0f} MB): {second}")


if __name__ == "__main__":
    main()
