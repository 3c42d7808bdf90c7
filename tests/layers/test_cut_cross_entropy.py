"""The loss without its logits against F.cross_entropy of all of them: values, gradients, heads of every kind."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import eckart
from eckart.errors import Refused
from eckart.layers import linear_cross_entropy
from eckart.models.modules import StructuredLinear
from eckart.structures.compose import Sum
from eckart.structures.dense import Dense
from eckart.structures.low_rank import low_rank

TOKENS, WIDTH, CLASSES = 23, 6, 37


def problem(dtype: torch.dtype = torch.float64, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x, w = (torch.randn(n, WIDTH, generator=generator, dtype=torch.float64) for n in (TOKENS, CLASSES))
    target = torch.randint(0, CLASSES, (TOKENS,), generator=generator)
    target[::5] = -100
    bias = torch.randn(CLASSES, generator=generator, dtype=torch.float64)
    return x.to(dtype).requires_grad_(), w.to(dtype).requires_grad_(), target, bias.to(dtype).requires_grad_()


def whole(
    logits: Tensor, target: Tensor, *, softcap: float | None = None, z_loss: float = 0.0, **options: Any
) -> Tensor:
    """The same from all logits at once."""
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    found = F.cross_entropy(logits, target, reduction="none") + (target >= 0) * z_loss * logits.logsumexp(-1).square()
    reduction = options.get("reduction", "mean")
    return found if reduction == "none" else found.sum() / (int((target >= 0).sum()) if reduction == "mean" else 1)


@pytest.mark.parametrize("options", [{}, {"softcap": 2.0}, {"z_loss": 0.1}, {"softcap": 3.0, "z_loss": 0.01}])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("chunk", [None, 1, 7])
def test_values_and_gradients_are_those_of_all_logits(options: dict[str, float], reduction: str, chunk: int) -> None:
    x, w, target, bias = problem()
    cotangent = torch.linspace(-1, 2, TOKENS, dtype=torch.float64) if reduction == "none" else torch.tensor(1.7)
    found = linear_cross_entropy(x, w, target, bias, reduction=reduction, chunk=chunk, **options)
    expected = whole(F.linear(x, w, bias), target, reduction=reduction, **options)
    torch.testing.assert_close(found, expected)
    with torch.no_grad():
        torch.testing.assert_close(
            linear_cross_entropy(x, w, target, bias, reduction=reduction, chunk=chunk, **options), expected
        )
    leaves = [x, w, bias]
    torch.testing.assert_close(
        torch.autograd.grad(found, leaves, cotangent.to(found)),
        torch.autograd.grad(expected, leaves, cotangent.to(found)),
    )


def test_gradients_by_differences() -> None:
    x, w, target, bias = problem()
    assert torch.autograd.gradcheck(
        lambda *leaves: linear_cross_entropy(
            leaves[0], leaves[1], target, leaves[2], softcap=4.0, z_loss=0.05, chunk=5
        ),
        (x, w, bias),
    )


@pytest.mark.parametrize("chunk", [4, None])
def test_structured_heads_and_heads_that_are_modules(chunk: int | None) -> None:
    x, w, target, bias = problem()
    structure = Sum(
        Dense(w.detach().clone()), low_rank(torch.randn(CLASSES, 2).double(), torch.randn(2, WIDTH).double())
    )
    codes = eckart.fit(torch.randn(CLASSES, 64), "rtn", bits=4).double()
    plain = nn.Linear(WIDTH, CLASSES, dtype=torch.float64)
    wide = torch.randn(TOKENS, 64, dtype=torch.float64, requires_grad=True)
    for head, given in ((StructuredLinear(structure, bias.detach()), x), (structure, x), (plain, x), (codes, wide)):
        head.zero_grad()
        other = copy.deepcopy(head)
        found, expected = linear_cross_entropy(given, head, target, chunk=chunk), whole(other(given), target)
        torch.testing.assert_close(found, expected)
        found.backward()
        mine, given.grad = given.grad, None
        expected.backward()
        torch.testing.assert_close(mine, given.grad)
        given.grad = None
        for ours, theirs in zip(head.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(ours.grad, theirs.grad)


def test_where_no_token_counts_the_loss_is_zero_and_so_are_gradients() -> None:
    x, w, target, _ = problem()
    for reduction in ("mean", "sum"):
        loss = linear_cross_entropy(x, w, torch.full_like(target, -100), reduction=reduction)
        assert float(loss.detach()) == 0
        assert not any(each.any() for each in torch.autograd.grad(loss, [x, w]))
    assert float(linear_cross_entropy(x[:0], w, target[:0]).detach()) == 0


def test_a_shift_is_that_of_language_models() -> None:
    x, w, target, _ = problem()
    x, ids = x[:20].view(2, 10, WIDTH), target[:20].view(2, 10)
    found = linear_cross_entropy(x, w, ids, shift=True)
    torch.testing.assert_close(found, F.cross_entropy((x @ w.T)[:, :-1].reshape(-1, CLASSES), ids[:, 1:].reshape(-1)))


def test_what_does_not_train_gets_no_gradient_and_tied_weights_get_both() -> None:
    x, w, target, _ = problem()
    frozen = w.detach()
    (by_x,) = torch.autograd.grad(linear_cross_entropy(x, frozen, target), [x])
    torch.testing.assert_close(by_x, torch.autograd.grad(F.cross_entropy(x @ frozen.T, target), [x])[0])
    (by_w,) = torch.autograd.grad(linear_cross_entropy(x.detach(), w, target), [w])
    torch.testing.assert_close(by_w, torch.autograd.grad(F.cross_entropy(x.detach() @ w.T, target), [w])[0])
    ids = torch.randint(0, CLASSES, (TOKENS,))
    tied = torch.autograd.grad(linear_cross_entropy(F.embedding(ids, w), w, target), [w])
    torch.testing.assert_close(tied, torch.autograd.grad(F.cross_entropy(F.embedding(ids, w) @ w.T, target), [w]))


def test_sixteen_bits_are_summed_in_float32() -> None:
    x, w, target, bias = problem(torch.bfloat16)
    found = linear_cross_entropy(x, w, target, bias, chunk=3)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, F.cross_entropy(F.linear(x, w, bias).float(), target))
    x64, w64, _, bias64 = problem()
    expected = torch.autograd.grad(F.cross_entropy(F.linear(x64, w64, bias64), target), [x64, w64, bias64])
    for ours, theirs in zip(torch.autograd.grad(found, [x, w, bias]), expected, strict=True):
        assert ours.dtype == torch.bfloat16
        torch.testing.assert_close(ours.double(), theirs, rtol=0.05, atol=0.004)


def test_a_loss_scale_saves_what_float16_would_lose() -> None:
    generator = torch.Generator().manual_seed(0)
    x, w = (torch.randn(n, 16, generator=generator) for n in (2048, 50))
    target = torch.randint(0, 50, (2048,), generator=generator)
    x, w = (each.half().requires_grad_() for each in (x, w))
    exact = [each.detach().double().requires_grad_() for each in (x, w)]
    expected = torch.autograd.grad(F.cross_entropy(exact[0] @ exact[1].T, target), exact)

    def off(loss: Tensor, scale: float) -> list[float]:
        found = torch.autograd.grad(loss * scale, [x, w])
        pairs = zip(found, expected, strict=True)
        return [float((ours.double() / scale - theirs).norm() / theirs.norm()) for ours, theirs in pairs]

    for scale in (2.0**-6, 1.0, 1024.0):
        theirs = off(F.cross_entropy((x @ w.T).float(), target), scale)
        ours = off(linear_cross_entropy(x, w, target), scale)
        assert all(mine <= 1.05 * other for mine, other in zip(ours, theirs, strict=True))


def test_what_hooks_do_to_a_head_is_done() -> None:
    x, _, target, _ = problem()
    head = nn.Linear(WIDTH, CLASSES, dtype=torch.float64)
    head.register_forward_hook(lambda module, given, found: 2 * found)
    torch.testing.assert_close(linear_cross_entropy(x, head, target), F.cross_entropy(head(x), target))


def test_a_tensor_of_a_head_that_is_no_parameter_is_refused_by_name() -> None:
    class Head(nn.Module):
        weight: Tensor

        def forward(self, inputs: Tensor) -> Tensor:
            return inputs @ (2 * self.weight).T

    x, w, target, _ = problem()
    held = Head()
    held.weight = w
    with pytest.raises(Refused, match=r"shape \(37, 6\), weight, that trains"):
        linear_cross_entropy(x, held, target)
    held.weight = w.detach()
    torch.testing.assert_close(linear_cross_entropy(x, held, target), whole(x @ (2 * w).T, target))

    class Loss(nn.Module):  # a parameter that is computed in its place is one all the same
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Sequential(nn.Linear(WIDTH, CLASSES, bias=False, dtype=torch.float64))

        def forward(self, inputs: Tensor) -> Tensor:
            return linear_cross_entropy(inputs, self.head, target)

    found = torch.func.functional_call(Loss(), {"head.0.weight": 3 * w}, (x,))
    (by_w,) = torch.autograd.grad(found, [w])
    torch.testing.assert_close(by_w, torch.autograd.grad(whole(x @ (3 * w).T, target), [w])[0])


def test_a_head_that_changed_before_its_gradient_is_seen() -> None:
    x, w, target, _ = problem()
    losses = linear_cross_entropy(x, w, target, reduction="none")
    with torch.no_grad():
        w.mul_(3)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        losses.sum().backward()


def test_single_losses_under_autocast() -> None:
    x, w, target, _ = problem(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        losses, mean = (linear_cross_entropy(x, w, target, reduction=r) for r in ("none", "sum"))
    torch.testing.assert_close(torch.autograd.grad(losses.sum(), [x, w]), torch.autograd.grad(mean, [x, w]))


def test_nothing_is_kept_of_the_logits() -> None:
    x, w, target, _ = problem()
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (kept.append(t.numel()), t)[1], lambda t: t):
        linear_cross_entropy(x, w, target, chunk=2)
    assert max(kept) < TOKENS * CLASSES


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"reduction": "median"}, Refused, "median"),
        ({"softcap": 0.0}, Refused, "softcap=0.0"),
        ({"chunk": 0}, Refused, "chunk=0"),
        ({"target": torch.zeros(3, dtype=torch.int64)}, Refused, "shape"),
        ({"target": torch.full((TOKENS,), CLASSES)}, IndexError, f"0..{CLASSES - 1}"),
        ({"head": torch.randn(5, WIDTH + 1)}, Refused, "head of shape"),
        ({"head": torch.randn(CLASSES, WIDTH, dtype=torch.float64)}, Refused, "float64 does not go with"),
        ({"head": nn.Embedding(CLASSES, WIDTH)}, Refused, "embedding.weight"),
        ({"target": torch.zeros(TOKENS)}, Refused, "torch.float32"),
        ({"target": [0] * TOKENS}, Refused, "targets are of list"),
        ({"chunk": 2.5}, Refused, "chunk=2.5"),
        ({"softcap": float("inf")}, Refused, "softcap=inf"),
        ({"z_loss": float("nan")}, Refused, "z_loss=nan"),
        ({"head": nn.Linear(WIDTH, CLASSES), "bias": torch.zeros(CLASSES)}, Refused, "bias"),
    ],
)
def test_what_does_not_go_together_is_refused(change: dict[str, Any], error: type[Exception], words: str) -> None:
    x, w, target, _ = problem(torch.float32)
    with pytest.raises(error, match=words):
        linear_cross_entropy(**{"x": x, "head": w, "target": target, **change})
