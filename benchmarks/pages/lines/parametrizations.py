"""The lines on the cards of parametrizations."""

from __future__ import annotations

from benchmarks.pages.cards import Lines

_ARMS = (
    "low-rank",
    "sltrain",
    "maestro",
    "rigl",
    "set",
    "sst",
    "nm-gradient-flow",
    "sr-ste",
    "kronecker",
    "block-diagonal",
    "sparse-ift",
)

_TWO_OF_FOUR = ("cast-2-4", "sr-ste", "nm-gradient-flow")

PARAMETRIZATIONS = [
    Lines(
        "parametrizations",
        "clothes, at equal bytes",
        "a perceptron 784-128-128-10 on Fashion-MNIST, {passes} passes, the best of three rates each; shares of the "
        "dense bytes of the two hidden matrices, differences from the dense net are paired by seed",
        {"benchmark": "parametrizations.arms", "part": "clothes", "method": _ARMS},
        "{arm}, {bytes:%} of the bytes, {seeds} seeds: accuracy {accuracy:.4f} ± {spread:.4f}, {change:+.4f} ± "
        "{change_stderr:.4f} to dense",
    ),
    Lines(
        "parametrizations",
        "text, at equal bytes",
        "a Llama of 2 layers of width 128 on articles of Wikipedia, {steps} steps of {tokens} tokens, {seeds} seeds, "
        "the best of three rates each; the loss on others, differences from the dense model are paired by seed",
        {"benchmark": "parametrizations.arms", "part": "text", "method": _ARMS},
        "{arm}, {bytes:%} of the bytes: {loss:.3f} ± {spread:.3f}, {change:+.3f} ± {change_stderr:.3f} to dense",
    ),
    Lines(
        "parametrizations",
        "two of four",
        "a perceptron 784-128-128-10 on Fashion-MNIST, {steps} steps dense and half as many that make the hidden "
        "matrices 2:4 sparse, {seeds} seeds; differences from the dense net that trains on are paired by seed",
        {"benchmark": "parametrizations.two_of_four", "part": "clothes", "method": _TWO_OF_FOUR},
        "{arm}: accuracy {accuracy:.4f} ± {spread:.4f}, {change:+.4f} ± {change_stderr:.4f} to dense",
    ),
    Lines(
        "parametrizations",
        "two of four, text",
        "a Llama of 2 layers of width 128 on articles of Wikipedia, {steps} steps dense and half as many that make the "
        "hidden matrices 2:4 sparse, {seeds} seeds; differences from the dense model that trains on are paired by seed",
        {"benchmark": "parametrizations.two_of_four", "part": "text", "method": _TWO_OF_FOUR},
        "{arm}: held-out loss {loss:.3f} ± {spread:.3f}, {change:+.3f} ± {change_stderr:.3f} to dense",
    ),
    Lines(
        "parametrizations",
        "uncertainty",
        "a perceptron 784-128-128-10 on Fashion-MNIST, {passes} passes, {seeds} seeds, {keep:%} of the entries; mean "
        "of 20 draws",
        {"benchmark": "parametrizations.uncertainty", "by": "drawn"},
        "{arm}: accuracy {accuracy:.4f} ± {accuracy_spread:.4f}, -ln p {loss:.3f}, calibration error {ece:.4f} ± "
        "{ece_spread:.4f}",
        name="ssvi",
    ),
    Lines(
        "parametrizations",
        "tasks",
        "five tasks one after the other, of clothes or genres, by a perceptron 784-128-128, {seeds} seeds; beside it "
        "one net that trains all entries in all tasks",
        {"benchmark": "parametrizations.tasks"},
        "{kind}, {arm}, {keep:%} for each: accuracy {acc:.4f} ± {acc_spread:.4f}, backward transfer {bwt:+.4f} ± "
        "{bwt_stderr:.4f}",
        name="dst-continual",
    ),
    Lines(
        "parametrizations",
        "memory",
        "{layers} matrices of {side} x {side}, AdamW on {batch} vectors, {keep:%} of the bytes; peak memory of the "
        "process over one without a model",
        {"benchmark": "parametrizations.memory", "arm": ("dense", "low rank", "sltrain", "sltrain, 5 %")},
        "{arm}: {weights_mb:.0f} MB of weights, {state_mb:.0f} MB of the optimizer, peak {peak_mb:.0f} MB",
        name="sltrain",
        together="; ",
    ),
    Lines(
        "parametrizations",
        "clothes",
        "a perceptron 784-512-512-10 on Fashion-MNIST, {passes} passes, {more} more behind a projection, {seeds} "
        "seeds; the difference from the dense net is paired; low rank is on the page of measurements",
        {"benchmark": "parametrizations.monarch", "part": "pictures", "arm": "monarch"},
        "{start}, {keep:%} kept: accuracy {accuracy:.4f} ± {spread:.4f}, {change:+.4f} ± {change_stderr:.4f} to dense",
        name="monarch",
    ),
    Lines(
        "parametrizations",
        "text",
        "a Llama of 3 layers of width 128 on articles of Wikipedia, {steps} steps of 1024 tokens, {more} more behind a "
        "projection, {seeds} seeds; loss on held-out articles, the difference from the dense net is paired",
        {"benchmark": "parametrizations.monarch", "part": "text", "arm": "monarch"},
        "{start}, {keep:%} kept: loss {loss:.3f} ± {spread:.3f}, {change:+.3f} ± {change_stderr:.3f} to dense",
        name="monarch",
    ),
    Lines(
        "parametrizations",
        "sentences",
        "sst2 by three layers of MiniLM, projected and fine-tuned, {steps} steps of 16 sentences, {seeds} seeds; the "
        "difference is to the encoder as it is",
        {"benchmark": "parametrizations.projected", "arm": "monarch"},
        "{keep:%} kept: accuracy {accuracy:.4f} ± {spread:.4f}, {change:+.4f} ± {change_stderr:.4f}",
        name="monarch",
        together="; ",
    ),
    Lines(
        "parametrizations",
        "pruning",
        "sst2 by two layers of MiniLM, {steps} steps of 16 sentences, {seeds} seeds; the difference is to pst",
        {"benchmark": "parametrizations.pruning", "keep": (0.5, 0.2, 0.1)},
        "{keep:%} kept, {arm}: accuracy {accuracy:.4f} ± {spread:.4f}[, {change:+.4f} ± {change_stderr:.4f}]",
        name="pst",
    ),
    Lines(
        "parametrizations",
        "super-resolution",
        "pictures of scikit-image, of twice the sides, by an EDSR of 24 channels; {steps} steps, {seeds} seeds, "
        "{pictures} pictures to judge; the convolutions of the blocks keep {keep:%}",
        {"benchmark": "parametrizations.super_resolution"},
        "{arm}: {psnr:.3f} ± {spread:.3f} dB, {change:+.3f} ± {change_stderr:.3f} to iss-p",
        name="iss-p",
    ),
    Lines(
        "parametrizations",
        "clothes, pruned",
        "a perceptron 784-128-64-10 on Fashion-MNIST, {passes} passes, {seeds} seeds; runs of zeros along rows, and "
        "differences paired by seed, to magnitude pruning to as many weights of every matrix",
        {"benchmark": "parametrizations.runs_of_zeros", "part": "all", "method": "turbo-vbi"},
        "{arm}: {zeros:%} zeros in runs of {run:.1f}, {longer:.1f} times as long, accuracy {accuracy:.4f} ± "
        "{spread:.4f}, {change:+.4f} ± {change_stderr:.4f}",
        name="turbo-vbi",
    ),
    Lines(
        "parametrizations",
        "waves",
        "the next frame of a wave on 32 x 32 points by four convolutions of 5 x 5, width {width}; error over that of "
        "the last frame, {seeds} seeds",
        {"benchmark": "parametrizations.waves"},
        "{arm}: {parameters:,} numbers, {steps} steps of {step_ratio:.2f} the dense time, error {error:.4f} ± "
        "{spread:.4f}, {change:+.4f} ± {change_stderr:.4f} to apriori-conv",
        name="apriori-conv",
    ),
]
