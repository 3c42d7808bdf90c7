"""What eckart does with each class of model that people bring: it works, or a sentence says why not.

    PYTHONPATH=tests python -m benchmarks.models.support [--class NAME ...] [--json FILE]

Models are tiny, made in memory with random weights (tests/support/zoo.py). Every step is held to what it promises: a
compressed model keeps its budget, a saved one gives the same outputs in a process of its own, an adapter trains, and
PEFT computes with it what eckart does. A step that is refused is a row with the sentence; anything else that goes wrong
is a fault, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils import logging

import eckart
from benchmarks.common.rows import Rows, add_option
from eckart.cli.app import main as main_of_eckart
from eckart.models.sites import model_bytes
from eckart.models.tasks import task_of
from support.directories import save_data, save_zoo
from support.zoo import outputs, zoo

METHODS = ("kfac", "wanda", "gptq", "auto")
KEEP = 0.9
"""Of the bytes: embeddings are most of a tiny model."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--class", dest="classes", action="append", choices=list(zoo()), metavar="NAME")
    add_option(parser)
    arguments = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    rows = Rows("models.support", arguments.json)
    faults = 0
    for name in arguments.classes or zoo():
        for step, found in steps(name, rows):
            print(f"{name}: {step}: {found}", flush=True)
            faults += found.startswith("FAULT")
    sys.exit(faults > 0)


def steps(name: str, rows: Rows) -> Iterator[tuple[str, str]]:
    """Every step of a class, and what came of it."""
    for step, run in STEPS.items():
        what = {"class": name, "step": step}
        row = rows.get(what)
        if row is None:
            with tempfile.TemporaryDirectory() as place, warnings.catch_warnings():
                warnings.simplefilter("ignore")
                works, says = tried(run, name, Path(place))
            row = rows.add(what, {"works": "yes" if works else "no", "says": says})
        yield step, row.found["says"]


def tried(run: Callable[[str, Path], str], name: str, place: Path) -> tuple[bool, str]:
    """Whether a step works, and what it says: of itself, or the sentence that refuses it, or the fault that it is."""
    try:
        return True, run(name, place)
    except eckart.Refused as error:
        return False, str(error)
    except Exception as error:  # noqa: BLE001  (whatever it is, it is what the row is about)
        return False, f"FAULT: {type(error).__name__}: {error}"


def compressed(method: str) -> Callable[[str, Path], str]:
    def run(name: str, place: Path) -> str:
        model, batch = zoo()[name]()
        before = model_bytes(model)
        result = eckart.compress(model, method, keep=KEEP, of="bytes", calibration=[batch])
        with torch.no_grad():
            check(bool(outputs(model, batch).isfinite().all()), "outputs are not finite")
        kept = model_bytes(model) / before
        check(kept <= KEEP, f"{kept:.3f} of the bytes are kept, not {KEEP}")
        return result.coverage.sentence

    return run


def saved(name: str, place: Path) -> str:
    """A compressed model in a process of its own."""
    model, batch = zoo()[name]()
    eckart.compress(model, "svd", keep=0.7, of="linear-parameters")
    if isinstance(model, PreTrainedModel):
        model.save_pretrained(place / "model")
    else:
        eckart.save(model, place / "model")
    with torch.no_grad():
        torch.save(outputs(model, batch), place / "expected.pt")
    again = subprocess.run([sys.executable, "-c", AGAIN, name, str(place)], capture_output=True, text=True, check=False)
    check(again.returncode == 0, again.stderr[-300:])
    return "same outputs"


AGAIN = """
import sys, torch, eckart
from transformers import PreTrainedModel
from transformers.utils import logging
from support.zoo import outputs, zoo
logging.disable_progress_bar()
name, place = sys.argv[1:]
model, batch = zoo()[name]()
if isinstance(model, PreTrainedModel):
    model = type(model).from_pretrained(place + "/model")
else:
    eckart.load(place + "/model", model)
with torch.no_grad():
    torch.testing.assert_close(outputs(model, batch), torch.load(place + "/expected.pt"))
"""


def adapted(name: str, place: Path) -> str:
    """An adapter that is trained for three steps, saved, and loaded beside another copy of the base."""
    model, batch = zoo()[name]()
    adapter = eckart.adapt(model, "lora", rank=1)
    before = train(model, batch, adapter.trainable_parameters())
    eckart.save_adapter(adapter, place / "adapter")
    other, _ = zoo()[name]()
    eckart.load_adapter(other, place / "adapter")
    same(other, model, batch)
    return f"three steps change the outputs by {before:.0%}"


def to_peft(name: str, place: Path) -> str:
    """An adapter of eckart in PEFT."""
    model, batch = zoo()[name]()
    adapter = eckart.adapt(model, "lora", rank=1)
    train(model, batch, adapter.trainable_parameters())
    eckart.save_peft(adapter, place / "adapter")
    other, _ = zoo()[name]()
    same(PeftModel.from_pretrained(other, place / "adapter").eval(), model, batch)
    return "same outputs"


def from_peft(name: str, place: Path) -> str:
    """An adapter of PEFT in eckart."""
    model, batch = zoo()[name]()
    names = list(eckart.adapt(zoo()[name]()[0], "lora", rank=1).places)
    pattern = "|".join(each.replace(".", r"\.") for each in names)
    config = LoraConfig(r=1, target_modules=f"^({pattern})$", init_lora_weights=False)
    try:
        theirs: Any = get_peft_model(model, config)
    except ValueError as error:
        raise eckart.Refused(f"refused by PEFT itself: {error}") from error
    theirs.eval().save_pretrained(place / "adapter")
    with torch.no_grad(), theirs.disable_adapter():
        without = outputs(theirs, batch)
    with torch.no_grad():
        if torch.equal(outputs(theirs, batch), without):
            raise eckart.Refused("PEFT's own factors are not in effect here: torch's fused kernels go past them")
    other, _ = zoo()[name]()
    eckart.load_adapter(other, place / "adapter")
    same(other, theirs, batch)
    return "same outputs"


def diagnosed(name: str, place: Path) -> str:
    model, _ = zoo()[name]()
    found = eckart.diagnose(model)
    check(bool(found.rows) and found.coverage is not None, "no matrix was looked at")
    return f"{len(found.rows)} matrices"


def command_line(name: str, place: Path) -> str:
    """A directory through compress, evaluate, diagnose and export."""
    model, _ = zoo()[name]()
    if not isinstance(model, PreTrainedModel):
        raise eckart.Refused("not a model of transformers: it has no directory that the command line reads")
    task = task_of(model)
    kind = "pairs" if task.answers and task.reads == ("text",) else KINDS[task.reads]
    source = save_zoo(name, place / "model")
    data, held = (save_data(kind, place / side, seed) for seed, side in enumerate(("data", "held")))
    few = ["--samples", "6", "--length", "12", "-q", "--no-speed"]
    sides = ["--calibration", data, "--eval", held, "--eval-samples", "4"]
    out, dense = str(place / "out"), str(place / "dense")
    for command in (
        ["compress", str(source), "--out", out, "--method", "svd", *sides, *few],
        ["evaluate", out, "--against", str(source), "--text", held, *few],
        ["diagnose", out, "-q"],
        ["export", out, "--to", "dense", "--out", dense],
    ):
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            status = main_of_eckart(command)
        if status == 2:
            raise eckart.Refused(" ".join(said.getvalue().split()))
        check(status == 0, f"eckart {command[0]} ends with {status}: {said.getvalue()[-300:]}")
    quality = json.loads((place / "out" / "report.json").read_text())["quality"]
    return f"judged by {quality['metric']}"


KINDS = {("text",): "text", ("image",): "images", ("sound",): "sounds", ("text", "image"): "captions"}
"""What there is to read, by what a model reads."""


def train(model: nn.Module, batch: Any, parameters: list[nn.Parameter]) -> float:
    """Three steps towards smaller outputs; returns by how much those changed, relatively."""
    with torch.no_grad():
        before = outputs(model, batch)
    optimizer = torch.optim.Adam(parameters, lr=0.05)
    for _ in range(3):
        loss = outputs(model, batch).square().mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    with torch.no_grad():
        change = float((outputs(model, batch) - before).norm() / before.norm())
    check(change > 1e-4, f"training changed the outputs by {change:.1e} only")
    return change


@torch.no_grad()
def same(ours: nn.Module, theirs: nn.Module, batch: Any) -> None:
    expected: Tensor = outputs(theirs, batch)
    error = float((outputs(ours, batch) - expected).norm() / expected.norm())
    check(error < 1e-4, f"outputs differ by {error:.1e}")


def check(holds: bool, otherwise: str) -> None:
    if not holds:
        raise AssertionError(otherwise)


STEPS: dict[str, Callable[[str, Path], str]] = {
    **{method: compressed(method) for method in METHODS},
    "save and load": saved,
    "adapt": adapted,
    "to PEFT": to_peft,
    "from PEFT": from_peft,
    "diagnose": diagnosed,
    "command line": command_line,
}


if __name__ == "__main__":
    main()
