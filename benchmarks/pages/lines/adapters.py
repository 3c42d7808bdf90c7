"""The lines on the cards of adapters."""

from __future__ import annotations

from benchmarks.pages.cards import Lines

ADAPTERS = [
    Lines(
        "adapters",
        "tasks",
        "all at the trainable numbers of a LoRA (sst2, 60 steps of 16 examples, rank 8; gsm8k, 40 steps of 2 examples, "
        "rank 8; turned, 150 steps of 64 examples, rank 4), the rate chosen on validation data; one thread of a busy "
        "machine",
        {"benchmark": "adapters.tasks", "task": task},
        f"{task}{{method:whose}}: {score} {{score:.3f}} ± {{spread:.3f}} over {{seeds}} seeds, forgetting "
        "{forgotten:.3f}, {step_ms:.0f} ms a step, {held_megabytes:.0f} MB held in a step, rate {rate:g}",
    )
    for task, score in (("sst2", "accuracy"), ("gsm8k", "loss"), ("turned", "accuracy"))
]

ADAPTERS += [
    Lines(
        "adapters",
        "step",
        "beside one layer of {out} x {in}, {tokens} tokens, rank {rank}, float32, one thread of a busy machine, "
        "milliseconds of the processor (the frozen layer {path_ms:.1f})",
        {"benchmark": "adapters.step", "method": ("lora", "soka", "householder-projector", "hta")},
        "the path's forward and backward pass {path_ms:.1f}, {kept_megabytes:.2f} MB kept in between",
        about={"benchmark": "adapters.step", "method": "the frozen layer"},
    ),
    Lines(
        "adapters",
        "after svd",
        "all-MiniLM-L6-v2 cut to half of its ranks, a step of AdamW on {tokens} tokens, float32, one thread; beside, "
        "what training all matrices and everything takes",
        {
            "benchmark": "adapters.welore",
            "part": "step",
            "model": "all-MiniLM-L6-v2",
            "arm": ("factors", "both", "everything"),
        },
        "{arm}: {numbers:,} numbers, {seconds:.2f} s, peak {peak_megabytes:.0f} MB beside {weights_megabytes:.0f} MB",
        name="welore",
        together="; ",
    ),
    Lines(
        "adapters",
        "learning after svd",
        "all-MiniLM-L6-v2 cut to half of its ranks learns the sentiment of sentences, {steps} steps of {batch}, "
        "{seeds} orders; the loss, and the difference to training the factors alone",
        {"benchmark": "adapters.welore", "part": "learning", "arm": ("factors", "others", "everything")},
        "{arm}: {loss:.4f} ± {spread:.4f}[ ({over factors:+.4f} ± {over factors_stderr:.4f})]",
        name="welore",
        together="; ",
    ),
    Lines(
        "adapters",
        "terms",
        "what the rank rule keeps of all linear matrices but the head",
        {"benchmark": "adapters.terms"},
        "{model}: of {rank} terms {share:%}, fewer in {fewer} of {matrices} matrices; 90 % of the whole would take "
        "{of_the_whole:.0f}",
    ),
    Lines(
        "adapters",
        "sequence",
        "five tasks one after the other (split, moved: clothes by a perceptron), accuracy over all of them after the "
        "last, three seeds; beside, a LoRA of rank 8 that is merged after each",
        {"benchmark": "adapters.sequence", "method": ("lora", "osf", "osf-next")},
        "{stream}, {arm}: {accuracy.mean:.4f} ± {accuracy.spread:.4f}[, over lora {over lora.mean:+.4f} ± "
        "{over lora.stderr:.4f}], since learned {transfer.mean:+.4f}, of what was known before "
        "{forgotten.mean:.3f} lost",
    ),
    Lines(
        "adapters",
        "apart",
        "tasks of the same streams learned apart from each other with at most the numbers of a LoRA of rank 8, three "
        "seeds; then all adapters added up",
        {"benchmark": "adapters.apart", "part": "chosen", "arm": ("lora", "flylora", "corda-keep", "svfit", "eva")},
        "{stream}: alone {alone.mean:.4f} ± {alone.spread:.4f}[, over lora {over lora.alone.mean:+.4f} ± "
        "{over lora.alone.stderr:.4f}], forgotten {forgotten.mean:.4f}[, less than lora at equal learning "
        "{equal.mean:+.4f} ± {equal.stderr:.4f}], summed {summed.mean:.4f}, averaged {averaged.mean:.4f}",
        name="{arm:card}",
    ),
]

ADAPTERS += [
    Lines(
        "adapters",
        "federated",
        "clothes turned by a right angle, by a perceptron that knows them upright; six clients of unlike classes, 15 "
        "rounds of 5 local steps, rank {rank}, {seeds} seeds; the difference is to an orthonormal A that stays",
        {"benchmark": "adapters.federated", "arm": ("fedsvd, drawn", "fedsvd, orthonormal")},
        "{setting}, {arm}: accuracy {accuracy:.4f} ± {spread:.4f}, {change:+.4f} ± {change_stderr:.4f}",
    ),
    Lines(
        "adapters",
        "modules",
        "sst2 by three layers of MiniLM, {steps} steps of 16 sentences, {seeds} seeds; half of the matrices have paths",
        {"benchmark": "adapters.modules", "arm": ("diffora", "its choice, anew", "gradients", "all")},
        "{arm}: accuracy {accuracy:.4f} ± {spread:.4f}, {change:+.4f} ± {change_stderr:.4f} to a random choice",
        together="; ",
    ),
]
