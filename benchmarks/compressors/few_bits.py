"""Few bits a weight on a model whose weights lie on no grid: divergence from the dense model, against bits.

The weights of smollm2 come from a 4-bit file with groups of 32 inputs. Here its channels are permuted (those of the
residual stream, of every MLP, and of the values of every head), which changes no output and leaves no group of the file
together. Every linear layer but the head is quantized; bits are those of the stored tensors over the weights. All arms
read the second moments of the inputs on one text and are judged on another; rows hold the divergence of every
sequence, so that arms can be compared in pairs.

    python -m benchmarks.compressors.few_bits --arms rtn-4,hqq-4,gptq-4

hqq is a peer (pip install --no-deps hqq termcolor): its own quantizer, 4 bits, groups of 64, on the CPU.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers.utils import logging

from benchmarks.common.rows import Rows, add_option
from eckart.compressors.contract import METHODS
from eckart.jobs.calibration import as_batches, calibration_text, text_of
from eckart.jobs.evaluate.quality import divergence
from eckart.models.sites import Site, find_sites
from eckart.models.transformers import load_model
from eckart.ops.packing import decode, encode, grouped, searched_grid
from eckart.statistics import Need, Statistics, cache_directory, statistics_for
from eckart.structures.quantized import quantized_cost
from eckart.texts.sequences import sequences

Arm = Callable[[Tensor, Statistics], tuple[Tensor, int]]
"""A weight (out, in) and what is known of its inputs -> what stands in for it, and its bytes."""


def permuted(model: nn.Module, seed: int) -> nn.Module:
    """The same function, its channels in another order: of the residual stream, the MLPs, and the values of heads."""
    draw = torch.Generator().manual_seed(seed)
    body, config = model.model, model.config
    stream = torch.randperm(config.hidden_size, generator=draw)
    size = config.head_dim
    body.embed_tokens.weight.data = body.embed_tokens.weight.data[:, stream].contiguous()
    body.norm.weight.data = body.norm.weight.data[stream]
    if model.lm_head.weight is not body.embed_tokens.weight:
        model.lm_head.weight.data = model.lm_head.weight.data[:, stream].contiguous()
    for block in body.layers:
        for norm in (block.input_layernorm, block.post_attention_layernorm):
            norm.weight.data = norm.weight.data[stream]
        attention, mlp = block.self_attn, block.mlp
        inner = torch.randperm(config.intermediate_size, generator=draw)
        values = torch.cat([k * size + torch.randperm(size, generator=draw) for k in range(config.num_key_value_heads)])
        shared = config.num_attention_heads // config.num_key_value_heads
        outputs = torch.cat(
            [values.view(-1, size)[h // shared] % size + h * size for h in range(config.num_attention_heads)]
        )
        for layer in (attention.q_proj, attention.k_proj):
            layer.weight.data = layer.weight.data[:, stream].contiguous()
        attention.v_proj.weight.data = attention.v_proj.weight.data[values][:, stream].contiguous()
        attention.o_proj.weight.data = attention.o_proj.weight.data[stream][:, outputs].contiguous()
        for layer in (mlp.gate_proj, mlp.up_proj):
            layer.weight.data = layer.weight.data[inner][:, stream].contiguous()
        mlp.down_proj.weight.data = mlp.down_proj.weight.data[stream][:, inner].contiguous()
    return model


def of_method(method: str, **said: int) -> Arm:
    """A method of eckart at one size, with its options."""
    card = METHODS.find(method)
    size = said.pop(card.size)
    fit = card.taking(said).entry

    def arm(weight: Tensor, statistics: Statistics) -> tuple[Tensor, int]:
        structure = fit(weight, statistics).build(size).structure
        return structure.to_dense().detach(), structure.cost().bytes

    return arm


def of_hqq(bits: int, group: int) -> Arm:
    """hqq's own quantizer as its configuration sets it up; bytes are codes, and 16 bits a scale and a zero-point."""

    def arm(weight: Tensor, _: Statistics) -> tuple[Tensor, int]:
        from hqq.core.quantize import Quantizer, hqq_base_quant_config

        options = hqq_base_quant_config(nbits=bits, group_size=group)["weight_quant_params"]
        codes, meta = Quantizer.quantize(weight.float(), device="cpu", compute_dtype=torch.float32, **options)
        groups = weight.numel() // group
        return Quantizer.dequantize(codes, meta).reshape(weight.shape), weight.numel() * bits // 8 + 4 * groups

    return arm


def searched(bits: int, group: int, power: float = 2.4) -> Arm:
    """Round to nearest in the range of least |error|^power of each group, `packing.searched_grid`, without data."""

    def arm(weight: Tensor, _: Statistics) -> tuple[Tensor, int]:
        values = grouped(weight.float(), group)
        scales, zeros = searched_grid(values, bits, weight.dtype, power=power)
        assert zeros is not None
        scale, zero = scales[..., None].float(), zeros[..., None]
        dense = decode(encode(values, scale, zero, bits), scale, zero, bits).view(weight.shape)
        return dense, quantized_cost(weight.shape, bits, group, weight.dtype).bytes

    return arm


ARMS: dict[str, Arm] = {
    **{f"hqq-{bits}": of_hqq(bits, 64) for bits in (4, 3, 2)},
    **{
        f"{method}-{bits}": of_method(method, bits=bits)
        for bits in (4, 3, 2)
        for method in ("rtn", "gptq", "codebook", "codebook-gptq")
    },
    **{f"rtn-4/{group}": of_method("rtn", bits=4, group=group) for group in (32, 48, 128)},
    "searched-4": searched(4, 64),
    **{f"squares-{bits}": searched(bits, 64, 2.0) for bits in (4, 3, 2)},
    "squares-4/48": searched(4, 48, 2.0),
    **{f"codebook-4/{group}": of_method("codebook", bits=4, group=group) for group in (32, 128)},
    "nf4": of_method("nf4", bits=4),
    **{f"vector-codebook-{bits}": of_method("vector-codebook", bits=bits) for bits in (4, 3, 2)},
    "vector-codebook-2/pairs": of_method("vector-codebook", bits=2, length=2),
}


TWO_WORDS = ("codebook-gptq", "codebook", "vector-codebook")
"""Methods that an arm is not named after by its first word alone."""


@dataclass(frozen=True)
class Judge:
    """A model, what its arms read, and what they are judged by.

    Attributes:
        model: in float32, its weights those of a checkpoint in bfloat16.
        sites: what is quantized.
        statistics: of their inputs, by name.
        held_out: token ids (sequences, length).
        dense: log-probabilities (sequences, length, vocabulary) of the model as it is.
    """

    model: nn.Module
    sites: Sequence[Site]
    statistics: Mapping[str, Statistics]
    held_out: Tensor
    dense: Tensor

    def __call__(self, arm: Arm) -> tuple[float, Tensor, float]:
        """Bits a weight, divergence from the dense model (sequences,), and seconds of the fits."""
        stored, count, started = 0, 0, time.perf_counter()
        kept = [site.weight.clone() for site in self.sites]
        for site, weight in zip(self.sites, kept, strict=True):
            made, size = arm(weight.bfloat16(), self.statistics[site.name])
            weight_of(site).copy_(made)
            stored, count = stored + size, count + made.numel()
        seconds = time.perf_counter() - started
        found = [
            divergence(p, q).mean()
            for p, q in zip(self.dense, log_probabilities(self.model, self.held_out), strict=True)
        ]
        for site, weight in zip(self.sites, kept, strict=True):
            weight_of(site).copy_(weight)
        return 8 * stored / count, torch.stack(found).double(), seconds


def weight_of(site: Site) -> Tensor:
    """Where the values of a linear layer are."""
    weight = site.module.weight
    assert isinstance(weight, Tensor)
    return weight.data


def log_probabilities(model: nn.Module, tokens: Tensor) -> Iterator[Tensor]:
    """Of every sequence, (length - 1, vocabulary), float32."""
    with torch.inference_mode():
        for row in tokens:
            yield model(row[None]).logits[0, :-1].float().log_softmax(-1)


def judge(options: argparse.Namespace) -> Judge:
    """The permuted model, its statistics on one text, and its answers on another."""
    model, tokenizer = load_model("smollm2")
    model = permuted(model.bfloat16().float(), options.seed)
    sites = find_sites(model)
    held_out = sequences(tokenizer, text_of(options.judge), options.length, options.sequences, options.seed)
    batches, _ = as_batches(
        calibration_text(options.calibration), tokenizer, options.samples, options.length, options.seed
    )
    modules = {site.name: site.module for site in sites}
    needs = [Need.INPUT_SECOND_MOMENT] if any(reads in options.arms for reads in ("gptq", "vector")) else []
    statistics, _ = statistics_for(model, modules, needs, batches, cache=cache_directory())
    return Judge(model, sites, statistics, held_out, torch.stack(list(log_probabilities(model, held_out))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arms", default=",".join(ARMS), help="names, with commas")
    parser.add_argument("--calibration", default="wikipedia")
    parser.add_argument("--samples", type=int, default=64, help="calibration sequences (default: %(default)s)")
    parser.add_argument("--judge", default="news")
    parser.add_argument("--sequences", type=int, default=16, help="evaluation sequences (default: %(default)s)")
    parser.add_argument("--length", type=int, default=256, help="tokens of a sequence (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    add_option(parser)
    options = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    rows = Rows("compressors.few_bits", options.json)
    names = ("calibration", "samples", "judge", "sequences", "length", "seed")
    setting = {"model": "smollm2, permuted, bfloat16", **{name: getattr(options, name) for name in names}}
    trial = judge(options)
    print(f"{'arm':<14} {'bits':>6} {'KL':>8} {'stderr':>7} {'seconds':>8}")
    for name in options.arms.split(","):
        bits, each, seconds = trial(ARMS[name])
        spread = float(each.std()) / len(each) ** 0.5
        method = next((each for each in TWO_WORDS if name.startswith(each)), name.split("-")[0])
        what = {**setting, "method": method, "arm": name}
        rows.add(what, {"bits": bits, "kl": float(each.mean()), "stderr": spread, "of_sequences": each.tolist()})
        print(f"{name:<14} {bits:6.3f} {float(each.mean()):8.4f} {spread:7.4f} {seconds:8.1f}", flush=True)


if __name__ == "__main__":
    main()
