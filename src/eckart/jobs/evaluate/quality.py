"""How good a language model is: perplexity, and distance to another model."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from eckart.errors import Refused
from eckart.machine import memory_available
from eckart.models.presence import present
from eckart.ops.wide_products import WideProducts
from eckart.report.numbers import shown_number
from eckart.report.shown import Glance, Shown
from eckart.report.types import Estimate, Quality
from eckart.statistics.batches import device_of

Reference = nn.Module | Callable[[Tensor], Tensor]

TOGETHER = 4
"""Sequences of a trial in one forward pass."""
SHARE = 8
"""Of the memory there is, the logits of the dense model may take this part."""

# Positions whose log-probabilities exist in float32 at a time, so that a large vocabulary costs one logit tensor only.
_POSITIONS = 128


@dataclass(frozen=True, repr=False)
class Evaluation(Shown):
    """Quality of a language model on token sequences.

    Attributes:
        perplexity: exp of `nll`.
        stderr: its standard error over sequences, to first order; None for a single sequence.
        nll: mean negative log-likelihood of the predicted tokens, nats.
        tokens: number of predicted tokens, one fewer than there are in each sequence.
        sequences: number of sequences.
        kl: mean of KL(reference || model) over the predicted tokens, nats; None without a reference.
        agreement: share of the predicted tokens for which both rank the same token first; likewise.
        reference: quality of the reference on the same tokens; likewise.
    """

    perplexity: float
    stderr: float | None
    nll: float
    tokens: int
    sequences: int
    kl: float | None = None
    agreement: float | None = None
    reference: Evaluation | None = None

    def glance(self) -> Glance:
        """Perplexity, and the distance to the reference."""

        def uncertain(found: Evaluation) -> str:
            return shown_number(found.perplexity) + ("" if found.stderr is None else f" ± {found.stderr:.2g}")

        rows = [("perplexity", uncertain(self))]
        if self.reference is not None:
            rows.append(("perplexity of the reference", uncertain(self.reference)))
        if self.kl is not None:
            rows.append(("divergence from it, nats a token", shown_number(self.kl)))
        if self.agreement is not None:
            rows.append(("same next token", f"{self.agreement:.1%}"))
        return Glance(f"Evaluation on {self.tokens} tokens", rows)


def quality_of(evaluation: Evaluation, text: str, predicted_kl: float | None = None) -> Quality:
    """What a report says of an evaluation on a text, beside the divergence that was predicted."""
    reference = evaluation.reference
    return Quality(
        metric="perplexity",
        text=text,
        tokens=evaluation.tokens,
        before=None if reference is None else Estimate(mean=reference.perplexity, stderr=reference.stderr),
        after=Estimate(mean=evaluation.perplexity, stderr=evaluation.stderr),
        kl=evaluation.kl,
        top1_agreement=evaluation.agreement,
        predicted_kl=predicted_kl,
    )


def perplexity(nll: Tensor) -> tuple[float, float | None]:
    """Perplexity and its standard error from the mean negative log-likelihoods of sequences of one length.

    P = exp(m) with m the mean over n sequences; the delta method gives stderr(P) = P s / sqrt(n), s the sample standard
    deviation of the sequences' means.

    Args:
        nll: (n,), nats a token.

    Returns:
        Perplexity, and its standard error or None where n = 1.
    """
    if nll.ndim != 1 or not len(nll):
        raise Refused(f"perplexity needs one number a sequence, got shape {tuple(nll.shape)}")
    nll = nll.double()
    value = float(nll.mean().exp())
    return value, (value * float(nll.std()) / math.sqrt(len(nll)) if len(nll) > 1 else None)


def divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p || q) = sum_v p_v (log p_v - log q_v) in nats, of log-probabilities (..., vocabulary): (...)."""
    terms = log_p.exp() * (log_p - log_q)
    return torch.where(log_p.isneginf(), torch.zeros_like(terms), terms).sum(-1)


def evaluate(
    model: nn.Module,
    sequences: Tensor,
    reference: Reference | None = None,
    *,
    micro_batch: int = 1,
    on_progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Measures a causal language model on token sequences, in one pass.

    Logits of one micro-batch exist at a time, those of the reference beside them.

    Args:
        model: a transformers causal language model.
        sequences: (n, length), int64, length at least two.
        reference: the model to compare with, or a function from tokens (b, length), int64, to its logits or
            log-probabilities (b, length, vocabulary).
        micro_batch: sequences in one forward pass.
        on_progress: called with the sequences done and their total after each micro-batch.

    Raises:
        Refused: sequences are malformed, too long or hold numbers outside the vocabulary; logits are NaN or
            infinite; the reference has another vocabulary.
    """
    _check(model, sequences, micro_batch)
    if isinstance(reference, nn.Module):
        _check(reference, sequences, micro_batch, "the reference")
    total, length = sequences.shape
    nll: list[Tensor] = []
    reference_nll: list[Tensor] = []
    kl, agreed = 0.0, 0
    with evaluating(model, reference), torch.inference_mode(), WideProducts():
        for start in range(0, total, micro_batch):
            ids = sequences[start : start + micro_batch]
            logits = logits_of(model, ids)
            expected = None if reference is None else logits_of(reference, ids)
            if expected is not None and expected.shape != logits.shape:
                shapes = f"{tuple(expected.shape)}, those of the model {tuple(logits.shape)}"
                raise Refused(f"logits of the reference are {shapes}; both need the same vocabulary")
            losses, reference_losses = torch.zeros(2, len(ids), dtype=torch.float64)
            for i in range(0, length - 1, _POSITIONS):
                span = slice(i, min(i + _POSITIONS, length - 1))
                log_q = _log_softmax(logits[:, span], "the model")
                labels = ids[:, i + 1 : span.stop + 1].to(log_q.device)
                losses -= log_q.gather(-1, labels[..., None]).cpu().double().sum((1, 2))
                if expected is not None:
                    log_p = _log_softmax(expected[:, span].to(log_q.device), "the reference")
                    reference_losses -= log_p.gather(-1, labels[..., None]).cpu().double().sum((1, 2))
                    kl += float(divergence(log_p, log_q).cpu().double().sum())
                    agreed += int((log_p.argmax(-1) == log_q.argmax(-1)).sum())
            nll.append(losses / (length - 1))
            reference_nll.append(reference_losses / (length - 1))
            del logits, expected
            if on_progress is not None:
                on_progress(start + len(ids), total)
    tokens = total * (length - 1)
    result = _evaluation(torch.cat(nll), tokens)
    if reference is None:
        return result
    # Rounding may take a divergence of zero just below it.
    return replace(
        result,
        kl=max(kl / tokens, 0.0),
        agreement=agreed / tokens,
        reference=_evaluation(torch.cat(reference_nll), tokens),
    )


def _evaluation(means: Tensor, tokens: int) -> Evaluation:
    value, stderr = perplexity(means)
    return Evaluation(value, stderr, nll=float(means.mean()), tokens=tokens, sequences=len(means))


def logits_of(model: Reference, ids: Tensor) -> Tensor:
    """What a model, or a function in its place, says of tokens (b, length): (b, length, vocabulary)."""
    if not isinstance(model, nn.Module):
        return model(ids)
    logits: Tensor = model(input_ids=ids.to(device_of(model)), use_cache=False).logits
    return logits


def remembered(model: nn.Module, sequences: Tensor) -> Reference:
    """The dense model as what trials are compared with, its logits computed once where there is memory for them."""
    vocabulary = config_of(model).vocab_size
    if 4 * sequences.numel() * vocabulary > memory_available() // SHARE:
        return model
    known: dict[bytes, Tensor] = {}

    def logits(tokens: Tensor) -> Tensor:
        key = tokens.numpy(force=True).tobytes()
        if key not in known:
            known[key] = logits_of(model, tokens)
        return known[key]

    return logits


def _log_softmax(logits: Tensor, whose: str) -> Tensor:
    log_p = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)
    if log_p.isnan().any():
        raise Refused(f"{whose} gives NaN or infinite logits; look for NaN in its weights, or try it in float32")
    return log_p


def _check(model: nn.Module, sequences: Tensor, micro_batch: int, whose: str = "the model") -> None:
    present(model, whose)
    if sequences.ndim != 2 or sequences.dtype != torch.int64 or not len(sequences) or sequences.shape[1] < 2:
        got = f"{sequences.dtype} of shape {tuple(sequences.shape)}"
        raise Refused(f"evaluate needs token sequences (n, length) of int64, length at least 2; got {got}")
    if micro_batch < 1:
        raise Refused(f"evaluate: micro_batch must be at least 1, got {micro_batch}")
    check_length(model, sequences.shape[1], whose)
    low, high, size = int(sequences.min()), int(sequences.max()), config_of(model).vocab_size
    if low < 0 or high >= size:
        raise Refused(f"tokens run from {low} to {high} but {whose}'s vocabulary is {size}; use its own tokenizer")


def check_length(model: nn.Module, length: int, whose: str = "the model") -> None:
    """Raises Refused where sequences are longer than the model's context."""
    context = getattr(config_of(model), "max_position_embeddings", None)
    if context is not None and length > context:
        raise Refused(
            f"sequences of {length} tokens do not fit {whose}'s context of {context}: lower --length (length=)"
        )


def config_of(model: nn.Module) -> Any:
    if not hasattr(getattr(model, "config", None), "get_text_config"):
        raise TypeError(f"{type(model).__name__} is not a transformers language model: it has no configuration")
    config: Any = model.config
    return config.get_text_config()


@contextmanager
def evaluating(*models: object) -> Iterator[None]:
    """Puts the modules among `models` in evaluation mode, and each part of them back in its own afterwards."""
    modules = [model for model in models if isinstance(model, nn.Module)]
    training = [(part, part.training) for module in modules for part in module.modules()]
    try:
        for module in modules:
            module.eval()
        yield
    finally:
        for part, mode in training:
            part.training = mode
