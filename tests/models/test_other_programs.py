"""Compressed directories in programs that know nothing of eckart: `import eckart` stands before theirs, no more."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from scipy.stats import spearmanr
from sentence_transformers import SentenceTransformer
from transformers import AutoModelForCausalLM, AutoTokenizer

import eckart
from support.tiny import tiny_llama, tiny_tokenizer

pytestmark = pytest.mark.filterwarnings("ignore")
TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
ROWS = [
    {"question": "the cat sat on the", "choices": ["mat", "dog"], "answer": 0},
    {"question": "a dog looked at", "choices": ["numbers", "the cat"], "answer": 1},
    {"question": "numbers and", "choices": ["mat", "letters"], "answer": 0},
]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model: Any = tiny_llama()
    eckart.compress(model, "svd", keep=0.7, of="linear-parameters")
    path = tmp_path_factory.mktemp("compressed") / "model"
    model.save_pretrained(path)
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token, tokenizer.chat_template = tokenizer.eos_token, TEMPLATE
    tokenizer.save_pretrained(path)
    return path


def test_lm_evaluation_harness(directory: Path, tmp_path: Path) -> None:
    lm_eval = pytest.importorskip("lm_eval")
    from lm_eval.tasks import TaskManager

    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    task = {
        "task": "picking",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(tmp_path / "rows.jsonl")}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{answer}}",
        "metric_list": [{"metric": "acc"}],
    }
    (tmp_path / "picking.yaml").write_text(json.dumps(task))
    manager = TaskManager(include_path=str(tmp_path), include_defaults=False)
    found = lm_eval.simple_evaluate(
        "hf",
        f"pretrained={directory},dtype=float32",
        ["picking"],
        task_manager=manager,
        device="cpu",
        bootstrap_iters=0,
    )
    model, tokenizer = AutoModelForCausalLM.from_pretrained(directory), AutoTokenizer.from_pretrained(directory)

    def likelihood(row: dict[str, Any], choice: str) -> float:
        begins = len(tokenizer(row["question"])["input_ids"])
        ids = torch.tensor([tokenizer(f"{row['question']} {choice}")["input_ids"]])
        with torch.no_grad():
            steps = model(ids).logits.log_softmax(-1)[0, :-1].gather(1, ids[0, 1:, None])
        return float(steps[begins - 1 :].sum())

    right = [max((0, 1), key=lambda i: likelihood(row, row["choices"][i])) == row["answer"] for row in ROWS]
    assert found["results"]["picking"]["acc,none"] == pytest.approx(sum(right) / len(right))


def test_mteb(directory: Path) -> None:
    mteb = pytest.importorskip("mteb")
    from mteb.abstasks.sts import AbsTaskSTS

    pairs = {
        "sentence1": ["the cat sat", "a dog", "numbers", "the mat", "letters"],
        "sentence2": ["the cat looked", "numbers", "letters", "the mat", "a dog sat"],
        "score": [4.0, 1.0, 3.0, 5.0, 0.0],
    }
    nothing = dict.fromkeys(
        [
            "reference",
            "date",
            "domains",
            "task_subtypes",
            "license",
            "annotations_creators",
            "dialect",
            "sample_creation",
            "bibtex_citation",
        ]
    )

    class Few(AbsTaskSTS):
        metadata = mteb.TaskMetadata(
            name="Few", description="few", type="STS", category="t2t", modalities=["text"], eval_splits=["test"],
            eval_langs=["eng-Latn"], main_score="cosine_spearman", dataset={"path": "few", "revision": "1"}, **nothing,
        )  # fmt: skip

        def load_data(self, *_: Any, **__: Any) -> None:
            self.dataset, self.data_loaded = {"default": {"test": Dataset.from_dict(pairs)}}, True

    embedder = SentenceTransformer(str(directory), device="cpu")
    found = mteb.evaluate(embedder, Few(), cache=None, show_progress_bar=False)
    first, second = (embedder.encode(pairs[f"sentence{i}"], convert_to_tensor=True) for i in (1, 2))
    expected = spearmanr(torch.cosine_similarity(first, second), pairs["score"]).statistic
    (scores,) = found.task_results[0].scores["test"]
    assert scores["cosine_spearman"] == pytest.approx(expected, abs=1e-6)


SERVE = "import eckart; from transformers.cli.transformers import main; main()"


def test_transformers_serve(directory: Path) -> None:
    for package in "fastapi", "uvicorn", "openai":
        pytest.importorskip(package)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = f"http://127.0.0.1:{port}"
    words = ["serve", str(directory), "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    offline = {**os.environ, "HF_HUB_OFFLINE": "1"}
    with subprocess.Popen([sys.executable, "-c", SERVE, *words], env=offline) as server:
        try:
            for _ in range(600):
                try:
                    urllib.request.urlopen(f"{place}/health", timeout=5).close()
                    break
                except OSError:
                    assert server.poll() is None
                    time.sleep(0.5)
            asked = {
                "model": str(directory),
                "messages": [{"role": "user", "content": "the cat sat"}],
                "max_tokens": 5,
                "temperature": 0.0,
            }
            request = urllib.request.Request(
                f"{place}/v1/chat/completions", json.dumps(asked).encode(), {"Content-Type": "application/json"}
            )
            with urllib.request.urlopen(request, timeout=300) as answer:
                said = json.load(answer)["choices"][0]["message"]["content"]
        finally:
            server.terminate()
    model, tokenizer = AutoModelForCausalLM.from_pretrained(directory), AutoTokenizer.from_pretrained(directory)
    ids = tokenizer("the cat sat", return_tensors="pt")["input_ids"]
    expected = model.generate(ids, max_new_tokens=5, do_sample=False)[0, ids.shape[1] :]
    assert said == tokenizer.decode(expected, skip_special_tokens=True)
