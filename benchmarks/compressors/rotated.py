"""Rounding to nearest before and after a rotation of the residual stream: errors in weights and in outputs, by role.

Matrices of some layers of smollm2, whose channels are put in another order first, at 4 bits in groups of 64; outputs on
a sequence of news.

    python -m benchmarks.compressors.rotated
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.common.rows import Rows, add_option
from benchmarks.common.shuffled import shuffled
from eckart.jobs.calibration import text_of
from eckart.models.rotation import rotate
from eckart.models.sharing import share
from eckart.models.sites import find_sites
from eckart.models.transformers import load_model
from eckart.structures import Quantized
from eckart.texts.sequences import sequences

LAYERS = ("0", "1", "5", "15", "29")
BITS, GROUP = 4, 64


@torch.inference_mode()
def outputs(model: Any, ids: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """The logits, and what every matrix is given, (length, in)."""
    found: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        return lambda _module, arguments: found.__setitem__(name, arguments[0][0])

    handles = [site.module.register_forward_pre_hook(keep(site.name)) for site in find_sites(model)]
    logits: Tensor = model(ids).logits
    for handle in handles:
        handle.remove()
    return logits, found


def errors(model: nn.Module, inputs: dict[str, Tensor]) -> dict[str, dict[str, float]]:
    """Relative squared errors of outputs and weights, by role, means over `LAYERS`."""
    found = defaultdict(list)
    for site in find_sites(model):
        _, _, layer, role = site.name.split(".", 3)
        if layer not in LAYERS:
            continue
        w, x = site.weight, inputs[site.name]
        missed = w - Quantized.quantize(w, BITS, GROUP).to_dense().detach()
        of_outputs = (missed @ x.T).square().sum() / (w @ x.T).square().sum()
        found[role].append(torch.stack([of_outputs, missed.square().sum() / w.square().sum()]))
    means = {role: torch.stack(values).double().mean(0).tolist() for role, values in found.items()}
    return {role: {"outputs": round(of, 5), "weights": round(own, 5)} for role, (of, own) in means.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--length", type=int, default=96)
    parser.add_argument("--seed", type=int, default=0)
    add_option(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model, tokenizer = load_model("smollm2")
    shuffled(model, options.seed)
    turned = share(model)
    rotate(turned, options.seed)
    ids = sequences(tokenizer, text_of("news"), options.length, 1, options.seed)
    rows = Rows("compressors.rotated", options.json)
    (logits, plain), (other, rotated) = outputs(model, ids), outputs(turned, ids)
    print(f"logits of the rotated model: {float((other - logits).norm() / logits.norm()):.1e} of their norm away")
    for name, each, inputs in (("as it is", model, plain), ("rotated", turned, rotated)):
        for role, found in errors(each, inputs).items():
            rows.add({"model": "smollm2", "stream": name, "role": role, "length": options.length}, found)
            print(f"{name} {role}: outputs {found['outputs']}, weights {found['weights']}")


if __name__ == "__main__":
    main()
