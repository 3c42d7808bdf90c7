"""Convolutions: structures over patches, their statistics, every method on them, and the methods for kernels alone."""

from __future__ import annotations

import copy
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import eckart
from eckart import METHODS, Metric, Need, Statistics, StructuredConv2d, StructuredLinear
from eckart.compressors.contract import Family
from eckart.compressors.cp import expression as canonical
from eckart.compressors.spatial_svd import rearranged
from eckart.compressors.tucker_2 import expression as tucker
from eckart.compressors.tucker_2 import rank_path
from eckart.jobs.compress.run import Recipe, run
from eckart.jobs.compress.summary import expression
from eckart.jobs.export import _fill
from eckart.linalg.cp import alternating, sweep
from eckart.linalg.tucker import core, hooi, leading, modes, tails
from eckart.models.checkpoint import check_manifest, manifest, rebuild
from eckart.models.sites import find_sites, model_cost, replace
from eckart.statistics import collect, patches, statistics_for
from eckart.structures import Chain, Dense, Geometry, Interleaved, StructuredMatrix, geometry_of, low_rank
from support import hard
from support.market import BUILDERS, Stall

KERNELS = ("spatial-svd", "tucker-2", "cp")
GEOMETRIES = [
    {"kernel_size": 3},
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": (3, 2), "stride": (2, 1), "padding": (0, 2), "dilation": (1, 2)},
    {"kernel_size": (2, 2), "padding": "same"},
    {"kernel_size": (2, 3), "padding": "same", "dilation": (1, 2)},
    {"kernel_size": (1, 3), "stride": 2, "padding": "valid"},
    {"kernel_size": (3, 1), "stride": (1, 3), "padding": (1, 0)},
    {"kernel_size": (1, 2), "dilation": 3},
    {"kernel_size": 1, "stride": 2, "padding": 1},
    {"kernel_size": 1},
]
geometries = pytest.mark.parametrize("options", GEOMETRIES, ids=str)


def convolution(channels: int, out: int, options: dict, seed: int = 0) -> nn.Conv2d:
    """An nn.Conv2d in float64 with normal weights."""
    layer = nn.Conv2d(channels, out, **options).double()
    with torch.no_grad():
        layer.weight.copy_(hard.normal(*layer.weight.shape, seed=seed))
        layer.bias.copy_(hard.normal(out, seed=seed + 1))
    return layer


def by_matrix(structure: StructuredMatrix, options: dict, x: Tensor) -> Tensor:
    """What PyTorch makes of the structure's matrix as a kernel."""
    layer = nn.Conv2d(x.shape[-3], structure.shape[0], **options, bias=False).double()
    layer.weight = nn.Parameter(structure.to_dense().detach().double().reshape(layer.weight.shape))
    return layer(x)


def geometry(options: dict) -> Geometry:
    found = geometry_of(nn.Conv2d(1, 1, **options))
    assert found is not None
    return found


@geometries
@pytest.mark.parametrize("name", BUILDERS)
def test_every_structure_acts_on_patches_as_its_matrix_does(name: str, options: dict) -> None:
    structure = BUILDERS[name](Stall(name, torch.float64))
    height, width = geometry(options).kernel
    if structure.shape[1] % (height * width) or structure.shape[1] > 100:
        pytest.skip("no such patches")
    x = hard.normal(2, structure.shape[1] // (height * width), 7, 8).requires_grad_()
    module = StructuredConv2d(structure, hard.normal(structure.shape[0]), geometry(options))
    expected = by_matrix(structure, options, x) + module.bias[:, None, None]
    # A structure without float leaves is written out in float32.
    tolerance = 1e-10 if any(p.is_floating_point() for p in structure.parameters()) else 1e-5
    y = module(x)
    torch.testing.assert_close(y, expected, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(module(x[0]), y[0], rtol=1e-10, atol=1e-10)
    cotangent = hard.normal(*y.shape)
    gradients = [torch.autograd.grad(each, x, cotangent)[0] for each in (y, expected)]
    torch.testing.assert_close(*gradients, rtol=tolerance, atol=10 * tolerance)


def factored(height: int, width: int) -> dict[str, StructuredMatrix]:
    """What the methods make of kernels, with random factors: 4 outputs, 3 channels."""
    area, vertical = height * width, Interleaved(Dense(hard.normal(2, 3 * height)), copies=width)
    return {
        "low-rank": low_rank(hard.normal(4, 2), hard.normal(2, 3 * area)),
        "spatial": Chain(
            Dense(hard.normal(4, 2 * width)), Interleaved(Dense(hard.normal(2, 3 * height)), copies=width)
        ),
        "tucker": tucker(hard.normal(4, 2), hard.normal(2, 2, height, width), hard.normal(3, 2)),
        "canonical": canonical([hard.normal(n, 5) for n in (4, 3, height, width)]),
        "vertical-alone": vertical,
    }


@geometries
@pytest.mark.parametrize("name", factored(1, 1))
def test_factors_are_convolutions_of_their_own(name: str, options: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    place = geometry(options)
    structure, x = factored(*place.kernel)[name], hard.normal(2, 3, 9, 8)
    expected = by_matrix(structure, options, x)
    if name != "vertical-alone" and place.kernel != (1, 1):
        monkeypatch.setattr(F, "unfold", None)  # patches are never written out
        monkeypatch.setattr(type(structure), "to_dense", None)  # nor is the matrix
    torch.testing.assert_close(StructuredConv2d(structure, None, place)(x), expected, rtol=1e-10, atol=1e-10)


def test_a_matrix_that_does_not_act_on_such_patches_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(4, 7\) does not act on patches of 3 x 1"):
        StructuredConv2d(Dense(torch.ones(4, 7)), None, Geometry((3, 1)))
    for name in KERNELS:
        with pytest.raises(ValueError, match=r"\(4, 7\) does not act on patches of 3 x 1"):
            METHODS.find(name).entry(torch.ones(4, 7), Statistics(kernel=(3, 1)))


class Net(nn.Module):
    """Convolutions of all sorts; two read one tensor, activations work in place, the head is linear."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.first = nn.Conv2d(2, 8, 3, padding=1)
            self.norm = nn.BatchNorm2d(8)
            self.act = nn.ReLU(inplace=True)
            self.second = nn.Conv2d(8, 12, (3, 2), stride=2, padding=(1, 0), dilation=(1, 2), bias=False)
            self.short = nn.Conv2d(8, 12, 1, stride=2)
            self.third = nn.Conv2d(12, 8, 3, padding="same")
            self.head = nn.Linear(8, 5)

    def features(self, x: Tensor) -> dict[str, Tensor]:
        """Inputs and outputs of the convolutions."""
        a = self.first(x)
        b = self.act(self.norm(a).clone())
        c, d = self.second(b), self.short(b)
        e = c[..., :4] + d[..., :4]
        f = self.third(e)
        return {"first": (x, a), "second": (b, c), "short": (b, d), "third": (e, f)}

    def forward(self, x: Tensor) -> Tensor:
        a = self.act(self.first(x)) if self.training else self.act(self.norm(self.first(x)))
        c = self.second(a)[..., :4] + self.short(a)[..., :4]
        y: Tensor = self.head(self.third(c).mean((2, 3)))
        return y


def net(seed: int = 0) -> Net:
    return Net(seed).eval()


def images(n: int = 6, seed: int = 3) -> Tensor:
    return hard.normal(n, 2, 10, 10, seed=seed).float()


def independent(model: Net, name: str, batches: list[Tensor], seed: int) -> Statistics:
    """Statistics of a convolution by F.unfold and ordinary autograd, image by image."""
    generator = torch.Generator().manual_seed(seed)
    layer = model.get_submodule(name)
    xs, gs, squares = [], [], torch.zeros_like(layer.weight.flatten(1), dtype=torch.float64)
    for batch in batches:
        labels = torch.randn(len(batch), 5, generator=generator)
        for image, label in zip(batch, labels, strict=True):
            seen = model.features(image[None])
            x, y = seen[name]
            output = model.head(seen["third"][1].mean((2, 3)))
            g, dw = torch.autograd.grad((output * label).sum(), [y, layer.weight])
            padding = layer.padding if layer.padding != "same" else 1
            xs.append(F.unfold(x, layer.kernel_size, layer.dilation, padding, layer.stride)[0].T.double())
            gs.append(g[0].flatten(1).T.double())
            squares += dw.flatten(1).double().square() / sum(map(len, batches))
    x, g = torch.cat(xs).detach(), torch.cat(gs)
    return Statistics(
        tokens=len(x),
        input_second_moment=x.T @ x / len(x),
        input_mean=x.mean(0),
        input_abs_mean=x.abs().mean(0),
        gradient_second_moment=g.T @ g / len(xs),  # the sum over the positions of an image
        fisher_rows=squares.sum(1),
        fisher_columns=squares.sum(0),
    )


@pytest.mark.parametrize("entries", [1 << 23, 3000])
def test_statistics_are_those_of_the_patches(entries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patches, "ENTRIES", entries)
    model, batches = net(), [images(5), images(2, seed=4)]
    names = ["first", "second", "short", "third"]
    found = collect(model, {name: model.get_submodule(name) for name in names}, tuple(Need), batches, seed=7)
    for name in names:
        expected = independent(model, name, batches, seed=7)
        assert found[name].tokens == expected.tokens
        assert found[name].kernel == model.get_submodule(name).kernel_size
        for need in set(Need) - {Need.INPUT_SAMPLE}:
            got, wanted = found[name].get(need), expected.get(need)
            assert (got - wanted).norm() <= 1e-4 * wanted.norm(), (name, need)


def test_statistics_of_a_structured_convolution_are_those_of_the_dense_one(tmp_path: Path) -> None:
    model = net()
    site = find_sites(model, ["second"])[0]
    expected, _ = statistics_for(model, {"second": model.second}, tuple(Need), [images()])
    replace(model, site, Dense(site.weight.clone()))
    cached = [statistics_for(model, {"second": model.second}, tuple(Need), [images()], cache=tmp_path) for _ in "ab"]
    assert [passes for _, passes in cached] == [1, 0]
    for found, _ in cached:
        assert found["second"].kernel == (3, 2)
        for need in set(Need) - {Need.INPUT_SAMPLE}:
            torch.testing.assert_close(found["second"].get(need), expected["second"].get(need), rtol=1e-3, atol=1e-6)
    assert statistics_for(model, {"second": model.second}, (), [])[0]["second"].kernel == (3, 2)


class Odd(nn.Module):
    """Convolutions that are not one matrix over patches of zero-padded images, or not of one module."""

    def __init__(self) -> None:
        super().__init__()
        self.grouped = nn.Conv2d(4, 4, 3, groups=2)
        self.circular = nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular")
        self.transposed = nn.ConvTranspose2d(4, 4, 3)
        self.own = type("Own", (nn.Conv2d,), {})(4, 4, 3)
        self.a, self.b = nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3, stride=2)
        self.b.weight = self.a.weight
        self.plain = nn.Conv2d(4, 6, 3)
        self.again = self.plain


def test_which_convolutions_are_sites() -> None:
    sites = find_sites(Odd())
    assert [(site.name, site.tied, site.shape) for site in sites] == [("plain", ("again",), (6, 36))]


def test_replacing_by_the_same_matrix_changes_nothing_and_costs_are_counted() -> None:
    model, x = net(), images()
    expected, before = model(x), model_cost(model)
    kernels = [m.weight.numel() for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert before["macs_per_token"] == sum(kernels)
    assert before["linear_parameters"] == sum(kernels) + 8 + 12 + 8 + 5
    assert before["parameters"] == sum(p.numel() for p in model.parameters())
    for site in find_sites(model):
        replace(model, site, Dense(site.weight.clone()))
    assert sum(type(m) is StructuredConv2d for m in model.modules()) == 4
    torch.testing.assert_close(model(x), expected)
    assert model_cost(model) == before


@pytest.mark.parametrize("method", METHODS)
def test_every_method_compresses_a_network_and_the_file_holds_it(method: str, tmp_path: Path) -> None:
    model, x = net(), images()
    result = eckart.compress(model, method=method, keep=0.85, of="bytes", calibration=[images(8, seed=5)])
    assert not result.warnings
    convolutions = {n: m for n, m in model.named_modules() if isinstance(m, StructuredConv2d)}
    assert convolutions
    eckart.save(model, tmp_path / "small")
    loaded = eckart.load(tmp_path / "small", Net(seed=9)).eval()
    assert {n: expression(m.structure) for n, m in loaded.named_modules() if isinstance(m, StructuredConv2d)} == {
        n: expression(m.structure) for n, m in convolutions.items()
    }
    one, other = model.state_dict(), loaded.state_dict()
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)
    # Copied, because a file aligns tensors to 8 bytes only, and the order of a sum can depend on that.
    assert torch.equal(copy.deepcopy(loaded)(x), model(x))


@pytest.mark.parametrize("method", ["svd", "kfac", "auto", *KERNELS])
def test_more_of_a_network_is_nearer_to_it(method: str) -> None:
    dense, x = net(), images(32, seed=8)
    errors = []
    for keep in (0.3, 0.95):
        model = net()
        options = {"keep": keep, "calibration": [images(32, seed=5)], "exclude": ("head",)}
        eckart.compress(model, method=method, **options)
        errors.append(((model(x) - dense(x)).norm() / dense(x).norm()).item())
    assert errors[1] < 0.5 * errors[0]
    assert errors[1] < 0.1


def normal_kernel(*shape: int, seed: int = 0) -> Tensor:
    return hard.normal(*shape, seed=seed)


def family(name: str, kernel: Tensor) -> Family:
    return METHODS.find(name).entry(kernel.flatten(1), Statistics(kernel=(kernel.shape[2], kernel.shape[3])))


def chosen(family: Family) -> list[int]:
    sizes = list(family.sizes)
    return list(dict.fromkeys([sizes[0], sizes[len(sizes) // 2], sizes[-1]])) if sizes else []


@pytest.mark.parametrize("shape", [(6, 5, 3, 3), (5, 6, 2, 3), (7, 5, 1, 3), (5, 7, 3, 1), (9, 1, 3, 3)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", KERNELS)
def test_a_family_of_kernels_keeps_its_promises(name: str, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    kernel = normal_kernel(*shape).to(dtype)
    found = family(name, kernel)
    assert [c.bytes for c in found.costs] == sorted(c.bytes for c in found.costs)
    assert len(found.sizes) > 0
    assert found.costs[-1].parameters < kernel.numel()
    at = dict(zip(found.sizes, zip(found.costs, found.errors, strict=True), strict=True))
    assert (found.errors.diff() <= 0).all()
    for size in chosen(found):
        cost, error = at[size]
        structure = found.build(size).structure
        assert structure.dtype == dtype
        assert structure.cost().bytes <= cost.bytes  # after errors were read, the best candidate up to that size
        if dtype == torch.float64:
            difference = kernel.flatten(1) - structure.to_dense()
            torch.testing.assert_close(Metric().error(difference), error, rtol=1e-6, atol=1e-9)
        assert family(name, kernel).build(size).structure.cost() == cost


def test_spatial_svd_is_the_best_separable_kernel_and_exact_at_full_rank() -> None:
    kernel = normal_kernel(8, 6, 3, 2)
    found = family("spatial-svd", kernel)
    matrix = torch.einsum("ocyx->cyox", kernel).reshape(18, 16)
    assert torch.equal(rearranged(kernel), matrix)
    tails = torch.linalg.svdvals(matrix).square().flip(0).cumsum(0).flip(0)
    torch.testing.assert_close(found.errors, tails[list(found.sizes)])
    torch.testing.assert_close(found.build(16).structure.to_dense().detach(), kernel.flatten(1), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["spatial-svd", "cp"])
def test_without_patches_it_is_the_svd(name: str) -> None:
    weight = hard.normal(12, 20)
    expected = eckart.fit(weight, "svd", rank=5).to_dense()
    torch.testing.assert_close(eckart.fit(weight, name, rank=5).to_dense(), expected, rtol=1e-8, atol=1e-8)


def test_without_patches_tucker_2_is_a_chain_of_three_that_equals_the_svd() -> None:
    weight = hard.normal(32, 40)
    structure = eckart.fit(weight, "tucker-2", ranks=10)
    assert expression(structure) == "Chain(Dense, Dense, Dense)"
    torch.testing.assert_close(structure.to_dense(), eckart.fit(weight, "svd", rank=5).to_dense(), rtol=1e-8, atol=1e-8)


def test_tucker_2_finds_a_kernel_of_its_kind_and_is_exact_at_full_ranks() -> None:
    u, v = hard.orthogonal(10)[:, :3], hard.orthogonal(9, 1)[:, :2]
    kernel = torch.einsum("pqyx,op,cq->ocyx", normal_kernel(3, 2, 3, 3), u, v)
    assert family("tucker-2", kernel).errors[-1] <= 1e-20
    structure = family("tucker-2", kernel).build(5).structure
    torch.testing.assert_close(structure.to_dense().detach(), kernel.flatten(1), rtol=1e-9, atol=1e-9)
    general = normal_kernel(5, 4, 2, 2)
    torch.testing.assert_close(tucker(*hooi(general, 5, 4)).to_dense().detach(), general.flatten(1))


@pytest.mark.parametrize("shape", [(8, 12, 3, 3), (12, 8, 3, 3), (8, 3, 3, 3), (3, 20, 2, 2)], ids=str)
def test_tucker_2_keeps_the_bound_of_the_truncated_decomposition(shape: tuple[int, ...]) -> None:
    kernel = normal_kernel(*shape)
    found, cut = family("tucker-2", kernel), [tails(matrix) for matrix in modes(kernel)]
    bounds = {p + q: cut[0][p] + cut[1][q] for p, q in rank_path(*cut)}
    expressions = set()
    for size in found.sizes:
        structure = (
            METHODS.find("tucker-2").entry(kernel.flatten(1), Statistics(kernel=shape[2:])).build(size).structure
        )
        assert Metric().error(kernel.flatten(1) - structure.to_dense()) <= bounds[size] * (1 + 1e-9)
        expressions.add(expression(structure))
    # Where there are few channels, a factor of full rank is left out.
    assert (len(expressions) > 1) == (min(shape[:2]) <= 3)


def test_iteration_improves_on_the_truncated_decomposition() -> None:
    for seed in range(5):
        kernel = normal_kernel(10, 9, 3, 3, seed=seed)
        start = [leading(matrix, rank) for matrix, rank in zip(modes(kernel), (4, 3), strict=True)]
        _, g, _ = hooi(kernel, 4, 3)
        assert g.square().sum() > 1.0001 * core(kernel, *start).square().sum()


def test_cp_finds_a_kernel_of_its_kind() -> None:
    kernel = torch.einsum("or,cr,yr,xr->ocyx", *(normal_kernel(n, 2, seed=n) for n in (8, 7, 3, 2)))
    factors = alternating(kernel, 2)
    again = torch.einsum("or,cr,yr,xr->ocyx", *factors)
    assert (again - kernel).norm() <= 0.02 * kernel.norm()
    torch.testing.assert_close(canonical(factors).to_dense().detach(), again.flatten(1), rtol=1e-9, atol=1e-9)


def test_sweeps_of_cp_never_go_up_and_state_their_error() -> None:
    kernel = normal_kernel(8, 7, 3, 2)
    factors = [normal_kernel(n, 12, seed=n) for n in kernel.shape]
    errors = []
    for _ in range(30):
        factors, error = sweep(kernel, factors)
        again = torch.einsum("or,cr,yr,xr->ocyx", *factors)
        torch.testing.assert_close(error, float((again - kernel).square().sum()), rtol=1e-8, atol=1e-8)
        errors.append(error)
    assert all(b <= a + 1e-9 for a, b in pairwise(errors))


def hard_kernels() -> dict[str, Tensor]:
    """Kernels (out, channels, height, width) that break careless decompositions."""
    reshaped = {n: w.reshape(len(w), -1, 2, 1) for n, w in hard.weights().items() if w.shape[1] % 2 == 0}
    squares = {n: w.reshape(len(w), -1, 2, 2) for n, w in hard.weights().items() if w.shape[1] % 4 == 0}
    strided = {"one-channel": normal_kernel(12, 1, 3, 3), "one-output": normal_kernel(1, 12, 3, 3)}
    strided["constant"] = torch.ones(6, 5, 3, 3)
    strided["zero"] = torch.zeros(6, 5, 3, 3, dtype=torch.float64)
    strided["one-tap"] = normal_kernel(6, 5, 3, 3) * (torch.arange(9).reshape(3, 3) == 4)
    strided["degenerate"] = sum(
        torch.einsum("o,c,y,x->ocyx", *(normal_kernel(n, seed=3 * n + (k == i)) for i, n in enumerate((6, 5, 3, 3))))
        for k in range(3)
    )
    return {**reshaped, **{f"{n}-square": w for n, w in squares.items()}, **strided}


@pytest.mark.parametrize("kernel_name", hard_kernels())
@pytest.mark.parametrize("name", KERNELS)
def test_hard_kernels(name: str, kernel_name: str) -> None:
    kernel = hard_kernels()[kernel_name]
    before = kernel.clone()
    if kernel_name.startswith("graded-entries") and name == "spatial-svd":
        with pytest.raises(ValueError, match="overflows"):
            family(name, kernel)
        return
    for size in chosen(family(name, kernel)):
        dense = family(name, kernel).build(size).structure.to_dense().double()
        assert torch.isfinite(dense).all()
        assert dense.norm() <= 1.01 * kernel.double().norm() + 1e-30
    assert torch.equal(kernel, before)


@pytest.mark.parametrize("name", KERNELS)
def test_a_kernel_that_is_not_finite_is_refused(name: str) -> None:
    for weight in hard.refused().values():
        with pytest.raises(ValueError, match="NaN or Inf"):
            METHODS.find(name).entry(weight, Statistics(kernel=(2, 1)))


@pytest.mark.parametrize(
    ("place", "other"), [(nn.Linear(18, 4), "conv2d"), (nn.Conv2d(2, 4, 3), "linear"), (nn.BatchNorm2d(4), "conv2d")]
)
def test_a_file_cannot_put_a_convolution_where_none_was(place: nn.Module, other: str) -> None:
    entry = {"module": other, "bias": True, "structure": Dense(torch.ones(4, 18)).spec()}
    with pytest.raises(ValueError, match=f"a module of kind '{other}' cannot stand in for {type(place).__name__}"):
        rebuild(nn.Sequential(place), {"0": entry})


def test_a_file_states_the_module_and_the_kernel_must_fit() -> None:
    model = net()
    site = find_sites(model, ["second"])[0]
    replace(model, site, low_rank(torch.ones(12, 2), torch.ones(2, 48)))
    modules = check_manifest(manifest(model), "here")
    assert modules["second"]["module"] == "conv2d"
    other = net()
    other.second = nn.Conv2d(8, 12, 3)
    with pytest.raises(ValueError, match=r"second: a structure of shape \(12, 48\) does not fit \(12, 8, 3, 3\)"):
        rebuild(other, modules)


def test_a_dense_convolution_takes_the_values_back() -> None:
    model, x = net(), images()
    eckart.compress(model, method="tucker-2", keep=0.6, calibration=[images()])
    expected = model(x)
    for name, module in list(model.named_modules()):
        if isinstance(module, StructuredLinear):
            place = copy.deepcopy(net().get_submodule(name))
            _fill(place, module)
            setattr(model, name, place)
    assert not any(isinstance(m, StructuredLinear) for m in model.modules())
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)


def test_paths_beside_convolutions_make_up_for_what_was_lost() -> None:
    dense, model = net(), net()
    data = [images(32, seed=5)]
    eckart.compress(model, method="rtn", keep=0.5, of="bytes", calibration=data)
    small = copy.deepcopy(model)
    result = eckart.compensate(model, dense, rank=2, calibration=data)
    assert "second" in result.added
    assert all(added.after < added.before for added in result.added.values())
    x = images(32, seed=8)
    assert (model(x) - dense(x)).norm() < (small(x) - dense(x)).norm()


class Blocks(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(4, 4, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


@pytest.mark.parametrize("options", [{"sequential": True}, {"heal": 2}], ids=str)
def test_blocks_of_images_are_not_worked_on_one_by_one(options: dict) -> None:
    model = Blocks().eval()
    with pytest.raises(ValueError, match=r"layers\.0 is a convolution"):
        run(model, Recipe(method="svd", keep=0.5, **options), [images(2)[:, [0, 1, 0, 1]]], {})
    assert all(type(layer) is nn.Conv2d for layer in model.layers)


def test_the_loss_rises_by_half_of_the_error_that_is_stated() -> None:
    """For small changes of one kernel under a Gaussian likelihood, up to what the factored Fisher leaves out."""
    model, x = net(), images(400, seed=11)
    data = {name: model.get_submodule(name) for name in ("first", "third")}
    found = collect(model, data, (Need.INPUT_SECOND_MOMENT, Need.GRADIENT_SECOND_MOMENT), [x], seed=1)
    expected = model(x)
    for name, layer in data.items():
        change = 1e-3 * hard.normal(*layer.weight.shape, seed=12)
        s = found[name]
        stated = Metric(s.get(Need.GRADIENT_SECOND_MOMENT), s.get(Need.INPUT_SECOND_MOMENT)).error(change.flatten(1))
        kernel = layer.weight.detach().clone()
        layer.weight.data += change.float()
        rise = (model(x) - expected).square().sum() / len(x)
        layer.weight.data = kernel
        assert 0.2 < float(rise / stated) < 5, name
