"""Which class of model goes into which format of `eckart export`, or the sentence that refuses it.

    PYTHONPATH=tests python -m benchmarks.models.classes [--class NAME ...] [--format NAME ...] [--json FILE]

Models are tiny, made in memory with random weights (tests/support/zoo.py), and what each format is for is made of them:
codes of 4 bits in groups of 8 inputs without zero-points for the linear maps of its blocks that such groups fill, or
for convolutions where there are no others; for `peft` and `merged` an adapter beside each matrix; for `smaller` MLPs
with units that nothing reads. Each format tries what it wrote before the directory appears.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import warnings
from functools import partial
from pathlib import Path

import torch
import transformers as t
from transformers.utils import logging

import eckart
from benchmarks.common.rows import Rows, add_option
from benchmarks.models.support import tried
from eckart.files.json import write_json
from eckart.jobs.adapt.files import TRAINING
from eckart.jobs.adapt.peft import export_adapter
from eckart.jobs.exports.contract import formats, writer
from eckart.layouts.patches import is_convolution
from eckart.models.blocks import mlps
from eckart.models.places import replace
from eckart.models.sites import Site, find_sites
from eckart.models.transformers import load
from eckart.structures import Quantized
from support import tiny
from support.directories import save_processors
from support.zoo import Make, decoder, zoo

PAIRS = t.Qwen3Config().head_dim
"""The size of heads of a Qwen 3, which GGUF's reader in transformers takes for granted."""
CLASSES: dict[str, Make] = {
    "Mistral": decoder("MistralForCausalLM", "MistralConfig"),
    "Qwen3": decoder("Qwen3ForCausalLM", "Qwen3Config", head_dim=PAIRS),
    "Gemma2": decoder("Gemma2ForCausalLM", "Gemma2Config", head_dim=4),
    **zoo(),
}
GROUP, UNREAD = 8, 8
"""Inputs that share a scale, and hidden units of an MLP that nothing reads."""
ADAPTERS = ("merged", "peft")
"""Formats of adapters."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--class", dest="classes", action="append", choices=list(CLASSES), metavar="NAME")
    parser.add_argument("--format", dest="formats", action="append", choices=list(formats()), metavar="NAME")
    add_option(parser)
    arguments = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    warnings.simplefilter("ignore")
    rows = Rows("models.classes", arguments.json)
    faults = 0
    for name in arguments.classes or CLASSES:
        for form in arguments.formats or formats():
            if not isinstance(CLASSES[name]()[0], t.PreTrainedModel):
                continue
            what = {"class": name, "format": form}
            row = rows.get(what)
            if row is None:
                with tempfile.TemporaryDirectory() as place:
                    works, says = tried(partial(exported, form), name, Path(place))
                    says = says.replace(f"{place}/", "")
                row = rows.add(what, {"works": "yes" if works else "no", "says": says})
            print(f"{name}: {form}: {row.found['says']}", flush=True)
            faults += str(row.found["says"]).startswith("FAULT")
    sys.exit(faults > 0)


def exported(form: str, name: str, place: Path) -> str:
    """What a format says of a class."""
    model, _ = CLASSES[name]()
    assert isinstance(model, t.PreTrainedModel)
    reads_words = model.main_input_name == "input_ids" and "text_config" not in model.config.sub_configs
    if reads_words:
        model.resize_token_embeddings(tiny.VOCABULARY, mean_resizing=False)
    sites = find_sites(model)
    if form == "smaller":
        for *_, last in mlps(model, {site.name: site for site in sites}):
            with torch.no_grad():
                last.weight[:, -UNREAD:] = 0
    elif form not in ADAPTERS:
        for site in list(filter(divides, sites)) or sites:
            replace(model, site, Quantized.quantize(site.weight, 4, GROUP, symmetric=True))
    source, adapter = str(place / "model"), place / "adapter"
    model.save_pretrained(source)
    if reads_words:
        tiny.tiny_tokenizer().save_pretrained(source)
    else:
        save_processors(name, model, place / "model")
    if form not in ADAPTERS:
        return writer(form)(source, place / "out")
    trained = eckart.adapt(load(source).model, "lora", rank=1)
    with torch.no_grad():
        for number in trained.trainable_parameters():
            number.add_(0.1)
    eckart.save_adapter(trained, adapter)
    write_json({"model": source}, adapter / TRAINING)
    if form == "peft":
        return f"relative error {max(export_adapter(adapter, place / 'out', None).values()):.0e}"
    return writer(form)(str(adapter), place / "out")


def divides(site: Site) -> bool:
    """Whether a matrix is a linear map of a block, with sides that `GROUP` divides."""
    inside = re.search(r"\.\d+\.", site.name) is not None
    return inside and not is_convolution(site.module) and not any(side % GROUP for side in site.shape)


if __name__ == "__main__":
    main()
