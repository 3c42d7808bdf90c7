"""What CrossQuant as published says of a token before and after others follow it, and how many inputs become zero.

Inputs of every matrix of smollm2 over sequences of news. As published, the largest magnitudes of the inputs are those
of the batch at hand: here of a whole sequence, or of its first half alone. Frozen, they are those of other sequences.

    python -m benchmarks.compressors.crossquant
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.common.rows import Rows, add_option
from eckart.compressors.crossquant import OF_TOKENS
from eckart.jobs.calibration import text_of
from eckart.models.sites import find_sites
from eckart.models.transformers import load_model
from eckart.texts.sequences import sequences

TOP = 127


def codes(x: Tensor, largest: Tensor) -> tuple[Tensor, Tensor]:
    """Integers and steps of equation 5 for tokens x (n, in) and largest magnitudes of the inputs (in,)."""
    step = x.abs().amax(1, keepdim=True) ** OF_TOKENS * largest ** (1 - OF_TOKENS) / TOP
    return (x / step).round(), step


def by_token(x: Tensor) -> Tensor:
    return (x / (x.abs().amax(1, keepdim=True) / TOP)).round()


@torch.inference_mode()
def inputs(model: nn.Module, ids: Tensor) -> dict[str, Tensor]:
    """What every matrix is given for a sequence (1, length): (length, in)."""
    found: dict[str, Tensor] = {}
    handles = []
    for site in find_sites(model):

        def keep(_module: nn.Module, arguments: tuple[Any, ...], name: str = site.name) -> None:
            found[name] = arguments[0][0]

        handles.append(site.module.register_forward_pre_hook(keep))
    model(ids)
    for handle in handles:
        handle.remove()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sequences", type=int, default=2)
    parser.add_argument("--calibration", type=int, default=4)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    add_option(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model, tokenizer = load_model("smollm2")
    seen = sequences(tokenizer, text_of("wikipedia"), options.length, options.calibration, options.seed)
    ids = sequences(tokenizer, text_of("news"), options.length, options.sequences, options.seed)
    frozen: dict[str, Tensor] = {}
    for row in seen:
        for name, x in inputs(model, row[None]).items():
            largest = x.abs().amax(0)
            frozen[name] = torch.maximum(frozen.get(name, largest), largest)
    half, found = options.length // 2, []
    for row in ids:
        for name, x in inputs(model, row[None]).items():
            largest = x.abs().amax(0)
            (early, step), (late, other) = codes(x[:half], x[:half].abs().amax(0)), codes(x[:half], largest)
            change = (early * step - late * other).square().sum() / (early * step - x[:half]).square().sum()
            each = by_token(x), codes(x, largest)[0], codes(x, frozen[name])[0]
            zero = [(q == 0).float().mean() for q in each]
            found.append(torch.stack([(early * step != late * other).float().mean(), change, *zero]))
    changed, share, *zeros = torch.stack(found).double().mean(0).tolist()
    sizes = {name: getattr(options, name) for name in ("sequences", "calibration", "length", "seed")}
    what = {"model": "smollm2", "method": "crossquant", **sizes}
    values = {"changed": changed, "change over error": share}
    values |= dict(zip(("zero by token", "zero as published", "zero frozen"), zeros, strict=True))
    Rows("compressors.crossquant", options.json).add(what, {name: round(value, 4) for name, value in values.items()})
    print({name: round(value, 4) for name, value in values.items()})


if __name__ == "__main__":
    main()
