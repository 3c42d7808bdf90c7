"""What a whole compression takes: CPU seconds and the most memory of every phase, a process for each method.

    python -m benchmarks.compressors.cost --model smollm2 --methods auto,gptq,sparsegpt,wanda,kfac --of bytes --keep 0.4

Statistics are not read from a cache. The most resident memory is that of the kernel (`/proc/self`), set back where a
phase begins; where there is no such file it is of the process so far. `digest` is that of the compressed tensors, so
that two versions can be seen to make the same model.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.common.rows import Rows, add_option
from eckart.jobs.calibration import as_batches, calibration_text, calibration_tokens, text_of
from eckart.jobs.compress.recipe import Recipe
from eckart.jobs.compress.run import run
from eckart.jobs.evaluate.quality import evaluate
from eckart.machine import peak_rss_bytes
from eckart.models.sharing import share
from eckart.models.transformers import load_model
from eckart.progress import Laps
from eckart.statistics import cache_directory
from eckart.texts.sequences import sequences


def reset_peak() -> None:
    """From here on the kernel counts the most resident memory anew."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return


def peak() -> int:
    """Bytes, since `reset_peak` where the kernel says so."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return peak_rss_bytes() or 0
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


class Meter(Laps):
    """A clock of phases that also counts CPU seconds and the most memory of each."""

    def __init__(self) -> None:
        super().__init__()
        self.cpu: dict[str, float] = {}
        self.memory: dict[str, int] = {}
        self._cpu = time.process_time()
        reset_peak()

    def __call__(self, phase: str) -> None:
        super().__call__(phase)
        now = time.process_time()
        self.cpu[phase] = self.cpu.get(phase, 0.0) + now - self._cpu
        self.memory[phase] = max(self.memory.get(phase, 0), peak())
        self._cpu = now
        reset_peak()


def digest(model: nn.Module) -> str:
    """Of all tensors, by name."""
    found = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        found.update(name.encode())
        found.update(tensor.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()[:16]


def measured(options: argparse.Namespace, method: str) -> Mapping[str, Any]:
    """One compression in this process."""
    model, tokenizer = load_model(options.model)
    size = options.samples, options.length, options.seed
    text = calibration_text(options.calibration)
    tokens = calibration_tokens(options.calibration, text, model, tokenizer, *size, cache_directory())
    batches, info = as_batches(tokens, tokenizer, *size)
    dense = share(model)
    recipe = Recipe(
        method=method, keep=options.keep, of=options.of, samples=options.samples, length=options.length, seed=0
    )
    reset_peak()
    began, lap = peak(), Meter()
    result = run(model, recipe, batches, info, lap=lap)
    found = {
        "cpu_seconds": sum(lap.cpu.values()),
        "seconds": sum(lap.seconds.values()),
        "peak_bytes": max(lap.memory.values()),
        "peak_bytes_before": began,
        "cpu_seconds_by_phase": lap.cpu,
        "peak_bytes_by_phase": lap.memory,
        "digest": digest(model),
        "trials": [dict(trial) for trial in result.trials],
    }
    if options.judge:
        ids = sequences(tokenizer, text_of(options.judge), options.length, options.eval_samples, options.seed)
        judged = evaluate(model, ids, dense, micro_batch=4)
        found |= {"perplexity": judged.perplexity, "kl": judged.kl}
    return found


def shown(method: str, found: Mapping[str, Any]) -> str:
    """A line for the terminal."""
    phases = ", ".join(
        f"{phase} {cpu:.0f} s {found['peak_bytes_by_phase'][phase] / 1e9:.1f} GB"
        for phase, cpu in found["cpu_seconds_by_phase"].items()
    )
    quality = f", perplexity {found['perplexity']:.2f}, KL {found['kl']:.4f}" if "kl" in found else ""
    return (
        f"{method:>12} {found['cpu_seconds']:6.0f} CPU s {found['peak_bytes'] / 1e9:5.2f} GB "
        f"(before {found['peak_bytes_before'] / 1e9:.2f}) {found['digest']}{quality}\n{'':>12} {phases}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--methods", default="auto,gptq,sparsegpt,wanda,kfac")
    parser.add_argument("--of", default="bytes")
    parser.add_argument("--keep", type=float, default=0.4)
    parser.add_argument("--calibration", default="mixture")
    parser.add_argument("--judge", default="", help="a text the result is judged on; none by default")
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--eval-samples", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    add_option(parser)
    options = parser.parse_args()
    if options.here:
        sys.stdout.write(json.dumps(measured(options, options.methods)))
        return
    rows = Rows("compressors.cost", options.json)
    setting = {
        "model": Path(options.model).name,
        "of": options.of,
        "keep": options.keep,
        "calibrated on": options.calibration,
        "samples": options.samples,
        "length": options.length,
        "seed": options.seed,
        "judge": options.judge,
    }
    for method in options.methods.split(","):
        words = [f"--{name}={getattr(options, name)}" for name in ("model", "of", "keep", "calibration", "judge")]
        words += [f"--samples={options.samples}", f"--length={options.length}", f"--seed={options.seed}"]
        words += [f"--eval-samples={options.eval_samples}", f"--methods={method}", "--here"]
        command = [sys.executable, "-m", "benchmarks.compressors.cost", *words]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        rows.add({**setting, "method": method}, found)
        print(shown(method, found), flush=True)


if __name__ == "__main__":
    main()
