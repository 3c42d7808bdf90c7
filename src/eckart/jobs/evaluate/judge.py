"""How good models are that do not go on with text: right labels, known answers, or how far their outputs moved."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from eckart.errors import Refused
from eckart.jobs.evaluate.quality import divergence, evaluate, evaluating, quality_of
from eckart.jobs.material import Material
from eckart.models.sentences import Sentences
from eckart.models.tasks import task_of
from eckart.models.transformers import Loaded
from eckart.progress import Progress, phase, silent
from eckart.report.types import Estimate, Quality
from eckart.statistics.batches import call
from eckart.texts.examples import IGNORED

ACCURACY, PERPLEXITY = "accuracy", "perplexity"
DRIFT = "drift of the outputs"
DRIFT_OF_EMBEDDINGS = "drift of the embeddings"


def judged(
    loaded: Loaded,
    reference: nn.Module | None,
    held_out: Material,
    text: str,
    progress: Progress = silent,
    predicted_kl: float | None = None,
) -> Quality:
    """The quality of a model on what was held out, by the measure that fits what it is for.

    Args:
        loaded: the model.
        reference: the one to compare with, if any.
        held_out: from `held_out_of`.
        text: its name.
        progress: told of the phase "evaluate".
        predicted_kl: what the divergence was predicted to be.

    Raises:
        Refused: as `evaluate` and `judge`.
    """
    if task_of(loaded.model).writes and held_out.tokens is not None:
        told = phase(progress, "evaluate")
        found = evaluate(loaded.model, held_out.tokens, reference, micro_batch=4, on_progress=told)
        return quality_of(found, text, predicted_kl)
    return judge(loaded.model, held_out.mappings, reference, text=text, sentences=loaded.sentences, progress=progress)


def judge(
    model: nn.Module,
    batches: Sequence[Mapping[str, Tensor]],
    reference: nn.Module | None = None,
    *,
    text: str = "",
    sentences: Sentences | None = None,
    progress: Progress = silent,
) -> Quality:
    """Measures a model on held-out batches, in one pass.

    With labels of whole samples: the share of them that is right (`accuracy`). With tokens as labels: the perplexity of
    the known answers. Without labels: the mean over samples of ||y - y'|| / ||y'|| with y the outputs of the model and
    y' those of the reference, padding left out (`drift of the outputs`); of a sentence encoder, of its embeddings.

    Args:
        model: of transformers.
        batches: what it is called with; `labels` in all of them or in none.
        reference: the model to compare with; needed where there are no labels.
        text: name of the data.
        sentences: what makes embeddings of the outputs of an encoder.
        progress: told of the phase "evaluate".

    Raises:
        Refused: no labels and no reference, or outputs that are not finite or that do not match.
    """
    labelled = all("labels" in batch for batch in batches)
    if not labelled and reference is None:
        raise Refused(
            f"{text} says of no sample what is right, so the outputs of a {type(model).__name__} can only be compared "
            "with those of the model it came from: name that with --against"
        )
    score: _Score = (_Labels() if batches[0]["labels"].ndim == 1 else _Answers()) if labelled else _Drift(sentences)
    with evaluating(model, reference), torch.inference_mode():
        for done, batch in enumerate(batches, 1):
            inputs = {name: tensor for name, tensor in batch.items() if name != "labels" or tensor.ndim == 2}
            outputs = _finite(call(model, inputs), "the model")
            expected = None if reference is None else _finite(call(reference, inputs), "the reference")
            score.add(outputs, expected, batch)
            progress("evaluate", done, len(batches))
    return score.quality(text)


class _Score:
    """Sums over batches."""

    def add(self, outputs: Any, expected: Any, batch: Mapping[str, Tensor]) -> None:
        raise NotImplementedError

    def quality(self, text: str) -> Quality:
        raise NotImplementedError


@dataclass
class _Labels(_Score):
    """Whether the largest logit is that of the label, of the model and of the reference, and whether both agree."""

    right: list[bool] = field(default_factory=list)
    right_before: list[bool] = field(default_factory=list)
    agreed: list[bool] = field(default_factory=list)

    def add(self, outputs: Any, expected: Any, batch: Mapping[str, Tensor]) -> None:
        found = outputs.logits.argmax(-1).cpu()
        self.right += (found == batch["labels"]).tolist()
        if expected is not None:
            before = expected.logits.argmax(-1).cpu()
            self.right_before += (before == batch["labels"]).tolist()
            self.agreed += (before == found).tolist()

    def quality(self, text: str) -> Quality:
        return Quality(
            metric=ACCURACY,
            text=text,
            tokens=len(self.right),
            before=mean(self.right_before) if self.right_before else None,
            after=mean(self.right),
            kl=None,
            top1_agreement=mean(self.agreed).mean if self.agreed else None,
        )


@dataclass
class _Answers(_Score):
    """Negative log-likelihoods of the answers of each sample, and how many tokens they have."""

    tokens: list[int] = field(default_factory=list)
    nll: list[float] = field(default_factory=list)
    nll_before: list[float] = field(default_factory=list)
    kl: float = 0.0
    agreed: int = 0

    def add(self, outputs: Any, expected: Any, batch: Mapping[str, Tensor]) -> None:
        labels = batch["labels"]
        known = labels != IGNORED
        log_q = outputs.logits.cpu().float().log_softmax(-1)
        self.tokens += known.sum(1).tolist()
        self.nll += _sums(log_q, labels, known)
        if expected is not None:
            log_p = expected.logits.cpu().float().log_softmax(-1)
            self.nll_before += _sums(log_p, labels, known)
            self.kl += float(divergence(log_p, log_q)[known].double().sum())
            self.agreed += int((log_p.argmax(-1) == log_q.argmax(-1))[known].sum())

    def quality(self, text: str) -> Quality:
        total = sum(self.tokens)
        compared = bool(self.nll_before)
        return Quality(
            metric=PERPLEXITY,
            text=text,
            tokens=total,
            before=self._perplexity(self.nll_before) if compared else None,
            after=self._perplexity(self.nll),
            kl=max(self.kl / total, 0.0) if compared else None,
            top1_agreement=self.agreed / total if compared else None,
        )

    def _perplexity(self, nll: Sequence[float]) -> Estimate:
        """exp(m) with m the mean over tokens; its error is that of a ratio of two sums over samples, to first order."""
        n, total = len(nll), sum(self.tokens)
        m = sum(nll) / total
        value = math.exp(m)
        spread = sum((s - m * t) ** 2 for s, t in zip(nll, self.tokens, strict=True))
        return Estimate(mean=value, stderr=value * math.sqrt(spread * n / (n - 1)) / total if n > 1 else None)


@dataclass
class _Drift(_Score):
    """Relative errors of the outputs, one a sample."""

    sentences: Sentences | None
    errors: list[float] = field(default_factory=list)

    def add(self, outputs: Any, expected: Any, batch: Mapping[str, Tensor]) -> None:
        mask = batch.get("attention_mask")
        y, before = (output_of(found, mask, self.sentences) for found in (outputs, expected))
        if y.shape != before.shape:
            raise Refused(f"outputs are {tuple(y.shape)}, those of the reference {tuple(before.shape)}")
        y, before = y.double(), before.double()
        if mask is not None and y.ndim == 3 and y.shape[:2] == mask.shape:
            y, before = y * mask[..., None], before * mask[..., None]
        size = before.flatten(1).norm(dim=1)
        moved = (y - before).flatten(1).norm(dim=1)
        self.errors += torch.where(moved > 0, moved / size.clamp_min(1e-300), moved).tolist()

    def quality(self, text: str) -> Quality:
        pooled = self.sentences is not None and bool(self.sentences.modes)
        return Quality(
            metric=DRIFT_OF_EMBEDDINGS if pooled else DRIFT,
            text=text,
            tokens=len(self.errors),
            before=Estimate(mean=0.0, stderr=0.0),
            after=mean(self.errors),
            kl=None,
            top1_agreement=None,
        )


def output_of(found: Any, mask: Tensor | None, sentences: Sentences | None) -> Tensor:
    """What a model says of a batch, in the memory of the CPU: a tensor whose first dimension is that of the samples."""
    if isinstance(found, Tensor):
        return found.cpu()
    hidden = getattr(found, "last_hidden_state", None)
    if sentences is not None and sentences.modes and isinstance(hidden, Tensor):
        ones = torch.ones(hidden.shape[:2], dtype=torch.long)
        return sentences.embedding(hidden.cpu(), ones if mask is None else mask)
    for name in ("logits", "logits_per_image", "last_hidden_state"):
        if isinstance(value := getattr(found, name, None), Tensor):
            return value.cpu()
    first: Tensor = found[0]
    return first.cpu()


def mean(values: Sequence[float]) -> Estimate:
    """The mean of some numbers and its standard error; None of a single one."""
    tensor = torch.tensor(values, dtype=torch.float64)
    stderr = float(tensor.std()) / math.sqrt(len(tensor)) if len(tensor) > 1 else None
    return Estimate(mean=float(tensor.mean()), stderr=stderr)


def _sums(log_p: Tensor, labels: Tensor, known: Tensor) -> list[float]:
    picked = log_p.gather(-1, labels.clamp_min(0)[..., None])[..., 0]
    sums: list[float] = (-(picked.double() * known).sum(1)).tolist()
    return sums


def _finite(outputs: Any, whose: str) -> Any:
    if not torch.isfinite(output_of(outputs, None, None)).all():
        raise Refused(f"{whose} gives NaN or infinite outputs; look for NaN in its weights, or try it in float32")
    return outputs
