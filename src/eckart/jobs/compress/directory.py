"""The jobs of the command line: a model directory in, a model directory with its report out."""

from __future__ import annotations

import math
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from eckart._version import __version__
from eckart.compressors.contract import METHODS
from eckart.errors import Refused
from eckart.files.directories import check_target, partial_path, publish
from eckart.jobs.calibration import as_batches, calibration_text, calibration_tokens, text_of
from eckart.jobs.compress.plan import memory_available
from eckart.jobs.compress.recipe import Recipe
from eckart.jobs.compress.run import Compression, needs_data, run, sites_of
from eckart.jobs.compress.search import within_loss
from eckart.jobs.compress.summary import site_reports
from eckart.jobs.evaluate.quality import Evaluation, evaluate
from eckart.jobs.evaluate.speed import file_bytes, peak_rss_bytes, speed
from eckart.jobs.resume import SITES, STATE, DirectoryStore, check_resume, clear
from eckart.machine import check_scheduler
from eckart.models import transformers as hf
from eckart.models.checkpoint import write_json
from eckart.models.fused_experts import unfuse
from eckart.models.sites import model_cost
from eckart.models.tree import share
from eckart.progress import Progress, silent
from eckart.report.build import write_report
from eckart.statistics import cache_directory
from eckart.statistics.cache import finite_weights, key
from eckart.texts.sequences import overlap, sequences


@dataclass(frozen=True)
class Texts:
    """What the job reads.

    Attributes:
        calibration: see `eckart.jobs.calibration.calibration_tokens`.
        evaluation: a file or the name of a text in `CORPORA`; "" for no evaluation.
        eval_samples: sequences of the evaluation.
        eval_length: tokens in each.
    """

    calibration: str = "mixture"
    evaluation: str = "news"
    eval_samples: int = 16
    eval_length: int = 256

    def __post_init__(self) -> None:
        if self.evaluation and (self.eval_samples < 1 or self.eval_length < 2):
            raise Refused(
                f"eval_samples={self.eval_samples} and eval_length={self.eval_length} must be at least 1 and 2"
            )


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
    memory: int | None = None,
    measure_speed: bool = True,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Compresses a model into a new directory, with `report.json` and `report.html`, and returns the report.

    Args:
        source: see `eckart.models.transformers.load_model`.
        out: the directory to make. It appears whole or not at all; work in progress is in `<out>.partial`.
        recipe: what to do.
        texts: calibration and evaluation.
        max_loss: instead of `recipe.keep`: the smallest model whose perplexity on the first half of the evaluation
            sequences rises by at most this share.
        resume: go on with the work an interrupted run left.
        scheduler: address of a Dask scheduler.
        cache: directory of statistics; None for the user's.
        memory: bytes the statistics may take in one pass; None for half of what is free.
        measure_speed: time prefill and decoding of both models.
        progress: told of the phases.

    Raises:
        Refused: anything that cannot be done as asked, before anything is written.
    """
    clock = time.perf_counter()
    cache = cache or cache_directory()
    target = Path(out)
    check_target(target)
    partial = partial_path(target)
    request = {"model": source, "recipe": asdict(recipe), "texts": asdict(texts), "max_loss": max_loss}
    check_resume(partial, request, resume)
    if max_loss is not None and not (0 < max_loss < math.inf and texts.evaluation):
        raise Refused(f"max_loss={max_loss} must be above 0 and finite, and needs an evaluation text")
    if memory is not None and memory < 1:
        raise Refused(f"memory={memory} must be at least one byte")
    if scheduler is not None:
        check_scheduler(scheduler)
    text, evaluation_text = read_texts(texts, needs_data(recipe))
    progress("load", 0, 1)
    model, tokenizer = hf.load_model(source)
    progress("load", 1, 1)
    check_length(model, max(recipe.length, texts.eval_length if evaluation_text is not None else 0))
    reference = share(model)
    unfuse(model)
    sites_of(model, recipe)
    finite_weights({"": model})
    warnings = [*_grid_warning(source, recipe)]
    held_out: Tensor | None = None
    if evaluation_text is not None:
        held_out = sequences(tokenizer, evaluation_text, texts.eval_length, texts.eval_samples, recipe.seed)
    seconds = {"load": time.perf_counter() - clock}
    clock = time.perf_counter()
    tokens = None
    if text is not None:
        size = recipe.samples, recipe.length, recipe.seed
        tokens = calibration_tokens(texts.calibration, text, model, tokenizer, *size, cache, progress)
        if held_out is not None:
            warnings += check_overlap(tokens, held_out, texts)
    batches, info = as_batches(tokens, tokenizer, recipe.samples, recipe.length, recipe.seed)
    seconds["calibration"] = time.perf_counter() - clock
    request["inputs"] = key(model, [], [], batches, recipe.seed)
    check_resume(partial, request, resume)
    before = {**model_cost(model), "bytes": model_bytes(model)}
    partial.mkdir(parents=True, exist_ok=True)
    clear(partial)
    write_json(request, partial / STATE)
    history: list[dict[str, Any]] = []
    search = None
    if max_loss is not None and held_out is not None:
        search = within_loss(max_loss, held_out[: max(1, len(held_out) // 2)], recipe, reference, history, progress)
    try:
        result = run(
            model,
            recipe,
            batches,
            info,
            cache=cache,
            memory=memory_available() // 2 if memory is None else memory,
            scheduler=scheduler,
            store=DirectoryStore(partial / SITES),
            search=search,
            progress=progress,
        )
    except Refused:
        if not (partial / SITES).exists():
            shutil.rmtree(partial)  # nothing in it to go on from
        raise
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
        speeds = speed({"before": reference, "after": model}, **speed_lengths(model))
        progress("speed", 1, 1)
    seconds["evaluate"] = time.perf_counter() - clock
    report: dict[str, Any] = {
        "eckart": __version__,
        "model": source,
        "method": recipe.method,
        "allocation": recipe.allocation or result.plan.method.allocation,
        "seed": recipe.seed,
        "requested": {"max_loss": max_loss} if max_loss is not None else {"keep": recipe.keep, "of": recipe.of},
        "calibration": None if tokens is None else {"text": texts.calibration, **result.calibration},
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
    if result.trials:
        report["trials"] = result.trials
    if (healing := result.healing) is not None:
        report["heal"] = {
            "steps": healing.steps,
            "loss_before": list(healing.before),
            "loss_after": list(healing.after),
        }
    if (distillation := result.distillation) is not None:
        report["distill"] = {"steps": distillation.steps, "kl": list(distillation.kl)}
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
    if result is not None and result.plan.method.predicts_loss:
        quality["predicted_kl"] = result.error / 2
    return quality


def _context(model: nn.Module) -> int | None:
    config: Any = model.config
    context: int | None = getattr(config.get_text_config(), "max_position_embeddings", None)
    return context


def check_length(model: nn.Module, length: int) -> None:
    """Raises Refused where sequences are longer than the model's context."""
    context = _context(model)
    if context is not None and length > context:
        raise Refused(f"sequences of {length} tokens do not fit the model's context of {context}: lower --length")


def speed_lengths(model: nn.Module) -> dict[str, int]:
    """Lengths for `speed` that fit the model's context."""
    context = _context(model) or 288
    decode = max(1, min(32, context // 2))
    return {"prefill_tokens": max(1, min(256, context - decode)), "decode_tokens": decode}


def model_bytes(model: nn.Module) -> int:
    """Bytes of all tensors of a model, shared ones counted once."""
    unique = {t.data_ptr(): t.numel() * t.element_size() for t in model.state_dict().values()}
    return sum(unique.values())


def read_texts(texts: Texts, calibrated: bool = True) -> tuple[str | dict[str, str] | None, str | None]:
    """Calibration and evaluation text, each None where there is to be none; Refused where they are the same."""
    text = calibration_text(texts.calibration) if calibrated else None
    evaluation_text = text_of(texts.evaluation) if texts.evaluation else None
    if evaluation_text and evaluation_text in (text.values() if isinstance(text, dict) else [text]):
        raise Refused(
            f"calibration text {texts.calibration!r} and evaluation text {texts.evaluation!r} are the same: what it "
            "would measure is memory, name another --eval"
        )
    return text, evaluation_text


def check_overlap(calibration: Tensor, held_out: Tensor, texts: Texts) -> list[str]:
    """Warnings of how much the tokens share; Refused where that is most of the evaluation."""
    shared = overlap(calibration, held_out)
    if shared > 0.5:
        raise Refused(
            f"calibration text {texts.calibration!r} and evaluation text {texts.evaluation!r} are the same "
            f"({shared:.0%} of the evaluation occurs in it): what it would measure is memory, name another --eval"
        )
    if shared > 0.01:
        return [f"{shared:.1%} of the evaluation text occurs in the calibration text"]
    return []


def _grid_warning(source: str, recipe: Recipe) -> list[str]:
    if (source == "smollm2" or source.endswith(".gguf")) and METHODS.find(recipe.method).size == "bits":
        return [f"the weights of {source} were quantized before, so quantizing them again may look too good"]
    return []
