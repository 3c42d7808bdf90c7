"""Saving and loading: bit for bit, by eckart and by transformers, and a clear error for every kind of damage."""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

import eckart
from eckart.cli.app import main
from eckart.files.json import write_json
from eckart.jobs.export import to_dense_directory
from eckart.models import checkpoint
from eckart.models import transformers as hf
from eckart.models.modules import StructuredEmbedding, StructuredLinear, TiedLinear
from eckart.models.sites import find_sites, replace
from eckart.structures import Dense
from support.tiny import HIDDEN, VOCABULARY, save_tiny, tiny_gpt2, tiny_llama

IDS = torch.arange(24).view(2, 12) * 7 % VOCABULARY


class Net(nn.Module):
    """A plain module: tied embedding and head, the head with a bias; one layer under two names; a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 12)
        self.first = nn.Linear(12, 12)
        self.norm = nn.BatchNorm1d(12)
        self.second = self.first
        self.head = nn.Linear(12, 20)
        self.head.weight = self.embed.weight

    def get_output_embeddings(self) -> nn.Module:
        return self.head

    def forward(self, ids: Tensor) -> Tensor:
        logits: Tensor = self.head(self.second(self.norm(self.first(self.embed(ids)))))
        return logits


def net(seed: int = 0) -> Net:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Net().eval()
        nn.init.normal_(model.head.bias)
        nn.init.normal_(model.norm.running_mean)
    return model


def squeezed(model: nn.Module, method: str = "svd", **options: Any) -> nn.Module:
    eckart.compress(model, method, keep=0.75, of="bytes", calibration=IDS % 20, **options)
    return model


def assert_equal(a: nn.Module, b: nn.Module) -> None:
    first, second = a.state_dict(), b.state_dict()
    assert first.keys() == second.keys()
    for name in first:
        assert first[name].dtype == second[name].dtype, name
        assert torch.equal(first[name], second[name]), name


@pytest.mark.parametrize("options", [{"embeddings": True}, {"head": True, "exclude": ("first",)}, {}])
@pytest.mark.parametrize("method", ["svd", "lord", "kfac", "gptq"])
def test_a_plain_module_comes_back_bit_for_bit(tmp_path: Path, method: str, options: dict[str, Any]) -> None:
    model = net()
    if options or method != "gptq":
        model = squeezed(model, method, **options) if options else squeezed(model, method, embeddings=True)
    eckart.save(model, tmp_path / "saved")
    with torch.device("meta"):
        skeleton = Net().eval()
    for target in (net(seed=1), skeleton):
        loaded = eckart.load(tmp_path / "saved", target)
        assert loaded is target
        assert_equal(loaded, model)
        assert torch.equal(loaded(IDS[0] % 20), model(IDS[0] % 20))
        assert loaded.first is loaded.second
        if isinstance(model.head, TiedLinear):
            assert loaded.head.structure is loaded.embed.structure
        else:
            assert loaded.head.weight is loaded.embed.weight
        assert sum(p.numel() for p in loaded.parameters()) == sum(p.numel() for p in model.parameters())
        assert not any(t.is_meta for t in loaded.state_dict().values())
    assert sorted(p.name for p in (tmp_path / "saved").iterdir()) == ["eckart.json", "model.safetensors"]


def test_training_a_loaded_module_keeps_its_ties(tmp_path: Path) -> None:
    model = squeezed(net(), include=("first",), embeddings=True)
    eckart.save(model, tmp_path / "saved")
    loaded = eckart.load(tmp_path / "saved", net(seed=1))
    optimizer = torch.optim.SGD(loaded.parameters(), lr=0.1)
    loaded(IDS[0] % 20).square().mean().backward()
    optimizer.step()
    assert torch.equal(loaded.head.weight, loaded.embed.weight)
    assert not torch.equal(loaded.head.weight, model.head.weight)


def test_two_embeddings_over_one_structure(tmp_path: Path) -> None:
    def make() -> nn.ModuleDict:
        pair = nn.ModuleDict({"a": nn.Embedding(30, 8), "b": nn.Embedding(30, 8)})
        pair["b"].weight = pair["a"].weight
        return pair

    model = make()
    eckart.compress(model, "svd", keep=0.6, of="bytes", embeddings=True)
    ids = torch.tensor([1, 29])
    assert torch.equal(model["a"](ids), model["b"](ids))
    eckart.save(model, tmp_path / "saved")
    loaded = eckart.load(tmp_path / "saved", make())
    assert torch.equal(loaded["a"](ids), model["a"](ids))
    assert loaded["b"].structure is loaded["a"].structure


def test_saving_leaves_a_full_directory_alone(tmp_path: Path) -> None:
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "mine").write_text("x")
    with pytest.raises(ValueError, match="saved exists and is not empty"):
        eckart.save(net(), tmp_path / "saved")
    assert [p.name for p in tmp_path.rglob("*")] == ["saved", "mine"]
    eckart.save(net(), tmp_path / "new")
    assert not (tmp_path / "new.partial").exists()


def test_an_error_while_saving_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "write_json", fail)
    with pytest.raises(OSError, match="No space left"):
        eckart.save(net(), tmp_path / "saved")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("shard_bytes", [1, 700, 2000, 10**6])
def test_shards(tmp_path: Path, shard_bytes: int) -> None:
    model = squeezed(net(), embeddings=True)
    tensors = checkpoint.state(model)
    checkpoint.write_tensors(tensors, tmp_path, shard_bytes)
    sizes = [sum(t.numel() * t.element_size() for t in load_file(f).values()) for f in tmp_path.glob("*.safetensors")]
    assert all(size <= max(shard_bytes, 12 * 20 * 4) for size in sizes)
    assert len(sizes) == (1 if shard_bytes == 10**6 else len(tensors) if shard_bytes == 1 else len(sizes))
    back = checkpoint.read_tensors(tmp_path)
    assert back.keys() == tensors.keys()
    assert all(torch.equal(back[name], t) for name, t in tensors.items())
    if len(sizes) > 1:
        index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
        assert index["metadata"]["total_size"] == sum(sizes)
        write_json(checkpoint.manifest(model), tmp_path / "eckart.json")
        assert_equal(eckart.load(tmp_path, net(seed=1)), model)


# --- transformers ---------------------------------------------------------------------------------------------------

CASES = {
    "kfac": ("llama", {"method": "kfac", "embeddings": True}),
    "lord": ("gpt2", {"method": "lord"}),
    "gptq": ("llama", {"method": "gptq", "head": True}),
    "sequential": ("gpt2", {"method": "kfac", "sequential": True}),
    "untied": ("untied", {"method": "svd", "embeddings": True, "head": True}),
}


def base(kind: str) -> nn.Module:
    return {"llama": tiny_llama, "gpt2": tiny_gpt2, "untied": lambda: tiny_llama(tied=False)}[kind]()


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[nn.Module, Path]]:
    """Compressed models, and directories that `from_pretrained` is to read."""
    from tiny import tiny_tokenizer

    found = {}
    for name, (kind, options) in CASES.items():
        model = base(kind)
        eckart.compress(model, keep=0.8, of="bytes", calibration=IDS, **options)
        directory = tmp_path_factory.mktemp(name)
        hf.write_model(model, tiny_tokenizer(), directory)
        found[name] = model, directory
    return found


@pytest.mark.parametrize("case", CASES)
def test_transformers_reads_it_bit_for_bit(saved: dict[str, tuple[nn.Module, Path]], case: str) -> None:
    model, directory = saved[case]
    loaded, info = AutoModelForCausalLM.from_pretrained(directory, output_loading_info=True)
    assert not any(info[k] for k in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"))
    assert_equal(loaded, model)
    torch.testing.assert_close(loaded(IDS).logits, model(IDS).logits, rtol=1e-6, atol=1e-6)
    assert type(loaded) is type(model)
    kinds = [type(m) for m in loaded.modules() if isinstance(m, StructuredLinear | StructuredEmbedding | TiedLinear)]
    assert kinds == [
        type(m) for m in model.modules() if isinstance(m, StructuredLinear | StructuredEmbedding | TiedLinear)
    ]


@pytest.mark.parametrize("case", CASES)
def test_generation_works(saved: dict[str, tuple[nn.Module, Path]], case: str) -> None:
    model, directory = saved[case]
    loaded = AutoModelForCausalLM.from_pretrained(directory)
    expected = model.generate(IDS[:1], max_new_tokens=6, do_sample=False)
    assert torch.equal(loaded.generate(IDS[:1], max_new_tokens=6, do_sample=False), expected)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_another_dtype(saved: dict[str, tuple[nn.Module, Path]], case: str, dtype: torch.dtype) -> None:
    model, directory = saved[case]
    loaded = AutoModelForCausalLM.from_pretrained(directory, dtype=dtype)
    assert {t.dtype for t in loaded.parameters()} == {dtype}
    expected = copy.deepcopy(model).to(dtype)
    assert_equal(loaded, expected)
    if hasattr(expected.model if hasattr(expected, "model") else None, "rotary_emb"):
        expected.model.rotary_emb = loaded.model.rotary_emb  # its buffers stay in float32
    torch.testing.assert_close(loaded(IDS[:1]).logits, expected(IDS[:1]).logits)


@pytest.mark.parametrize("case", CASES)
def test_meta_device(saved: dict[str, tuple[nn.Module, Path]], case: str) -> None:
    model, directory = saved[case]
    loaded = AutoModelForCausalLM.from_pretrained(directory, device_map="meta")
    assert all(t.is_meta for t in loaded.state_dict().values())
    assert {n: t.shape for n, t in loaded.state_dict().items()} == {n: t.shape for n, t in model.state_dict().items()}


@pytest.mark.parametrize("case", CASES)
def test_a_loaded_model_saves_itself_again(saved: dict[str, tuple[nn.Module, Path]], case: str, tmp_path: Path) -> None:
    model, directory = saved[case]
    loaded = AutoModelForCausalLM.from_pretrained(directory)
    loaded.save_pretrained(tmp_path)
    again, info = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info[k] for k in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"))
    assert_equal(again, model)
    size = sum(f.stat().st_size for f in tmp_path.glob("*.safetensors"))
    assert size <= 1.1 * sum(f.stat().st_size for f in directory.glob("*.safetensors"))


@pytest.mark.parametrize("case", CASES)
def test_a_compressed_model_saved_by_transformers(
    saved: dict[str, tuple[nn.Module, Path]], case: str, tmp_path: Path
) -> None:
    # A model compressed in memory has no quantization_config: save_pretrained alone would lose the structures.
    model, _ = saved[case]
    hf.write_model(copy.deepcopy(model), None, tmp_path)
    assert_equal(AutoModelForCausalLM.from_pretrained(tmp_path), model)


def test_compressing_a_loaded_model_further(saved: dict[str, tuple[nn.Module, Path]], tmp_path: Path) -> None:
    _, directory = saved["lord"]
    loaded = AutoModelForCausalLM.from_pretrained(directory)
    dense = [site.name for site in find_sites(loaded, embeddings=True)]
    eckart.compress(loaded, "svd", keep=0.8, of="bytes", embeddings=True, include=("*wte",))
    assert dense
    hf.write_model(loaded, None, tmp_path)
    assert_equal(AutoModelForCausalLM.from_pretrained(tmp_path), loaded)


@pytest.mark.parametrize("case", CASES)
def test_training_a_loaded_model(saved: dict[str, tuple[nn.Module, Path]], case: str) -> None:
    loaded = AutoModelForCausalLM.from_pretrained(saved[case][1])
    loss = loaded(IDS, labels=IDS).loss
    loss.backward()
    for name, p in loaded.named_parameters():
        assert p.grad is not None or not p.requires_grad, name
    torch.optim.SGD(loaded.parameters(), lr=1e-5).step()
    assert loaded(IDS, labels=IDS).loss < loss


BEFORE = """
import sys
import eckart
assert "transformers" not in sys.modules
from transformers import AutoModelForCausalLM
"""
AFTER = """
import sys
from transformers import AutoModelForCausalLM
dense = AutoModelForCausalLM.from_pretrained(sys.argv[3])
assert not any(name.split(".")[0] == "eckart" for name in sys.modules)
import eckart
"""
SAME = """
import torch
from safetensors.torch import load_file
model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
reference = load_file(sys.argv[2])
logits = reference.pop("logits")
state = model.state_dict()
assert state.keys() == reference.keys()
assert all(torch.equal(state[name], reference[name]) for name in reference)
ids = torch.arange(24).view(2, 12) * 7 % 300
torch.testing.assert_close(model(ids).logits, logits, rtol=1e-5, atol=1e-5)
print(type(model).__name__)
"""


def fresh(code: str, *arguments: str) -> str:
    source = str(Path(eckart.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": source, "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, "-c", code, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr[-2000:]
    return run.stdout.strip()


@pytest.mark.parametrize("imports", [BEFORE, AFTER], ids=["eckart first", "transformers first"])
def test_in_a_fresh_process(saved: dict[str, tuple[nn.Module, Path]], imports: str, tmp_path: Path) -> None:
    # An export is to load there before eckart is imported, the compressed model after.
    model, directory = saved["kfac"]
    to_dense_directory(str(directory), tmp_path / "dense")
    reference = {n: t.detach().clone() for n, t in model.state_dict().items()}
    expected = tmp_path / "expected.safetensors"
    save_file({**reference, "logits": model(IDS).logits.detach().contiguous()}, expected)
    assert fresh(imports + SAME, str(directory), str(expected), str(tmp_path / "dense")) == "LlamaForCausalLM"


# --- export ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_export_gives_an_ordinary_model(saved: dict[str, tuple[nn.Module, Path]], case: str, tmp_path: Path) -> None:
    model, directory = saved[case]
    to_dense_directory(str(directory), tmp_path / "dense")
    config = json.loads((tmp_path / "dense" / "config.json").read_text())
    assert "quantization_config" not in config
    loaded, info = AutoModelForCausalLM.from_pretrained(tmp_path / "dense", output_loading_info=True)
    assert not any(info[k] for k in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"))
    torch.testing.assert_close(loaded(IDS).logits, model(IDS).logits, rtol=1e-3, atol=1e-4)
    plain = base(CASES[case][0])
    extra = set(loaded.state_dict()) - set(plain.state_dict())
    assert all(name.endswith(".bias") for name in extra)
    assert not extra or case == "kfac"
    tied = plain.get_output_embeddings().weight is plain.get_input_embeddings().weight
    assert (loaded.get_output_embeddings().weight is loaded.get_input_embeddings().weight) == tied
    assert not any(type(m).__module__.startswith("eckart") for m in loaded.modules())


def test_export_refuses_biases_that_have_no_place(tmp_path: Path) -> None:
    from tiny import tiny_tokenizer
    from transformers import Qwen2Config, Qwen2ForCausalLM

    llama = tiny_llama().config
    keys = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    config = Qwen2Config(**{k: getattr(llama, k) for k in keys}, num_key_value_heads=2)
    for method in ("lord", "svd"):
        model = Qwen2ForCausalLM(config).eval()
        eckart.compress(model, method, keep=0.8, calibration=IDS, include=("*q_proj", "*down_proj"))
        (tmp_path / method).mkdir()
        hf.write_model(model, tiny_tokenizer(), tmp_path / method)
        if method == "svd":
            to_dense_directory(str(tmp_path / method), tmp_path / "dense")
            loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "dense")
            torch.testing.assert_close(loaded(IDS).logits, model(IDS).logits, rtol=1e-3, atol=1e-4)
            continue
        with pytest.raises(ValueError, match=r"Qwen2ForCausalLM has no place for the biases of 2 matrices .*down_proj"):
            to_dense_directory(str(tmp_path / method), tmp_path / "dense")
        assert not (tmp_path / "dense").exists()


def test_transformers_reads_shards(
    saved: dict[str, tuple[nn.Module, Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, _ = saved["kfac"]
    write = checkpoint.write_tensors
    monkeypatch.setattr(checkpoint, "write_tensors", lambda tensors, where: write(tensors, where, 20_000))
    hf.write_model(model, None, tmp_path)
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    assert_equal(AutoModelForCausalLM.from_pretrained(tmp_path), model)


def test_export_refuses_what_is_dense(llama_directory: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no structured matrices; it is dense already"):
        to_dense_directory(str(llama_directory), tmp_path / "dense")
    assert not list(tmp_path.iterdir())


# --- damage ---------------------------------------------------------------------------------------------------------


def edit_json(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    value = json.loads(file.read_text())
    change(value)
    file.write_text(json.dumps(value))


def edit_tensors(directory: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    file = directory / "model.safetensors"
    tensors = {name: t.clone() for name, t in load_file(file).items()}
    change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})


def cut(directory: Path) -> None:
    file = directory / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-50])


def garbage(directory: Path) -> None:
    file = directory / "model.safetensors"
    file.write_bytes(b"\xff" * 64 + file.read_bytes()[64:])


def empty(directory: Path) -> None:
    (directory / "model.safetensors").write_bytes(b"")


def huge_header(directory: Path) -> None:
    (directory / "model.safetensors").write_bytes((2**62).to_bytes(8, "little") + b"{}")


def permuted(tensors: dict[str, Tensor]) -> str:
    return next(name for name in tensors if name.endswith(".index"))


def out_of_range(directory: Path) -> None:
    edit_tensors(directory, lambda t: t[permuted(t)].__setitem__(0, 10_000))


def negative(directory: Path) -> None:
    edit_tensors(directory, lambda t: t[permuted(t)].__setitem__(0, -1))


def missing_tensor(directory: Path) -> None:
    edit_tensors(directory, lambda t: t.pop(permuted(t)))


def missing_dense_tensor(directory: Path) -> None:
    edit_tensors(directory, lambda t: t.pop(next(n for n in t if n.endswith(("norm.weight", "first.bias")))))


def wrong_tensor_shape(directory: Path) -> None:
    edit_tensors(directory, lambda t: t.update({permuted(t): torch.zeros(3, dtype=torch.int32)}))


def outside_index(name: str) -> Callable[[Path], None]:
    def change(directory: Path) -> None:
        file = directory / "model.safetensors"
        tensors = list(load_file(file))
        target = directory.parent / "outside.safetensors"
        shutil.move(file, target)
        where = str(target) if name == "absolute" else name
        index = {"metadata": {}, "weight_map": dict.fromkeys(tensors, where)}
        (directory / "model.safetensors.index.json").write_text(json.dumps(index))
        save_file({"unused": torch.ones(1)}, directory / "model-00001-of-00001.safetensors")

    return change


def broken_index(directory: Path) -> None:
    (directory / "model.safetensors").rename(directory / "model-00001-of-00002.safetensors")
    (directory / "model.safetensors.index.json").write_text("{")


def missing_shard(directory: Path) -> None:
    tensors = list(load_file(directory / "model.safetensors"))
    (directory / "model.safetensors").rename(directory / "model-00001-of-00002.safetensors")
    weight_map = dict.fromkeys(tensors, "model-00001-of-00002.safetensors")
    weight_map[tensors[0]] = "model-00002-of-00002.safetensors"
    (directory / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def structures(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    return [m for m in manifest["modules"].values() if "structure" in m]


def unknown_kind(manifest: dict[str, Any]) -> None:
    structures(manifest)[0]["structure"]["kind"] = "wavelet"


def unknown_child(manifest: dict[str, Any]) -> None:
    spec = structures(manifest)[0]["structure"]
    child = {**spec, "kind": "os.system"}
    structures(manifest)[0]["structure"] = {"kind": "sum", "shape": spec["shape"], "children": [child]}


def unknown_module(manifest: dict[str, Any]) -> None:
    structures(manifest)[0]["module"] = "convolution"


def wrong_shape(manifest: dict[str, Any]) -> None:
    structures(manifest)[0]["structure"]["shape"][0] += 1


def other_shape(manifest: dict[str, Any]) -> None:
    structures(manifest)[0]["structure"] = Dense(torch.ones(3, 5)).spec()


def no_structure(manifest: dict[str, Any]) -> None:
    del structures(manifest)[0]["structure"]


def bad_entry(manifest: dict[str, Any]) -> None:
    manifest["modules"][next(iter(manifest["modules"]))] = "linear"


def bad_leaves(manifest: dict[str, Any]) -> None:
    structures(manifest)[0]["structure"] = {"kind": "dense", "shape": [12, 12], "leaves": {"weight": ["complex64", 2]}}


def huge_leaf(manifest: dict[str, Any]) -> None:
    spec = {"kind": "dense", "shape": [10**9, 10**9], "leaves": {"weight": ["float32", 10**9, 10**9]}}
    structures(manifest)[0]["structure"] = spec


def huge_missing(manifest: dict[str, Any]) -> None:
    # Fits outside, and no tensor of it is in the files.
    spec = structures(manifest)[0]["structure"]
    (out, columns), n = spec["shape"], 10**12
    left = {"kind": "dense", "shape": [out, n], "leaves": {"weight": ["float32", out, n]}}
    right = {"kind": "dense", "shape": [n, columns], "leaves": {"weight": ["float32", n, columns]}}
    chain = {"kind": "chain", "shape": [out, columns], "children": [left, right]}
    structures(manifest)[0]["structure"] = {"kind": "sum", "shape": [out, columns], "children": [chain]}


def infinite_leaf(manifest: dict[str, Any]) -> None:
    spec = {"kind": "dense", "shape": [12, 12], "leaves": {"weight": ["float32", float("inf"), 12]}}
    structures(manifest)[0]["structure"] = spec


def shape_of_nothing(manifest: dict[str, Any]) -> None:
    structures(manifest)[0]["structure"]["shape"] = None


def nested(manifest: dict[str, Any]) -> None:
    spec = structures(manifest)[0]["structure"]
    for _ in range(100):
        spec = {"kind": "sum", "shape": spec["shape"], "children": [spec]}
    structures(manifest)[0]["structure"] = spec


def nested_in_json(directory: Path) -> None:
    for name in ("eckart.json", "config.json"):
        if (directory / name).exists():
            (directory / name).write_text('{"modules": ' + "[" * 100_000 + "]" * 100_000 + "}")


def no_such_module(manifest: dict[str, Any]) -> None:
    manifest["modules"]["layers.99.fc"] = structures(manifest)[0]


def a_container(manifest: dict[str, Any]) -> None:
    manifest["modules"][""] = structures(manifest)[0]


def newer(manifest: dict[str, Any]) -> None:
    manifest["format"], manifest["version"] = 99, "7.1"


def no_format(manifest: dict[str, Any]) -> None:
    del manifest["format"]


def no_modules(manifest: dict[str, Any]) -> None:
    manifest["modules"] = ["first"]


FILES: dict[str, tuple[Callable[[Path], None], str]] = {
    "cut": (cut, "model.safetensors is damaged or cut short"),
    "garbage": (garbage, "model.safetensors is damaged or cut short"),
    "empty": (empty, "model.safetensors is damaged or cut short"),
    "huge header": (huge_header, "model.safetensors is damaged or cut short"),
    "index out of range": (out_of_range, "index .*10000.* outside|index .* 10000"),
    "negative index": (negative, "index .*-1"),
    "missing tensor": (missing_tensor, r"\.index|Permutation: index"),
    "missing dense tensor": (missing_dense_tensor, "weight|bias|norm"),
    "tensor of another shape": (wrong_tensor_shape, r"\.index.*shape|shape.*\.index|mismatch"),
    "index to the parent": (outside_index("../outside.safetensors"), "not a safetensors file of this directory"),
    "absolute index": (outside_index("absolute"), "not a safetensors file of this directory"),
    "broken index": (broken_index, "index.json cannot be read as JSON"),
    "nested in JSON": (nested_in_json, r"(eckart|config)\.json cannot be read as JSON: maximum recursion depth"),
    "missing shard": (missing_shard, "has no model-00002-of-00002.safetensors"),
}
MANIFESTS: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "unknown kind": (unknown_kind, "unknown structure kind 'wavelet'; this version knows .*chain"),
    "unknown child": (unknown_child, "unknown structure kind 'os.system'"),
    "unknown module": (unknown_module, "unknown module 'convolution'"),
    "wrong shape": (wrong_shape, "states shape"),
    "other shape": (other_shape, r"a structure of shape \(3, 5\) does not fit"),
    "no structure": (no_structure, "not a structure spec"),
    "bad entry": (bad_entry, "malformed: 'linear'"),
    "bad leaves": (bad_leaves, "dtype 'complex64' is not one of"),
    "huge leaf": (huge_leaf, "does not fit|malformed"),
    "huge and missing": (huge_missing, r"parts\.0\.parts\.0\.weight"),
    "infinite leaf": (infinite_leaf, "malformed 'dense' spec: cannot convert float infinity to integer"),
    "shape of nothing": (shape_of_nothing, "states shape None"),
    "nested": (nested, "structures are nested more than 64 deep"),
    "no such module": (no_such_module, "names a module 'layers.99.fc' that .* does not have"),
    "a container": (a_container, "cannot stand in for"),
    "newer": (newer, r"written by eckart 7.1 in format 99; .*upgrade with pip install -U eckart"),
    "no format": (no_format, "in format None"),
    "no modules": (no_modules, "not an eckart manifest"),
}


@pytest.fixture(scope="module")
def plain_saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("plain") / "saved"
    model = net()
    eckart.compress(model, "kfac", keep=0.75, of="bytes", calibration=IDS % 20, embeddings=True)
    eckart.save(model, directory)
    return directory


@pytest.mark.parametrize("damage", [*FILES, *MANIFESTS])
def test_damage_to_a_plain_checkpoint(damage: str, plain_saved: Path, tmp_path: Path) -> None:
    directory = tmp_path / "saved"
    shutil.copytree(plain_saved, directory)
    if damage in FILES:
        change, message = FILES[damage]
        change(directory)
    else:
        edit, message = MANIFESTS[damage]
        edit_json(directory / "eckart.json", edit)
    with pytest.raises(ValueError, match=message):
        eckart.load(directory, net())


@pytest.mark.parametrize("damage", [*FILES, *MANIFESTS])
def test_damage_to_a_compressed_directory(
    damage: str,
    saved: dict[str, tuple[nn.Module, Path]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    texts: tuple[str, str],
) -> None:
    directory = tmp_path / "saved"
    shutil.copytree(saved["kfac"][1], directory)
    if damage in FILES:
        change, message = FILES[damage]
        change(directory)
    else:
        edit, message = MANIFESTS[damage]
        edit_json(directory / "config.json", lambda config: edit(config["quantization_config"]))
    with pytest.raises(ValueError, match=message):
        hf.load_model(str(directory))
    if damage in ("cut", "newer", "no such module", "index out of range"):
        assert main(["evaluate", str(directory), "--text", texts[0], "--no-speed"]) == 2
        assert "eckart: error:" in capsys.readouterr().err


def test_a_directory_that_eckart_did_not_write(tmp_path: Path, llama_directory: Path) -> None:
    with pytest.raises(ValueError, match=r"has no eckart.json; was it written by eckart.save\?"):
        eckart.load(llama_directory, tiny_llama())
    with pytest.raises(ValueError, match=r"has no eckart.json"):
        eckart.load(tmp_path / "nowhere", tiny_llama())


def test_another_architecture_is_refused(plain_saved: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="names a module 'embed' that Sequential does not have"):
        eckart.load(plain_saved, nn.Sequential(nn.Linear(3, 3)))
    eckart.save(nn.Sequential(nn.Linear(3, 3)), tmp_path / "a")
    with pytest.raises(ValueError, match=r"0.(weight|bias): the file holds shape \(3.*\), not \(5"):
        eckart.load(tmp_path / "a", nn.Sequential(nn.Linear(3, 5)))
    with pytest.raises(ValueError, match=r"(?s)does not fit Sequential: .*1.weight"):
        eckart.load(tmp_path / "a", nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)))


def test_directories_that_are_no_models(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no directory /nonexistent/model"):
        hf.load_model("/nonexistent/model")
    with pytest.raises(ValueError, match=r"there is no directory \./model"):
        hf.load_model("./model")
    with pytest.raises(ValueError, match=r"has no config\.json; is it a model directory"):
        hf.load_model(str(tmp_path))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json cannot be read as JSON"):
        hf.load_model(str(tmp_path))
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(ValueError, match=r"config\.json does not hold a JSON object"):
        hf.load_model(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ValueError, match=r"has no \*.safetensors weights"):
        hf.load_model(str(tmp_path))
    with pytest.raises(ValueError, match="is no GGUF file; name the directory"):
        hf.load_model(str(tmp_path / "config.json"))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth", "model.ckpt", "model.pkl"])
def test_pickles_of_other_names_are_known(name: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ValueError, match=rf"only pickled weights \({name}\).*convert them once"):
        hf.load_model(str(tmp_path))


@pytest.mark.parametrize("content", [None, "{", "[]", '{"model": 5}', "\0"])
def test_a_tokenizer_that_cannot_be_read_is_named(content: str | None, tmp_path: Path, llama_directory: Path) -> None:
    directory = tmp_path / "m"
    shutil.copytree(llama_directory, directory)
    (directory / "tokenizer.json").unlink()
    if content is not None:
        (directory / "tokenizer.json").write_text(content)
    with pytest.raises(ValueError, match=r"(?s)m has no tokenizer that can be read .*tokenizer.save_pretrained\(DIR\)"):
        hf.load_model(str(directory))


@pytest.mark.parametrize(
    "change",
    [{"hidden_size": "x"}, {"hidden_size": -5}, {"quantization_config": 5}, {"num_hidden_layers": 0.5}],
    ids=str,
)
def test_a_configuration_of_nonsense_is_refused(change: dict[str, Any], tmp_path: Path, llama_directory: Path) -> None:
    shutil.copytree(llama_directory, tmp_path / "m")
    edit_json(tmp_path / "m" / "config.json", lambda config: config.update(change))
    with pytest.raises(ValueError, match=r"m cannot be loaded: "):
        hf.load_model(str(tmp_path / "m"))


def test_pickled_weights_are_refused_with_advice(tmp_path: Path, llama_directory: Path) -> None:
    shutil.copytree(llama_directory, tmp_path / "pickled")
    (tmp_path / "pickled" / "model.safetensors").unlink()
    torch.save(tiny_llama().state_dict(), tmp_path / "pickled" / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"only pickled weights \(pytorch_model.bin\).*from_pretrained.*save_pretrain"):
        hf.load_model(str(tmp_path / "pickled"))


def test_an_unknown_architecture_is_refused(tmp_path: Path, llama_directory: Path) -> None:
    shutil.copytree(llama_directory, tmp_path / "m")
    edit_json(tmp_path / "m" / "config.json", lambda config: config.update(model_type="nonesuch"))
    with pytest.raises(ValueError, match="nonesuch"):
        hf.load_model(str(tmp_path / "m"))


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path, llama_directory: Path) -> None:
    shutil.copytree(llama_directory, tmp_path / "m")
    witness = tmp_path / "ran"
    (tmp_path / "m" / "modeling.py").write_text(f"open({str(witness)!r}, 'w').close()\n")
    edit_json(
        tmp_path / "m" / "config.json",
        lambda config: config.update(model_type="own", auto_map={"AutoModelForCausalLM": "modeling.Own"}),
    )
    with pytest.raises(ValueError, match=r"m cannot be loaded|trust_remote_code|own"):
        hf.load_model(str(tmp_path / "m"))
    assert not witness.exists()


def test_a_dense_directory_with_missing_weights_is_refused(tmp_path: Path) -> None:
    # transformers fills them with random numbers and a warning.
    save_tiny(tmp_path)
    edit_tensors(tmp_path, lambda t: t.pop("model.layers.1.mlp.up_proj.weight"))
    with pytest.raises(ValueError, match=r"model.layers.1.mlp.up_proj.weight"):
        hf.load_model(str(tmp_path))


def test_files_hold_every_number_once(saved: dict[str, tuple[nn.Module, Path]]) -> None:
    for model, directory in saved.values():
        with safe_open(directory / "model.safetensors", "pt") as opened:
            names = set(opened.keys())
        tensors = {n: t for n, t in model.state_dict().items() if n in names}
        pointers = {t.data_ptr() for t in model.state_dict().values()}
        assert len(names) == len(pointers) == len(tensors)


def test_weights_are_as_readable_as_other_files(saved: dict[str, tuple[nn.Module, Path]]) -> None:
    _, directory = saved["kfac"]
    modes = {file.name: file.stat().st_mode & 0o777 for file in directory.iterdir()}
    assert modes["model.safetensors"] == modes["config.json"]


def test_replaced_by_hand(tmp_path: Path) -> None:
    model = net()
    for site in find_sites(model, ["first"]):
        replace(model, site, Dense(torch.eye(12)), torch.ones(12))
    eckart.save(model, tmp_path / "saved")
    loaded = eckart.load(tmp_path / "saved", net(seed=2))
    assert_equal(loaded, model)
    assert HIDDEN > 12
