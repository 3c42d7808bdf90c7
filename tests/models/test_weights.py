"""What reads the weight of a replaced or adapted layer finds a dense one's, and gradients flow through it."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

import eckart
from eckart.models.modules import Structured
from eckart.models.places import replace
from eckart.models.sites import find_sites
from eckart.structures import low_rank
from support.zoo import HIDDEN, normal, zoo

LAYERS: dict[str, Callable[[], nn.Module]] = {
    "Linear": lambda: nn.Linear(6, 8),
    "Conv1D": lambda: Conv1D(8, 6),
    "Conv1d": lambda: nn.Conv1d(6, 8, 3, stride=2, padding=1),
    "Conv2d": lambda: nn.Conv2d(6, 8, (3, 2), padding=(1, 0), dilation=(1, 2)),
    "Conv2d same": lambda: nn.Conv2d(6, 8, 2, padding="same"),
    "Embedding": lambda: nn.Embedding(9, 6, padding_idx=0),
}
SAID = [
    *("in_features", "out_features", "in_channels", "out_channels", "kernel_size", "stride", "dilation", "groups"),
    *("padding_mode", "nf", "nx", "num_embeddings", "embedding_dim", "padding_idx", "max_norm"),
]


@pytest.fixture(params=LAYERS)
def pair(request: pytest.FixtureRequest) -> tuple[nn.Module, nn.Module]:
    """A layer, and what stands in for it, of exactly its numbers."""
    torch.manual_seed(0)
    model = nn.Sequential(LAYERS[request.param]())
    dense = copy.deepcopy(model[0])
    site = find_sites(model, embeddings=True)[0]
    u, s, v = torch.linalg.svd(site.weight, full_matrices=False)
    replace(model, site, low_rank(u * s, v))
    return dense, model[0]


def test_it_says_of_itself_what_the_layer_said(pair: tuple[nn.Module, nn.Module]) -> None:
    dense, standing = pair
    for name in SAID:
        if hasattr(dense, name):
            assert getattr(standing, name) == getattr(dense, name), name
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        weight = standing.weight
        assert isinstance(weight, Tensor)
        assert (weight.shape, weight.dtype, weight.device) == (dense.weight.shape, torch.float32, torch.device("cpu"))
        assert (weight.size(0), weight.ndim) == (len(dense.weight), dense.weight.ndim)
        assert weight.numel() == dense.weight.numel()
        assert weight.requires_grad
        assert "Weight of 0" in repr(weight)
    assert "weight" not in {*dict(standing.named_parameters()), *standing.state_dict()}


def test_its_numbers_are_made_where_someone_computes_with_them(pair: tuple[nn.Module, nn.Module]) -> None:
    dense, standing = pair
    with pytest.warns(UserWarning, match="0: the model multiplies by its weight"):
        made = standing.weight * 1
    torch.testing.assert_close(made, dense.weight.detach(), rtol=1e-4, atol=1e-5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # it is said once
        (standing.weight.sum() + 0).backward()
    assert all(p.grad is not None for p in standing.structure.parameters())


def test_nothing_is_written_to_it(pair: tuple[nn.Module, nn.Module]) -> None:
    _, standing = pair
    before = copy.deepcopy(standing.state_dict())
    for write in (
        lambda w: w.zero_(),
        nn.init.normal_,
        lambda w: w.__setitem__(0, 1.0),
        lambda w: torch.add(torch.ones(w.shape), 1, out=w),
        lambda w: w.requires_grad_(False),
        lambda w: w.__imul__(2),
    ):
        with torch.no_grad(), pytest.raises(eckart.Refused, match="cannot be written to"):
            write(standing.weight)
    with pytest.raises(eckart.Refused, match="cannot be written to"):
        standing.weight.data = torch.ones(standing.weight.shape)
    assert all(torch.equal(before[n], t) for n, t in standing.state_dict().items())


def test_a_product_by_it_costs_no_dense_matrix() -> None:
    model = nn.Sequential(nn.Linear(6, 8))
    eckart.compress(model, "svd", keep=0.9, of="linear-parameters")
    x = normal(3, 6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torch.testing.assert_close(F.linear(x, model[0].weight, model[0].bias), model(x))


class _Reads(nn.Module):
    """A layer whose weight is multiplied by without calling it."""

    def __init__(self) -> None:
        super().__init__()
        self.called, self.read = nn.Linear(6, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.called(x) @ self.read.weight.T + self.read.bias


@pytest.mark.filterwarnings("ignore:.*multiplies by its weight")
@pytest.mark.parametrize("method", ["lora", "pissa", "osf", "loca"])
@pytest.mark.parametrize("compressed", [False, True])
def test_an_adapter_beside_a_layer_that_is_read_trains(method: str, compressed: bool) -> None:
    torch.manual_seed(0)
    model, x = _Reads(), normal(5, 6)
    if compressed:
        eckart.compress(model, "svd", keep=0.9, of="linear-parameters")
    before = model(x).detach()
    adapter = eckart.adapt(model, method, rank=2, include=["read"])
    torch.testing.assert_close(model(x), before, rtol=1e-4, atol=1e-4)
    optimizer = torch.optim.SGD(adapter.trainable_parameters(), lr=0.5)
    for _ in range(3):
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
    trained = model(x).detach()
    assert float((trained - before).norm()) > 1e-4
    adapter.merge()
    torch.testing.assert_close(model(x), trained, rtol=1e-4, atol=1e-4)


def _compress(model: nn.Module) -> None:
    site = find_sites(model, ["layers.1.linear2"])[0]
    u, s, v = torch.linalg.svd(site.weight, full_matrices=False)
    replace(model, site, low_rank(u[:, :4] * s[:4], v[:4]))


def _adapt(model: nn.Module) -> None:
    for p in eckart.adapt(model, "lora", rank=2, include=["layers.1.linear2"]).trainable_parameters():
        nn.init.normal_(p, std=0.1)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("change", [_compress, _adapt])
@pytest.mark.parametrize("masked", [False, True])
def test_torchs_fused_kernels_do_not_go_past_it(change: Callable[[nn.Module], None], masked: bool) -> None:
    model, x = zoo()["TransformerEncoder"]()
    padding = torch.zeros(x.shape[:2], dtype=torch.bool)
    padding[:, -3:] = masked
    with torch.no_grad():
        before = model(x, src_key_padding_mask=padding)
    change(model)
    with torch.no_grad():
        fused = model(x, src_key_padding_mask=padding)
        trained = model.train()(x, src_key_padding_mask=padding)
    kept = ~padding
    torch.testing.assert_close(fused[kept], trained[kept], rtol=1e-4, atol=1e-5)
    assert float((fused - before)[kept].norm()) > 1e-3


def test_hooks_of_others_stay() -> None:
    model, seen = nn.Sequential(nn.Linear(HIDDEN, HIDDEN)), []
    handle = model[0].register_forward_hook(lambda module, args, output: seen.append(type(module)) or output * 2)
    x = normal(2, HIDDEN)
    eckart.compress(model, "svd", keep=0.9, of="linear-parameters")
    assert isinstance(model[0], Structured)
    torch.testing.assert_close(model(x), 2 * model[0].forward(x))
    handle.remove()
    model(x)
    assert len(seen) == 1


def _subclasses() -> Iterator[tuple[str, nn.Module, bool]]:
    class Same(nn.Linear):
        pass

    class Rewritten(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            y = x @ self.weight.T
            return y if self.bias is None else y + self.bias

    class Doubled(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    class Noisy(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return F.dropout(super().forward(x), 0.1, self.training)

    class Branched(nn.Linear):
        def __init__(self, *sizes: int) -> None:
            super().__init__(*sizes)
            self.extra = nn.Parameter(torch.zeros(2, 2))

    class Pair(nn.Linear):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return super().forward(x), x

    taken = {Same, Rewritten}
    for kind in (Same, Rewritten, Doubled, Noisy, Branched, Pair):
        yield kind.__name__, kind(6, 8), kind in taken


@pytest.mark.parametrize(("name", "layer", "taken"), list(_subclasses()))
def test_subclasses_are_taken_where_they_do_no_more(name: str, layer: nn.Module, taken: bool) -> None:
    model = nn.Sequential(layer, nn.Linear(8, 8))
    assert ("0" in {site.name for site in find_sites(model)}) == taken


class _Skips(nn.Module):
    """A layer that is used, and one that is not."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.used(x)
        return y


def test_an_adapter_that_the_model_goes_past_says_so_at_the_first_step() -> None:
    model, x = _Skips(), normal(3, 6)
    adapter = eckart.adapt(model, "lora", rank=2)
    model(x).sum().backward()
    with pytest.warns(UserWarning, match="did not compute with the paths of unused"):
        adapter.step()
    assert any("unused" in text for text in adapter.warnings)
    adapter.remove()
    alone = eckart.adapt(model, "lora", rank=2, include=["unused"])
    model(x)
    with pytest.raises(eckart.Refused, match=r"no path of adapter 'default' was computed with: .* past unused"):
        alone.step()


def test_a_scaled_embedding_and_its_tied_head_are_saved_and_read(tmp_path: Path) -> None:
    model, batch = zoo()["Gemma3"]()
    eckart.compress(model, "svd", keep=0.7, of="parameters", embeddings=True, head=True)
    assert model.get_input_embeddings().scale == HIDDEN**0.5
    with torch.no_grad():
        expected = model(batch).logits
        model.save_pretrained(tmp_path)
        torch.testing.assert_close(type(model).from_pretrained(tmp_path)(batch).logits, expected)
