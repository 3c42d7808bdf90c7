"""The jobs of the command line: a model directory in, a model directory with its report out."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from eckart._version import __version__
from eckart.compress import Compression, Progress, Recipe, as_batches, run, silent
from eckart.evaluate import Evaluation, evaluate
from eckart.methods import Fitted
from eckart.models import hf
from eckart.models.checkpoint import read_json, write_json
from eckart.models.corpora import CORPORA, calibration_mixture, corpus
from eckart.models.output import check_target, partial_path, publish
from eckart.models.sites import model_cost
from eckart.models.text import overlap, read_text, sequences
from eckart.models.tree import share
from eckart.plan import memory_available
from eckart.report.build import write_report
from eckart.search import within_loss
from eckart.speed import file_bytes, peak_rss_bytes, speed
from eckart.statistics import cache_directory
from eckart.structures import from_spec
from eckart.summary import site_reports

STATE = "job.json"
SITES = "sites"


@dataclass(frozen=True)
class Texts:
    """What the job reads.

    Attributes:
        calibration: a file, the name of a text in `CORPORA`, or "mixture".
        evaluation: likewise; "" for no evaluation.
        eval_samples: sequences of the evaluation.
        eval_length: tokens in each.
    """

    calibration: str = "mixture"
    evaluation: str = "news"
    eval_samples: int = 16
    eval_length: int = 256


def text_of(source: str) -> str | dict[str, str]:
    """A text by file or by name; ValueError that lists the names where it is neither."""
    if source == "mixture":
        return calibration_mixture()
    if source in CORPORA:
        return corpus(source)
    if not Path(source).exists():
        raise ValueError(
            f"there is no text file {source!r}, and no text of that name: {', '.join([*CORPORA, 'mixture'])}"
        )
    return read_text(source)


def compress_directory(
    source: str,
    out: str | Path,
    recipe: Recipe,
    texts: Texts,
    *,
    max_loss: float | None = None,
    resume: bool = False,
    scheduler: str | None = None,
    cache: Path | None = None,
    measure_speed: bool = True,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Compresses a model into a new directory, with `report.json` and `report.html`, and returns the report.

    Args:
        source: see `eckart.models.hf.load_model`.
        out: the directory to make. It appears whole or not at all; work in progress is in `<out>.partial`.
        recipe: what to do.
        texts: calibration and evaluation.
        max_loss: instead of `recipe.keep`: the smallest model whose perplexity on the first half of the evaluation
            sequences rises by at most this share.
        resume: go on with the work an interrupted run left.
        scheduler: address of a Dask scheduler.
        cache: directory of statistics; None for the user's.
        measure_speed: time prefill and decoding of both models.
        progress: told of the phases.

    Raises:
        ValueError: anything that cannot be done as asked, before anything is written.
    """
    clock = time.perf_counter()
    target = Path(out)
    check_target(target)
    partial = partial_path(target)
    request = {"model": source, "recipe": asdict(recipe), "texts": asdict(texts), "max_loss": max_loss}
    _check_resume(partial, request, resume)
    if max_loss is not None and not (max_loss > 0 and texts.evaluation):
        raise ValueError(f"max_loss={max_loss} must be above 0, and needs an evaluation text")
    calibration_text = text_of(texts.calibration)
    evaluation_text = text_of(texts.evaluation) if texts.evaluation else None
    progress("load", 0, 1)
    model, tokenizer = hf.load_model(source)
    progress("load", 1, 1)
    batches, info = as_batches(calibration_text, tokenizer, recipe)
    warnings = [*_grid_warning(source, recipe)]
    held_out: Tensor | None = None
    if evaluation_text is not None:
        held_out = sequences(tokenizer, evaluation_text, texts.eval_length, texts.eval_samples, recipe.seed)
        warnings += _check_overlap(torch.cat([b for b in batches if isinstance(b, Tensor)]), held_out, texts)
    reference = share(model)
    before = {**model_cost(model), "bytes": _model_bytes(model)}
    partial.mkdir(parents=True, exist_ok=True)
    write_json(request, partial / STATE)
    seconds = {"load": time.perf_counter() - clock}
    history: list[dict[str, float]] = []
    search = None
    if max_loss is not None and held_out is not None:
        search = within_loss(max_loss, held_out[: max(1, len(held_out) // 2)], recipe, reference, history, progress)
    result = run(
        model,
        recipe,
        batches,
        info,
        cache=cache or cache_directory(),
        memory=memory_available() // 2,
        scheduler=scheduler,
        store=DirectoryStore(partial / SITES),
        search=search,
        progress=progress,
    )
    seconds |= result.seconds
    clock = time.perf_counter()
    hf.write_model(model, tokenizer, partial)
    seconds["write"] = time.perf_counter() - clock
    clock = time.perf_counter()
    quality = speeds = None
    if held_out is not None:
        evaluation = evaluate(
            model, held_out, reference, micro_batch=4, on_progress=lambda d, n: progress("evaluate", d, n)
        )
        quality = quality_report(evaluation, texts.evaluation, result)
    if measure_speed:
        progress("speed", 0, 1)
        speeds = speed({"before": reference, "after": model})
        progress("speed", 1, 1)
    seconds["evaluate"] = time.perf_counter() - clock
    report: dict[str, Any] = {
        "eckart": __version__,
        "model": source,
        "method": recipe.method,
        "allocation": recipe.allocation or result.plan.method.allocation,
        "seed": recipe.seed,
        "requested": {"max_loss": max_loss} if max_loss is not None else {"keep": recipe.keep, "of": recipe.of},
        "calibration": {"text": texts.calibration, **result.calibration},
        "size": {
            name: {"before": before[name], "after": after}
            for name, after in {**model_cost(model), "bytes": file_bytes(partial)}.items()
        },
        "quality": quality,
        "speed": speeds,
        "memory": {"peak_rss_bytes": peak_rss_bytes()},
        "seconds": seconds,
        "sites": site_reports(result),
        "warnings": warnings + result.warnings,
    }
    if history:
        report["history"] = history
    write_report(report, partial)
    shutil.rmtree(partial / SITES, ignore_errors=True)
    (partial / STATE).unlink()
    publish(partial, target)
    return report


def quality_report(evaluation: Evaluation, text: str, result: Compression | None = None) -> dict[str, Any]:
    """The `quality` part of a report."""
    reference = evaluation.reference
    quality: dict[str, Any] = {
        "metric": "perplexity",
        "text": text,
        "tokens": evaluation.tokens,
        "before": None if reference is None else {"mean": reference.perplexity, "stderr": reference.stderr},
        "after": {"mean": evaluation.perplexity, "stderr": evaluation.stderr},
        "kl": evaluation.kl,
        "top1_agreement": evaluation.agreement,
    }
    if result is not None and result.plan.method.name == "kfac":
        quality["predicted_kl"] = result.error / 2
    return quality


def _model_bytes(model: nn.Module) -> int:
    unique = {t.data_ptr(): t.numel() * t.element_size() for t in model.state_dict().values()}
    return sum(unique.values())


def _check_resume(partial: Path, request: Mapping[str, Any], resume: bool) -> None:
    if not partial.exists():
        return
    if not resume:
        raise ValueError(f"{partial} holds an interrupted run: go on with --resume, or remove it to start again")
    if not (partial / STATE).is_file():
        return
    earlier = read_json(partial / STATE)
    current = json.loads(json.dumps(request))
    for part in current:
        if earlier.get(part) != current[part]:
            raise ValueError(
                f"the run in {partial} was for {part}={earlier.get(part)!r}, not {current[part]!r}: "
                "repeat its options, or remove it to start again"
            )


def _check_overlap(calibration: Tensor, held_out: Tensor, texts: Texts) -> list[str]:
    shared = overlap(calibration, held_out)
    if shared > 0.5:
        raise ValueError(
            f"calibration text {texts.calibration!r} and evaluation text {texts.evaluation!r} are the same "
            f"({shared:.0%} of the evaluation occurs in it): what it would measure is memory, name another --eval"
        )
    if shared > 0.01:
        return [f"{shared:.1%} of the evaluation text occurs in the calibration text"]
    return []


def _grid_warning(source: str, recipe: Recipe) -> list[str]:
    if source == "smollm2" and recipe.method in ("rtn", "gptq"):
        return ["smollm2's weights lie on a 4-bit grid with groups of 32, so quantizing them again looks too good"]
    return []


class DirectoryStore:
    """Finished sites as files, each whole or absent."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def get(self, name: str, size: int) -> Fitted | None:
        file = self.directory / f"{name}.safetensors"
        if not file.is_file():
            return None
        try:
            with safe_open(file, "pt") as opened:
                entry = json.loads((opened.metadata() or {})["site"])
                tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
        except (SafetensorError, OSError, KeyError, ValueError):
            return None
        if entry["size"] != size:
            return None
        bias = tensors.pop("bias", None)
        structure = from_spec(entry["structure"], name)
        structure.load_state_dict({k.removeprefix("structure."): v for k, v in tensors.items()}, assign=True)
        return Fitted(structure, bias, float(entry["error"]))

    def put(self, name: str, size: int, fitted: Fitted) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        tensors = {f"structure.{k}": v.contiguous() for k, v in fitted.structure.state_dict().items()}
        if fitted.bias is not None:
            tensors["bias"] = fitted.bias.contiguous()
        site = json.dumps({"size": size, "error": fitted.error, "structure": fitted.structure.spec()})
        temporary = self.directory / f"{name}.tmp"
        save_file(tensors, temporary, metadata={"site": site})
        temporary.replace(self.directory / f"{name}.safetensors")
