"""Layers of random features: what products are on average, variances, fits, files."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from eckart.errors import Refused
from eckart.layers.scalable_nn_kernels import (
    RandomFeatureLinear,
    bundle,
    expected_error,
    exponential_features,
    relu_features,
)
from tests.support.elsewhere import DEVICE, elsewhere


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def problem(length: float = 0.7) -> tuple[nn.Linear, torch.Tensor]:
    linear = nn.Linear(8, 5).double()
    with torch.no_grad():
        linear.weight.copy_(length * F.normalize(torch.randn(5, 8, generator=seeded(1), dtype=torch.float64)))
        linear.bias.copy_(torch.linspace(-0.5, 0.5, 5))
    return linear, length * F.normalize(torch.randn(60, 8, generator=seeded(2), dtype=torch.float64))


def test_products_of_features_on_average() -> None:
    x, w = torch.randn(2, 4, generator=seeded(), dtype=torch.float64) * 0.4
    g = torch.randn(200000, 4, generator=seeded(1), dtype=torch.float64)
    real, imaginary = exponential_features(torch.stack([x, w]), g).chunk(2, -1)
    product = torch.complex(real[0], imaginary[0]) @ torch.complex(real[1], imaginary[1])
    assert abs(complex(product) - complex(torch.exp(1j * (x @ w)))) < 0.02
    a, c = relu_features(torch.stack([x, w]), g)
    theta = torch.acos(x @ w / x.norm() / w.norm())
    expected = x.norm() * w.norm() * (theta.sin() + (torch.pi - theta) * theta.cos()) / (2 * torch.pi)
    assert float(a @ c) == pytest.approx(float(expected), rel=0.02)


@pytest.mark.parametrize("activation", ["cos", "sin"])
def test_the_published_estimator_has_the_error_that_is_expected(activation: str) -> None:
    linear, x = problem()
    truth = getattr(torch, activation)(linear(x))
    off = []
    for seed in range(40):
        made = RandomFeatureLinear.from_linear(linear, activation, x, 64, method="published", generator=seeded(seed))
        off.append((made(x) - truth).detach())
    errors = torch.stack(off)
    assert float(errors.square().mean().sqrt()) == pytest.approx(expected_error(linear, x, activation, 64), rel=0.2)
    assert float(errors.mean(0).square().mean().sqrt()) < 0.4 * float(errors.square().mean().sqrt())


def test_the_published_error_falls_as_the_root_of_the_number_of_features() -> None:
    linear, x = problem()
    truth, counts = torch.cos(linear(x)).detach(), (32, 128, 512)
    errors = []
    for count in counts:
        made = (
            RandomFeatureLinear.from_linear(linear, "cos", x, count, method="published", generator=seeded(seed))
            for seed in range(60)
        )
        errors.append(torch.stack([(each(x).detach() - truth).square().mean() for each in made]).mean().sqrt())
    slope = float((errors[-1] / errors[0]).log()) / float(torch.tensor(counts[-1] / counts[0]).log())
    assert slope == pytest.approx(-0.5, abs=0.07)


def test_the_published_relu_is_no_relu_and_a_fit_is_nearer() -> None:
    linear, x = problem(1.0)
    nn.init.zeros_(linear.bias)
    truth = F.relu(linear(x)).detach()
    for count, least in ((64, 0.4), (4096, 0.4)):
        made = RandomFeatureLinear.from_linear(linear, "relu", x, count, method="published", generator=seeded())
        said = made(x).detach()
        best = float((said * truth).sum() / said.square().sum())
        assert float((best * said - truth).norm() / truth.norm()) > least
    fitted = RandomFeatureLinear.from_linear(linear, "relu", x, 40, generator=seeded())
    assert float((fitted(x).detach() - truth).norm() / truth.norm()) < 0.2


def test_a_fit_is_least_squares_and_exact_with_as_many_features_as_inputs() -> None:
    linear, x = problem()
    truth = F.gelu(linear(x)).detach()
    made = RandomFeatureLinear.from_linear(linear, F.gelu, x, 12, generator=seeded())
    phi = torch.cat([made.phi(x), torch.ones(len(x), 1)], 1).detach()
    best = torch.linalg.lstsq(phi, truth).solution
    torch.testing.assert_close(made(x).detach(), phi @ best, rtol=1e-5, atol=1e-6)
    whole = RandomFeatureLinear.from_linear(linear, F.gelu, x, 128, generator=seeded())
    torch.testing.assert_close(whole(x).detach(), truth, rtol=1e-3, atol=1e-4)


def test_a_state_brings_its_features_and_bundles_are_products() -> None:
    linear, x = problem()
    made = RandomFeatureLinear.from_linear(linear.float(), "sin", x.float(), 16, generator=seeded())
    again = RandomFeatureLinear(8, 5, 16, kind="exponential")
    again.load_state_dict(made.state_dict())
    torch.testing.assert_close(again(x.float()), made(x.float()), rtol=0, atol=0)
    assert {name for name, _ in made.named_parameters()} == {"weight", "bias"}
    second = nn.Linear(5, 3)
    torch.testing.assert_close(bundle(made, second)(x.float()), second(made(x.float())))
    small = RandomFeatureLinear(3, 2, 4).double()
    nn.init.normal_(small.weight)
    leaf = torch.randn(4, 3, generator=seeded(), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(small, (leaf,))


def test_what_does_not_fit_is_refused() -> None:
    linear, x = problem()
    for call in (
        lambda: RandomFeatureLinear(8, 5, 3, kind="exponential"),
        lambda: RandomFeatureLinear(8, 5, 0),
        lambda: RandomFeatureLinear(8, 5, 4)(x[:, :3]),
        lambda: RandomFeatureLinear.from_linear(linear, "tanh", x, 4),
        lambda: RandomFeatureLinear.from_linear(linear, F.gelu, x, 4, method="published"),
        lambda: RandomFeatureLinear.from_linear(linear, "relu", x / 0, 4),
        lambda: bundle(RandomFeatureLinear(8, 5, 4), nn.Linear(4, 3)),
    ):
        with pytest.raises(Refused):
            call()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_inputs_whose_features_are_beyond_floats_are_refused_and_others_finite(dtype: torch.dtype) -> None:
    linear, x = problem()
    linear, x = linear.to(dtype), x.to(dtype)
    far = x.repeat(40, 1)
    far[3] *= 1e4
    for activation in ("cos", "sin"):
        with pytest.raises(Refused, match="the longest"):
            RandomFeatureLinear.from_linear(linear, activation, far, 16, generator=seeded())
        with pytest.raises(Refused, match="mean length"):
            RandomFeatureLinear.from_linear(linear, activation, x * 1e10, 16, method="published", generator=seeded())
    for factor in (2.0**-60, 1.0, 2.0**60) if dtype == torch.float32 else (2.0**-600, 2.0**600):
        made = RandomFeatureLinear.from_linear(linear, "cos", x * factor, 16, generator=seeded())
        assert made(x * factor).isfinite().all()
        with pytest.raises(Refused, match="times as long"):
            made(x * factor * 1e4)
    assert made((x * factor).new_full((1, 8), torch.nan)).isnan().all()
    with pytest.raises(Refused, match="outputs"):
        RandomFeatureLinear.from_linear(linear, lambda t: t / 0, x, 16)


def test_a_compiled_graph_does_not_say_nan_of_numbers() -> None:
    linear, x = problem()
    made = RandomFeatureLinear.from_linear(linear.float(), "cos", x.float(), 16, generator=seeded())
    compiled = torch.compile(made, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x.float()), made(x.float()))
    assert compiled(x.float() * torch.nan).isnan().all()
    with pytest.raises(RuntimeError, match="scale the inputs"):
        compiled(x.float() * 1e4)


@pytest.mark.parametrize(
    ("activation", "method"), [("relu", "least-squares"), ("cos", "least-squares"), ("cos", "published")]
)
def test_a_layer_on_another_device_is_fitted_as_on_the_cpu(activation: str, method: str) -> None:
    linear, x = (each.float() for each in problem())
    found = []
    with elsewhere():
        for device in (torch.device("cpu"), DEVICE):
            here = linear.to(device)
            made = RandomFeatureLinear.from_linear(
                here, activation, x.to(device), 32, method=method, generator=seeded()
            )
            found.append(made(x.to(device)).detach().cpu())
            expected_error(here, x.to(device), "cos", 32)
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-5)
