"""What each format of `eckart export` keeps of each kind of matrix: bytes, or the sentence that refuses it.

    PYTHONPATH=tests python -m benchmarks.models.formats [--format NAME ...] [--json FILE]

A made model of the class of Llama (two blocks, hidden size 256, float32), all of whose matrices are of one kind. A cell
is the bytes of the weights by those of the dense model; each format tries what it wrote before the directory appears.
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.utils import logging

from benchmarks.common.rows import Rows, add_option
from benchmarks.models.engines import WEIGHTS
from eckart.errors import Refused
from eckart.jobs.exports.contract import formats, writer
from eckart.models.places import replace
from eckart.models.sites import find_sites
from eckart.ops.packing import normal_float
from eckart.structures import Masked, Quantized, RoundedInput, StructuredMatrix, Sum, low_rank
from support.tiny import VOCABULARY, save_tiny

RANK = 32


def factors(w: Tensor, rank: int = RANK) -> StructuredMatrix:
    u, s, vh = torch.linalg.svd(w, full_matrices=False)
    return low_rank(u[:, :rank] * s[:rank], vh[:rank].contiguous())


def beside(w: Tensor) -> StructuredMatrix:
    codes = Quantized.quantize(w, 4, 32)
    return Sum(codes, factors(w - codes.to_dense().detach(), 8))


KINDS: dict[str, Callable[[Tensor], StructuredMatrix]] = {
    "4 bits, groups of 32, symmetric": lambda w: Quantized.quantize(w, 4, 32, symmetric=True),
    "4 bits, groups of 128, zero-points": lambda w: Quantized.quantize(w, 4, 128),
    "3 bits, groups of 32, zero-points": lambda w: Quantized.quantize(w, 3, 32),
    "8 bits, a scale a row": lambda w: Quantized.quantize(w, 8, 1 << 20, symmetric=True),
    "4 bits of NF4": lambda w: Quantized.quantize(w, 4, 64, codebook=normal_float(4)),
    f"factors of rank {RANK}": factors,
    "4 bits and factors of rank 8": beside,
    "half of the entries zero": lambda w: Masked.from_dense(w, w.abs() > w.abs().median()),
    "4 bits, inputs of 8 bits": lambda w: RoundedInput(Quantized.quantize(w, 4, 32, symmetric=True)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--format", action="append", metavar="NAME", choices=list(formats()))
    add_option(parser)
    arguments = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    warnings.simplefilter("ignore")
    rows = Rows("models.formats", arguments.json)
    for form in arguments.format or formats():
        for kind in KINDS:
            what = {"kind": kind, "format": form}
            if rows.get(what) is None:
                with tempfile.TemporaryDirectory() as place:
                    works, says, share = tried(kind, form, Path(place))
                rows.add(what, {"works": "yes" if works else "no", "says": says, "share": share})
                print(what, share, says, flush=True)


def tried(kind: str, form: str, place: Path) -> tuple[bool, str, str]:
    """Whether a format says a kind, its sentence, and the share of the bytes of the dense model."""
    model = made()
    dense = sum(p.numel() * p.element_size() for p in model.parameters())
    for site in find_sites(model):
        replace(model, site, KINDS[kind](site.weight))
    source = save_tiny(place / "m", model)
    try:
        says = writer(form)(str(source), place / "o")
    except Refused as error:
        return False, str(error).replace(str(source), "MODEL"), "no"
    size = sum(file.stat().st_size for ends in (*WEIGHTS,) for file in (place / "o").glob(ends))
    return True, says, f"{size / dense:.2f}"


def made() -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        bos_token_id=0,
        eos_token_id=0,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    return LlamaForCausalLM(config).eval()


if __name__ == "__main__":
    main()
