"""Trains a small mixture of experts on real text: a model directory for `experts`, and its perplexity.

    python -m benchmarks.common.train_moe --out DIR [--text FILE ...] [--steps N] [--seed N] [--experts N]
    python -m benchmarks.common.train_moe --out DIR --from DENSE [--steps N] [--seed N] [--noise X]

No package carries a trained mixture of experts that fits a laptop. This one is a Mixtral of 7.6 million parameters (4
layers of 8 experts, of which 2 a token, width 256) over a byte-level BPE of 2048 tokens. FILE is a text file or the
name of a text that a package carries; the default is all of these, 4.3 million characters. Of every 20 stretches of
text one is held out: it is written to DIR/held-out.txt, the others to DIR/training.txt. The baselines are counts of
tokens and of pairs of tokens in the training text, the latter with interpolated absolute discounting.

`--experts 1` trains a dense model of the same layers. `--from` upcycles such a one (Komatsuzaki 2022, arXiv
2212.05055): every expert is a copy of its MLP, entries of each moved by `--noise` times the standard deviation of
their matrix, routers are new, and all of it is trained on.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import MixtralConfig, MixtralForCausalLM, PreTrainedTokenizerFast

from benchmarks.common.rows import Rows, add_option
from eckart.jobs.calibration import text_of
from eckart.jobs.evaluate.quality import evaluate
from eckart.texts.corpora import CORPORA

VOCABULARY = 2048
LENGTH = 128
BATCH = 8
STRETCH = 10_000
HELD_OUT = 20
EXPERTS = 8
VISITED = 2


def split(text: str) -> tuple[str, str]:
    """Training and held-out text, cut at paragraphs: of every `HELD_OUT` stretches the last is held out."""
    stretches = [""]
    for paragraph in text.split("\n\n"):
        if len(stretches[-1]) > STRETCH:
            stretches.append("")
        stretches[-1] += paragraph + "\n\n"
    held = stretches[HELD_OUT - 1 :: HELD_OUT]
    return "".join(s for i, s in enumerate(stretches) if i % HELD_OUT != HELD_OUT - 1), "".join(held)


def trained_tokenizer(text: str) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|end|>"],
        show_progress=False,
    )
    tokenizer.train_from_iterator(text.split("\n\n"), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<|end|>", eos_token="<|end|>")


def untrained(seed: int, experts: int = EXPERTS) -> MixtralForCausalLM:
    config = MixtralConfig(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_local_experts=experts,
        num_experts_per_tok=min(VISITED, experts),
        max_position_embeddings=512,
        tie_word_embeddings=True,
        output_router_logits=True,
        router_aux_loss_coef=0.01,
        bos_token_id=0,
        eos_token_id=0,
    )
    torch.manual_seed(seed)
    return MixtralForCausalLM(config)


def upcycled(dense: MixtralForCausalLM, seed: int, noise: float) -> MixtralForCausalLM:
    """A mixture whose experts are copies of the MLPs of a model of one expert, moved by noise."""
    model = untrained(seed)
    values = dense.state_dict()
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if ".experts." in name:
                moved = torch.randn_like(tensor) * (noise * values[name].std())
                tensor.copy_(values[name] + moved)
            elif tensor.shape == values[name].shape:  # routers differ, and stay as they are drawn
                tensor.copy_(values[name])
    return model


def train(model: MixtralForCausalLM, tokens: Tensor, steps: int, peak: float, seed: int) -> None:
    """AdamW, its rate linear up over 5 % of the steps and down to nothing over the others; sequences without repeat."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=peak, betas=(0.9, 0.95))
    generator = torch.Generator().manual_seed(seed)
    order = torch.empty(0, dtype=torch.long)
    start = time.process_time()
    model.train()
    for step in range(steps):
        done = step / steps
        for group in optimizer.param_groups:
            group["lr"] = peak * min(1.0, done / 0.05 + 1 / steps, (1 - done) / 0.95)
        if len(order) < BATCH:
            # Other cuts in every pass over the text.
            shift = int(torch.randint(LENGTH, (), generator=generator))
            sequences = tokens[shift : shift + (len(tokens) - shift) // LENGTH * LENGTH].view(-1, LENGTH)
            order = torch.randperm(len(sequences), generator=generator)
        batch, order = sequences[order[:BATCH]], order[BATCH:]
        output = model(batch, labels=batch)
        output.loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step % 100 == 0 or step == steps - 1:
            loss = float(output.loss.detach() - model.router_aux_loss_coef * output.aux_loss.detach())
            print(f"step {step}: loss {loss:.3f}, {time.process_time() - start:.0f} CPU seconds", flush=True)
    model.eval()


def counted(training: Tensor, held_out: Tensor) -> tuple[float, float]:
    """Perplexities of held-out sequences (n, length) under counts of tokens and of pairs of tokens."""
    single = torch.bincount(training, minlength=VOCABULARY).double() + 1
    single /= single.sum()
    pairs = torch.bincount(training[:-1] * VOCABULARY + training[1:], minlength=VOCABULARY**2).double()
    pairs = pairs.view(VOCABULARY, VOCABULARY)
    total = pairs.sum(1, keepdim=True).clamp_min(1)
    discount = 0.75
    after = ((pairs - discount).clamp_min(0) + discount * (pairs > 0).sum(1, keepdim=True) * single) / total
    after = torch.where(pairs.sum(1, keepdim=True) > 0, after, single)
    unigram, bigram = single[held_out[:, 1:]], after[held_out[:, :-1], held_out[:, 1:]]
    return math.exp(-float(unigram.log().mean())), math.exp(-float(bigram.log().mean()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--text", nargs="+", default=list(CORPORA))
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--experts", type=int, default=EXPERTS, choices=(1, EXPERTS))
    parser.add_argument("--from", dest="dense", type=Path)
    parser.add_argument("--noise", type=float, default=0.1)
    add_option(parser)
    options = parser.parse_args()
    training, held_out = map("".join, zip(*(split(text_of(source)) for source in options.text), strict=True))
    tokenizer = trained_tokenizer(training)
    ids, judged = (torch.tensor(tokenizer(text)["input_ids"]) for text in (training, held_out))
    judged = judged[: len(judged) // LENGTH * LENGTH].view(-1, LENGTH)
    if options.dense:
        model = upcycled(MixtralForCausalLM.from_pretrained(options.dense), options.seed, options.noise)
    else:
        model = untrained(options.seed, options.experts)
    size = sum(p.numel() for p in model.parameters())
    print(f"{size} parameters; {len(ids)} tokens of training text, {judged.numel()} held out; seed {options.seed}")
    start = time.process_time()
    train(model, ids, options.steps, options.rate, options.seed)
    seconds = time.process_time() - start
    model.config.output_router_logits = False
    options.out.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(options.out)
    tokenizer.save_pretrained(options.out)
    for name, text in ("training", training), ("held-out", held_out):
        (options.out / f"{name}.txt").write_text(text, "utf-8")
    result = evaluate(model, judged)
    unigram, bigram = counted(ids, judged)
    what = {"steps": options.steps, "batch": BATCH, "length": LENGTH, "rate": options.rate, "seed": options.seed}
    what |= {"experts": model.config.num_local_experts}
    what |= {"upcycled from": options.dense.name, "noise": options.noise} if options.dense else {}
    found = {"perplexity": result.perplexity, "stderr": result.stderr, "unigram": unigram, "bigram": bigram}
    Rows("common.train_moe", options.json).add(what, found | {"parameters": size, "cpu_seconds": seconds})
    print(f"{options.steps} steps of {BATCH} x {LENGTH} tokens, {seconds:.0f} CPU seconds")
    print(f"held-out perplexity {result.perplexity:.2f} (standard error {result.stderr:.2f})")
    print(f"counts of tokens {unigram:.2f}, of pairs of tokens {bigram:.2f}")


if __name__ == "__main__":
    main()
