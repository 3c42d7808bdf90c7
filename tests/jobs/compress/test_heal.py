"""Healing: no block gets worse, the model gets better, and nothing but float leaves of structures moves."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import eckart
from eckart import METHODS
from eckart.jobs.compress.block_streams import Observed, entering, forward, observe
from eckart.jobs.compress.compression import Compression
from eckart.jobs.compress.heal import JUDGES, Healing, cut, heal, relative_error
from eckart.jobs.compress.recipe import Recipe, needs_data
from eckart.models.modules import StructuredEmbedding, StructuredLinear, TiedLinear
from eckart.models.sharing import share
from eckart.models.sites import find_sites
from eckart.structures import Dense, Quantized
from support.blocks import Blocks, assert_equal, measured, tokens
from support.tiny import VOCABULARY, tiny_gpt2, tiny_llama

STEPS = 12


def chain(*shape: int, seed: int) -> Tensor:
    """Tokens of a Markov chain in which each is followed by one of four."""
    pick = torch.Generator().manual_seed(99)
    follows = torch.randint(VOCABULARY, (VOCABULARY, 4), generator=pick)
    count, length = shape
    generator = torch.Generator().manual_seed(seed)
    columns = [torch.randint(VOCABULARY, (count,), generator=generator)]
    for _ in range(length - 1):
        columns.append(follows[columns[-1], torch.randint(4, (count,), generator=generator)])
    return torch.stack(columns, 1)


@pytest.fixture(scope="module")
def trained() -> Callable[[str], nn.Module]:
    """Tiny models that have learned something about `chain`; a copy for each call."""
    made: dict[str, nn.Module] = {}

    def model(kind: str) -> nn.Module:
        if kind not in made:
            net: Any = {"llama": tiny_llama, "separate": lambda: tiny_llama(tied=False), "gpt2": tiny_gpt2}[kind]()
            optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
            for step in range(60):
                ids = chain(16, 24, seed=1000 + step)
                optimizer.zero_grad()
                net(ids, labels=ids).loss.backward()
                optimizer.step()
            optimizer.zero_grad()
            made[kind] = net.eval()
        return copy.deepcopy(made[kind])

    return model


def divergence(dense: nn.Module, small: nn.Module, ids: Tensor) -> float:
    with torch.no_grad():
        log_p, log_q = (m(ids).logits.double().log_softmax(-1) for m in (dense, small))
    return float((log_p.exp() * (log_p - log_q)).sum(-1).mean())


def compressed(model: nn.Module, method: str = "kfac", *, seed: int = 0, **options: Any) -> Compression:
    return eckart.compress(model, method, calibration=chain(64, 24, seed=7), seed=seed, **options)


def states(model: nn.Module) -> dict[str, Tensor]:
    return {name: t.clone() for name, t in model.state_dict().items()}


def never_worse(healing: Healing | None) -> Healing:
    assert healing is not None
    assert len(healing.before) == len(healing.after)
    for before, after in zip(healing.before, healing.after, strict=True):
        assert 0 <= after <= before
    return healing


def test_the_relative_error_is_a_mean_over_tokens() -> None:
    y, t = torch.randn(3, 5, 7), torch.randn(3, 5, 7)
    expected = [float((y[i, j] - t[i, j]).norm() ** 2 / t[i, j].norm() ** 2) for i in range(3) for j in range(5)]
    assert float(relative_error(y, t)) == pytest.approx(sum(expected) / len(expected), rel=1e-5)
    assert float(relative_error(t, t)) == 0
    assert float(relative_error(0 * t, t)) == pytest.approx(1)
    zeros = torch.zeros(2, 3)
    assert float(relative_error(zeros, zeros)) == 0
    assert relative_error(y.half(), t.half()).dtype == torch.float32


@pytest.mark.parametrize(
    ("method", "keep", "of"),
    [("kfac", 0.4, "linear-parameters"), ("svd", 0.4, "linear-parameters"), ("rtn", 0.6, "bytes")],
)
@pytest.mark.parametrize("kind", ["llama", "separate", "gpt2"])
def test_healing_brings_the_model_closer_to_the_dense_one(
    kind: str, method: str, keep: float, of: str, trained: Callable[[str], nn.Module]
) -> None:
    dense, plain, healed = (trained(kind) for _ in range(3))
    compressed(plain, method, keep=keep, of=of)
    result = compressed(healed, method, keep=keep, of=of, heal=40)
    healing = never_worse(result.healing)
    assert healing.steps == 40
    assert sum(healing.after) < sum(healing.before)
    held_out = chain(32, 24, seed=8)
    assert divergence(dense, healed, held_out) < divergence(dense, plain, held_out)
    assert measured(healed) == measured(plain)
    assert {n: t.shape for n, t in plain.state_dict().items()} == {n: t.shape for n, t in healed.state_dict().items()}
    assert result.seconds["heal"] > 0


def test_healing_after_the_sequential_pass(trained: Callable[[str], nn.Module]) -> None:
    dense, plain, healed = (trained("llama") for _ in range(3))
    compressed(plain, keep=0.4, of="linear-parameters", sequential=True)
    result = compressed(healed, keep=0.4, of="linear-parameters", sequential=True, heal=40)
    never_worse(result.healing)
    held_out = chain(32, 24, seed=8)
    assert divergence(dense, healed, held_out) < divergence(dense, plain, held_out)


HEALED = [(method, tiny_llama) for method in sorted(METHODS)] + [(m, tiny_gpt2) for m in ("kfac", "rtn", "sparsegpt")]


@pytest.mark.parametrize(("method", "kind"), HEALED)
def test_only_float_leaves_of_structures_move(method: str, kind: Callable[[], nn.Module]) -> None:
    options: dict[str, Any] = {"keep": 0.82, "of": "bytes", "exclude": ("o_proj", "c_proj")[kind is tiny_gpt2 :][:1]}
    plain, healed = kind(), kind()
    compressed(plain, method, **options)
    flags = {name: p.requires_grad for name, p in plain.named_parameters()}
    healing = never_worse(compressed(healed, method, heal=2, **options).healing)
    assert {name: p.requires_grad for name, p in healed.named_parameters()} == flags
    assert all(p.grad is None for p in healed.parameters())
    before, after = plain.state_dict(), healed.state_dict()
    assert before.keys() == after.keys()
    places = tuple(n for n, m in healed.named_modules() if isinstance(m, StructuredLinear))
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert bool(moved) == (healing.after != healing.before)
    for name in moved:
        assert before[name].is_floating_point(), name
        assert name.startswith(tuple(f"{place}." for place in places)), name


def test_codes_stay_and_scales_move() -> None:
    plain, healed = tiny_llama(), tiny_llama()
    for model, steps in ((plain, 0), (healed, STEPS)):
        compressed(model, "rtn", keep=0.6, of="bytes", heal=steps)
    moved = 0
    for a, b in zip(plain.modules(), healed.modules(), strict=True):
        if isinstance(a, Quantized):
            assert isinstance(b, Quantized)
            assert torch.equal(a.codes, b.codes)
            assert a.zeros is None or torch.equal(a.zeros, b.zeros)
            moved += not torch.equal(a.scales, b.scales)
    assert moved


def test_none_is_none() -> None:
    plain, unhealed = tiny_llama(), tiny_llama()
    compressed(plain, keep=0.6)
    result = compressed(unhealed, keep=0.6, heal=0)
    assert_equal(unhealed.state_dict(), plain.state_dict())
    assert result.healing is None
    assert "heal" not in result.seconds


def test_a_seed_decides_the_bits(trained: Callable[[str], nn.Module]) -> None:
    healed = []
    for seed in (3, 3, 4):
        model = trained("llama")
        batches = list(chain(64, 24, seed=7).split(4))
        observed = observe(model, find_sites(model), batches)
        eckart.compress(model, "svd", keep=0.4, of="linear-parameters")
        heal(model, observed, STEPS, seed=seed)
        healed.append(model.state_dict())
    assert_equal(healed[1], healed[0])
    assert any(not torch.equal(healed[2][name], t) for name, t in healed[0].items())


@pytest.mark.parametrize("options", [{"head": True}, {"embeddings": True}])
def test_tied_embeddings_stay_one_structure_and_stay_as_they_are(
    options: dict[str, bool], trained: Callable[[str], nn.Module]
) -> None:
    plain, healed = trained("llama"), trained("llama")
    compressed(plain, keep=0.7, of="parameters", **options)
    never_worse(compressed(healed, keep=0.7, of="parameters", heal=STEPS, **options).healing)
    embed, head = healed.model.embed_tokens, healed.lm_head  # type: ignore[union-attr]
    assert isinstance(embed, StructuredEmbedding)
    assert isinstance(head, TiedLinear)
    assert head.structure is embed.structure
    assert_equal(embed.state_dict(), plain.model.embed_tokens.state_dict())  # type: ignore[union-attr,operator]


def test_blocks_get_what_compressed_embeddings_give() -> None:
    model = tiny_llama()
    batches = [tokens(3, 9), tokens(2, 5, seed=1)]
    observed = observe(model, find_sites(model), batches)
    for a, b in zip(entering(model, observed), observed.hidden, strict=True):
        assert torch.equal(a, b)
    eckart.compress(model, "svd", keep=0.8, of="parameters", embeddings=True, include=("embed_tokens",))
    embed = model.model.embed_tokens
    assert isinstance(embed, StructuredEmbedding)
    for batch, h in zip(batches, entering(model, observed), strict=True):
        assert torch.equal(h, embed(batch).detach())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("method", ["kfac", "rtn"])
def test_short_dtypes(dtype: torch.dtype, method: str, trained: Callable[[str], nn.Module]) -> None:
    dense, plain, healed = (trained("llama").to(dtype) for _ in range(3))
    options: dict[str, Any] = {"keep": 0.6, "of": "bytes"}
    compressed(plain, method, **options)
    healing = never_worse(compressed(healed, method, heal=40, **options).healing)
    assert sum(healing.after) < sum(healing.before)
    assert {t.dtype for t in healed.state_dict().values() if t.is_floating_point()} == {dtype}
    held_out = chain(32, 24, seed=8)
    assert divergence(dense, healed, held_out) < divergence(dense, plain, held_out)


def test_double_precision_stays_double() -> None:
    torch.manual_seed(0)
    model = Blocks(residual=False).double()
    x = torch.randn(200, 16, dtype=torch.float64)
    result = eckart.compress(model, "svd", keep=0.6, of="linear-parameters", calibration=list(x.split(20)), heal=STEPS)
    never_worse(result.healing)
    assert {p.dtype for p in model.parameters()} == {torch.float64}


def test_what_is_reported_is_what_is_measured(trained: Callable[[str], nn.Module]) -> None:
    # The reference is written out: both models are run over the held-back batches, block by block.
    model = trained("llama")
    batches = list(chain(64, 24, seed=7).split(4))
    observed = observe(model, find_sites(model), batches)
    eckart.compress(model, "svd", keep=0.4, of="linear-parameters")
    unhealed = share(model)
    for i in range(2):
        block = copy.deepcopy(model.get_submodule(f"model.layers.{i}"))
        unhealed.get_submodule("model.layers")[i] = block  # type: ignore[operator]
    healing = heal(model, observed, STEPS)
    held = list(range(JUDGES - 1, len(batches), JUDGES))
    assert len(held) == 2
    with torch.no_grad():
        for net, expected in ((unhealed, healing.before[0]), (model, healing.after[0])):
            errors = []
            for i in held:
                z = net.get_submodule("model.embed_tokens")(batches[i])
                arguments, keywords = observed.calls[0][i]
                y = net.get_submodule("model.layers.0")(z, *arguments, **keywords)
                t = observed.dense.get_submodule("model.layers.0")(z, *arguments, **keywords)
                errors += [((y - t).norm(dim=-1) / t.norm(dim=-1)).square().flatten()]
            assert float(torch.cat(errors).mean()) == pytest.approx(expected, rel=1e-4)


def test_a_block_that_cannot_get_better_is_left_as_it_is(trained: Callable[[str], nn.Module]) -> None:
    model = trained("llama")
    observed = observe(model, find_sites(model), list(chain(64, 24, seed=7).split(4)))
    eckart.compress(model, "svd", keep=0.6, of="linear-parameters")
    before = states(model)
    healing = heal(model, observed, STEPS, rate=1e6)  # every step is much too long
    assert healing.after == healing.before
    assert_equal(model.state_dict(), before)
    for module in [m for m in model.modules() if isinstance(m, StructuredLinear)]:
        for p in module.parameters():
            p.requires_grad_(False)
    assert heal(model, observed, STEPS).after == healing.before
    assert_equal(model.state_dict(), before)


def test_exact_structures_stay_exact() -> None:
    model = tiny_llama()
    observed = observe(model, find_sites(model), [tokens(4, 16)])
    for site in find_sites(model):
        eckart.models.places.replace(model, site, Dense(site.weight.clone()))
    before = states(model)
    assert heal(model, observed, 3) == Healing(3, (0.0, 0.0), (0.0, 0.0))
    assert_equal(model.state_dict(), before)


def test_padding_counts_for_nothing(trained: Callable[[str], nn.Module]) -> None:
    healed = []
    for filler in (0, 5):
        model = trained("separate")
        ids, mask = chain(32, 24, seed=7), torch.ones(32, 24, dtype=torch.long)
        mask[:, 16:] = 0
        ids[:, 16:] = filler
        batches = [{"input_ids": i, "attention_mask": m} for i, m in zip(ids.split(2), mask.split(2), strict=True)]
        observed = observe(model, find_sites(model), batches)
        eckart.compress(model, "svd", keep=0.4, of="linear-parameters")
        never_worse(heal(model, observed, STEPS))
        healed.append(model.state_dict())
    for name, t in healed[0].items():
        torch.testing.assert_close(healed[1][name], t, rtol=1e-3, atol=1e-4)


class Twins(nn.Module):
    """Two blocks that share a matrix, and one of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(16, 16), nn.Tanh()) for _ in range(3)])
        self.blocks[2][0].weight = self.blocks[0][0].weight  # type: ignore[index,union-attr]

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x


def test_a_block_that_shares_a_matrix_with_another_stays() -> None:
    torch.manual_seed(0)
    dense = Twins()
    x = list(torch.randn(200, 16).split(20))
    plain, healed = copy.deepcopy(dense), copy.deepcopy(dense)
    eckart.compress(plain, "svd", keep=0.6, of="linear-parameters", calibration=x)
    healing = never_worse(
        eckart.compress(healed, "svd", keep=0.6, of="linear-parameters", calibration=x, heal=STEPS).healing
    )
    assert healing.after[0] == healing.before[0]
    assert healing.after[1] < healing.before[1]
    assert healing.after[2] == healing.before[2]
    moved = {n for n, t in plain.state_dict().items() if not torch.equal(t, healed.state_dict()[n])}
    assert moved
    assert all(name.startswith("blocks.1.") for name in moved)


class Experts(nn.Module):
    """A block with a matrix that nothing reads."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.ModuleDict({"used": nn.Linear(16, 16), "idle": nn.Linear(16, 16)})])

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.idle = nn.Linear(16, 16), nn.Linear(16, 16)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.used(x)
            return y

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x


@pytest.mark.parametrize("idle_only", [False, True])
def test_matrices_that_nothing_reads(idle_only: bool) -> None:
    torch.manual_seed(0)
    model = Experts()
    model.blocks = nn.ModuleList([Experts.Block(), Experts.Block()])
    include = ("idle",) if idle_only else ()
    x = list(torch.randn(200, 16).split(20))
    result = eckart.compress(model, "svd", keep=0.9, of="linear-parameters", calibration=x, heal=STEPS, include=include)
    healing = never_worse(result.healing)
    assert (sum(healing.after) < sum(healing.before)) != idle_only


def test_batches_are_cut_so_that_some_can_judge() -> None:
    ids = tokens(20, 6)
    for batches in ([ids], list(ids.split(7)), list(ids.split(2))):
        pieces = cut(batches)
        assert len(pieces) >= JUDGES
        assert torch.equal(torch.cat(pieces), ids)  # type: ignore[arg-type]
    assert [len(p) for p in cut([ids[:3]])] == [1, 1, 1]
    assert len(cut(list(ids.split(2)))) == 10
    mapping = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    pieces = cut([mapping])
    assert len(pieces) == JUDGES
    for name, t in mapping.items():
        assert torch.equal(torch.cat([p[name] for p in pieces]), t)  # type: ignore[call-overload,index]
    odd = {"input_ids": ids, "position_ids": torch.arange(6)[None]}
    x = torch.randn(20, 6)
    for batch in (odd, x, {"input_ids": ids, "scale": torch.tensor(1.0)}):
        (piece,) = cut([batch])
        assert piece is batch
    assert cut([]) == []


@pytest.mark.parametrize("count", [1, 2, 8])
def test_few_sequences_will_do(count: int) -> None:
    model = tiny_llama()
    result = eckart.compress(model, "kfac", keep=0.6, of="linear-parameters", calibration=tokens(count, 16), heal=STEPS)
    never_worse(result.healing)
    assert any("trained and judged on the same one batch" in text for text in result.warnings) == (count == 1)


def test_a_plain_module() -> None:
    torch.manual_seed(1)
    dense = Blocks(residual=False)
    x = torch.randn(640, 16)
    plain, healed = copy.deepcopy(dense), copy.deepcopy(dense)
    eckart.compress(plain, "svd", keep=0.6, of="linear-parameters", calibration=list(x.split(40)))
    result = eckart.compress(healed, "svd", keep=0.6, of="linear-parameters", calibration=list(x.split(40)), heal=60)
    never_worse(result.healing)
    fresh = torch.randn(500, 16)
    errors = [float((m(fresh) - dense(fresh)).detach().square().mean()) for m in (plain, healed)]
    assert errors[1] < errors[0]


@pytest.mark.parametrize("steps", [-1, -50])
def test_a_recipe_of_fewer_than_no_steps(steps: int) -> None:
    with pytest.raises(ValueError, match=f"heal={steps} steps a block cannot be made"):
        Recipe(heal=steps)


def test_healing_needs_data() -> None:
    assert not needs_data(Recipe(method="svd"))
    assert needs_data(Recipe(method="svd", heal=1))
    with pytest.raises(ValueError, match="svd needs calibration data"):
        eckart.compress(Blocks(residual=False), "svd", keep=0.6, of="linear-parameters", heal=3)


@pytest.mark.parametrize(("steps", "rate"), [(0, 1e-3), (-1, 1e-3), (5, 0.0), (5, -1.0), (5, float("nan"))])
def test_bad_values_are_refused(steps: int, rate: float) -> None:
    model = tiny_llama()
    observed = observe(model, find_sites(model), [tokens(2, 8)])
    with pytest.raises(ValueError, match=f"steps={steps} must be at least 1, and rate={rate} above 0"):
        heal(model, observed, steps, rate=rate)


def test_what_cannot_be_healed_is_refused_before_anything_changes() -> None:
    model = nn.Sequential(nn.Linear(24, 16), nn.Linear(16, 16))
    before = states(model)
    with pytest.raises(ValueError, match="Sequential has no list of blocks"):
        eckart.compress(model, "svd", keep=0.6, of="linear-parameters", calibration=[torch.randn(9, 24)], heal=3)
    residual = Blocks(residual=True)
    with pytest.raises(ValueError, match=r"blocks.1 of Blocks does not take what blocks.0 returns"):
        eckart.compress(residual, "svd", keep=0.6, of="linear-parameters", calibration=[torch.randn(9, 16)], heal=3)
    assert_equal(model.state_dict(), before)
    assert not any(isinstance(m, StructuredLinear) for m in residual.modules())


def test_blocks_that_return_nan_are_named() -> None:
    model = tiny_llama()
    observed: Observed = observe(model, find_sites(model), [tokens(2, 8)])
    eckart.compress(model, "svd", keep=0.6, of="linear-parameters")
    model.model.layers[1].mlp.down_proj.structure.parts[0].weight.data[0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"model\.layers\.1 returns NaN or Inf on calibration data"):
        heal(model, observed, 2)


def test_the_dense_stream_is_the_dense_model() -> None:
    model = tiny_llama()
    ids = tokens(3, 9)
    expected = model(ids, output_hidden_states=True).hidden_states[1]
    observed = observe(model, find_sites(model), [ids])
    eckart.compress(model, "svd", keep=0.6, of="linear-parameters")
    (twin, block), _ = observed.blocks(model)
    assert block is model.model.layers[0]
    (y,), _ = forward(twin, observed.hidden, observed.calls[0], [])
    torch.testing.assert_close(y, expected)
