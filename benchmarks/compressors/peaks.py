"""What `eckart compress` takes in memory and processor time, method by method.

    OMP_NUM_THREADS=1 python -m benchmarks.compressors.peaks [--model smollm2] [--memory GB] [--json FILE]

Each run is a process of its own: its largest resident set (`ru_maxrss`) and its processor seconds, reading the model
and writing it among them; nothing is judged. 64 sequences of 256 tokens of Wikipedia. With `--memory` the model is read
block by block where it needs more.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.common.rows import Rows, add_option

ARMS = {
    "auto": ["--method", "auto", "--of", "bytes", "--keep", "0.25"],
    "auto, embedding dense": ["--method", "auto", "--of", "bytes", "--keep", "0.4", "--no-embeddings", "--no-head"],
    "gptq": ["--method", "gptq", "--bits", "4"],
    "wanda": ["--method", "wanda", "--percent", "50"],
    "kfac": ["--method", "kfac", "--of", "linear-parameters", "--keep", "0.8"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--memory", type=float, help="GB that a run may take")
    parser.add_argument("--methods", default=";".join(ARMS), help="of the arms, with semicolons")
    add_option(parser)
    options = parser.parse_args()
    rows = Rows("compressors.peaks", options.json)
    for name in options.methods.split(";"):
        what = {"model": options.model, "arm": name, "memory": options.memory}
        if rows.get(what) is not None:
            continue
        with tempfile.TemporaryDirectory() as work:
            command = [sys.executable, "-m", "eckart", "compress", options.model, *ARMS[name], "--out", f"{work}/out"]
            command += ["--calibration", "wikipedia", "--eval", "none", "--no-speed", "-q"]
            command += [] if options.memory is None else ["--memory", str(options.memory)]
            child = subprocess.Popen(command, env={**os.environ, "ECKART_CACHE": str(Path(work, "cache"))})
            _, status, usage = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
            if child.returncode:
                raise SystemExit(f"{' '.join(command)} ended with {child.returncode}")
        found = {"peak_bytes": usage.ru_maxrss * 1024, "cpu_seconds": usage.ru_utime + usage.ru_stime}
        print(rows.add(what, found).fields, flush=True)


if __name__ == "__main__":
    main()
