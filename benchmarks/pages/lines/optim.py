"""The lines on the cards of optimizers."""

from __future__ import annotations

from benchmarks.pages.cards import Lines

CARDS = (
    "adam-s",
    "adamw",
    "apollo",
    "apollo-mini",
    "auon",
    "dct-adamw",
    "dion",
    "fira",
    "galore",
    "mfac",
    "muon",
    "q-galore",
    "soap",
)

OPTIM = [
    Lines(
        "optim",
        "clothes",
        "a perceptron 784-128-128-10 on Fashion-MNIST, {steps} steps of 64 pictures, rank {rank}, {seeds} seeds, the "
        "best of {trials} rates each; the share of wrong answers, and its difference from AdamW, paired by seed",
        {"benchmark": "optim.training", "part": "pictures", "stage": ("equal steps", "equal seconds"), "card": CARDS},
        "{arm}, {stage} ({steps}): {score:.4f} ± {spread:.4f} wrong, {change:+.4f} ± {change_stderr:.4f} to AdamW",
        about={"benchmark": "optim.training", "part": "pictures", "stage": "equal steps"},
        name="{card}",
    ),
    Lines(
        "optim",
        "text",
        "a Llama of {layers} layers of width 128 on articles of Wikipedia, batches of {tokens} tokens, rank {rank}, "
        "{seeds} seeds, the best of {trials} rates each; the loss on others after as many steps as AdamW takes, or as "
        "many as take as long, and its difference from AdamW, paired by seed",
        {"benchmark": "optim.training", "part": "text", "stage": ("equal steps", "equal seconds"), "card": CARDS},
        "{arm}, {stage} as {budget} of AdamW ({steps}): {score:.3f} ± {spread:.3f}, {change:+.3f} ± "
        "{change_stderr:.3f} to it",
        about={"benchmark": "optim.training", "part": "text", "stage": "equal steps"},
        name="{card}",
    ),
    Lines(
        "optim",
        "larger text",
        "the same with {layers} layers of width 512, batches of {tokens} tokens, rank {rank}, {seeds} seeds",
        {"benchmark": "optim.training", "part": "larger text", "stage": "equal steps", "card": CARDS},
        "{arm}, {steps} steps: {score:.3f} ± {spread:.3f}, {change:+.3f} ± {change_stderr:.3f} to AdamW",
        name="{card}",
    ),
    Lines(
        "optim",
        "two levels",
        "penalties that ten classifiers of clothes share, 16 pictures for each block that a step looks at; what is "
        "left of the gap to the least loss, median of {seeds} seeds",
        {"benchmark": "optim.bilevel", "picked": (5, 10)},
        "{picked} of ten, {steps} steps, {arm} {gap:%1}",
        together="; ",
        name="blockwise-bilevel",
    ),
    Lines(
        "optim",
        "width",
        "a perceptron 784-d-d-d-10 on Fashion-MNIST, {steps} steps, {seeds} seeds, rates and decay of width 32; the "
        "share of wrong answers, and the largest singular value of hidden matrices over that at width 32",
        {"benchmark": "optim.width"},
        "{rule}, width {width}, rate {rate:g}: {wrong:.4f} ± {spread:.4f} wrong, {gain_ratio:.2f}",
        name="weight-decay-scaling",
    ),
    Lines(
        "optim",
        "time",
        "milliseconds of a step of one matrix at rank {rank}, the mean of 20 with a look for subspaces among them, one "
        "thread; peers are on the page of measurements",
        {"benchmark": "optim.steps", "part": "times", "card": CARDS},
        "{arm}, {rows} x {columns}: {mean_ms:.1f}",
        name="{card}",
        together="; ",
    ),
    Lines(
        "optim",
        "state",
        "bytes of state a number of a matrix, after two steps; AdamW keeps 8",
        {"benchmark": "optim.steps", "part": "bytes", "card": CARDS},
        "{arm}, {rows} x {columns}, rank {rank}: {state:.2f}[ and {shared:.2f} for all of a size][, beside {weight} "
        "of the weight while it trains]",
        name="{card}",
    ),
]
