"""Whether a compressed model writes the same tokens through compiled products as through PyTorch, for each layout.

    OMP_NUM_THREADS=1 python -m benchmarks.inference.same_tokens [--tokens 200] [--arms WORD;WORD] [--json FILE]

smollm2 in float32, its channels in another order (`common/shuffled.py`), goes on with a prompt, each time with the
likeliest token. Where the two part, the row has how near the two likeliest logits were there, and the largest
difference of a logit between the two ways behind the same tokens: they part where the first is below twice the second.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

import eckart
from benchmarks.common.rows import Rows, add_option
from benchmarks.common.shuffled import shuffled
from eckart.jobs.calibration import text_of
from eckart.models.modules import StructuredLinear
from eckart.models.transformers import load_model
from eckart.ops.native.library import capped
from eckart.texts.sequences import sequences

PROMPT = "The history of linear algebra begins with"
ARMS: dict[str, tuple[str, dict[str, Any]]] = {
    "8 bits a row": ("rtn", {"bits": 8, "group": 1 << 20, "symmetric": True}),
    "4 bits, groups of 64": ("rtn", {"bits": 4, "group": 64}),
    "4 bits, groups of 32": ("rtn", {"bits": 4, "group": 32}),
    "3 bits, groups of 64": ("rtn", {"bits": 3, "group": 64}),
    "2 bits, groups of 64": ("rtn", {"bits": 2, "group": 64}),
    "nf4": ("nf4", {"bits": 4}),
    "codebook, 4 bits": ("codebook", {"bits": 4}),
    "codes of 2 rows, 3 bits": ("vector-codebook", {"bits": 3}),
    "mask, 50 %": ("wanda", {"percent": 50}),
    "2:4": ("wanda-semi", {"keep": 0.5, "of": "linear-parameters"}),
    "groups of 16, 50 %": ("group-sparse", {"percent": 50}),
    "groups of 16, 50 % in 4 bits": ("gqsa", {"percent": 50}),
    "4 planes of signs": ("lut-gemm", {"bits": 4}),
    "rows and combinations of them, 80 %": ("kfac", {"keep": 0.8, "of": "linear-parameters"}),
}


@torch.inference_mode()
def written(model: Any, prompt: Tensor, tokens: int, level: str) -> Tensor:
    """The tokens (prompt and answer) that are the likeliest each time, with products at most at that level."""
    with capped(level):
        found: Tensor = model.generate(
            prompt, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False, repetition_penalty=1.0
        )
    return found[0]


@torch.inference_mode()
def last_logits(model: Any, ids: Tensor, level: str) -> Tensor:
    """Those behind the last of `ids`, read one by one as they were written."""
    cache = None
    with capped(level):
        for token in ids:
            out = model(token.view(1, 1), past_key_values=cache, use_cache=True)
            cache = out.past_key_values
    found: Tensor = out.logits[0, -1]
    return found


def compared(model: nn.Module, prompt: Tensor, tokens: int) -> Mapping[str, Any]:
    ours, theirs = (written(model, prompt, tokens, level) for level in ("avx512", "off"))
    apart = (ours != theirs).nonzero()
    if not len(apart):
        return {"same": tokens, "gap": None, "difference": None}
    at = int(apart[0])
    mine, other = (last_logits(model, ours[:at], level) for level in ("avx512", "off"))
    first, second = mine.topk(2).values.tolist()
    return {
        "same": at - prompt.shape[1],
        "gap": first - second,
        "difference": float((mine - other).abs().max()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--arms", default="", help="only those whose name holds one of these words, with semicolons")
    parser.add_argument("--seed", type=int, default=0)
    add_option(parser)
    options = parser.parse_args()
    rows = Rows("inference.same_tokens", options.json)
    dense, tokenizer = load_model("smollm2", dtype=torch.float32)[:2]
    shuffled(dense, options.seed)
    dense.eval()
    read = list(sequences(tokenizer, text_of("wikipedia"), 256, 16, options.seed).split(1))
    prompt = tokenizer(PROMPT, return_tensors="pt")["input_ids"]
    print(eckart.native())
    for name, (method, scheme) in ARMS.items():
        what = {"model": "smollm2, shuffled", "arm": name, "tokens": options.tokens}
        if rows.get(what) is not None or not any(word in name for word in options.arms.split(";")):
            continue
        model = copy.deepcopy(dense)
        eckart.compress(model, method, calibration=read, embeddings=False, head=False, **scheme)
        kinds = sorted({m.structure.kind for m in model.modules() if isinstance(m, StructuredLinear)})
        row = rows.add(what, {"structures": ", ".join(kinds), **compared(model, prompt, options.tokens)})
        print(f"{name:<40}{row.found}", flush=True)


if __name__ == "__main__":
    main()
