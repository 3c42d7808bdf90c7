"""Layers as products of random features of inputs and of weights, and the same features fitted to what a layer says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eckart.errors import Refused
from eckart.layers.contract import layer

Activation = Literal["relu", "cos", "sin"] | Callable[[Tensor], Tensor]
RIDGE = 1e-10
"""By the largest squared singular value of the features."""


def exponential_features(x: Tensor, projection: Tensor) -> Tensor:
    """Complex features z with E[z(x) z(w)] = exp(i x . w) over normal projections g: exp(c g . x - c^2 |x|^2 / 2).

    c^2 = i, so that |z| is exp(g . x / sqrt 2): products have the variance exp(|x + w|^2) - 1.

    Args:
        x: (..., d).
        projection: g (m, d).

    Returns:
        real parts beside imaginary parts, (..., 2 m), by sqrt(m).
    """
    half = x @ projection.T * 0.5**0.5
    size, phase = half.exp(), half - x.square().sum(-1, keepdim=True) / 2
    found: Tensor = torch.cat([size * phase.cos(), size * phase.sin()], -1) * float(len(projection) ** -0.5)
    return found


def relu_features(x: Tensor, projection: Tensor) -> Tensor:
    """relu(G x) / sqrt(m), (..., m): products are the arc-cosine kernel |x| |w| k_1(x, w) / 2 on average."""
    return F.relu(x @ projection.T) * float(len(projection) ** -0.5)


def applied(activation: Activation, x: Tensor) -> Tensor:
    """s(x), of a name or a function."""
    if callable(activation):
        return activation(x)
    if activation == "relu":
        return F.relu(x)
    return x.cos() if activation == "cos" else x.sin()


def expected_error(linear: nn.Linear, x: Tensor, activation: Literal["cos", "sin"], features: int) -> float:
    """The rms error that the published estimator of cos or sin (W x + b) has on average, before anything is fitted.

    The variance of Re(exp(i b) z(x) z(w)) is (exp(|x + w|^2) +- cos(|x|^2 + |w|^2 + 4 x . w + 2 b)) / 2 less the
    squared mean, with x and w scaled to one length.

    Args:
        linear: (d -> o).
        x: inputs (n, d).
        activation: cos or sin.
        features: m, of which half are draws.
    """
    points, w, b = _balanced(linear, x)
    inner = points @ w.T
    square, other = points.square().sum(1)[:, None], w.square().sum(1)
    sign = 1 if activation == "cos" else -1
    mean = applied(activation, inner + b).square()
    second = ((square + other + 2 * inner).exp() + sign * (square + other + 4 * inner + 2 * b).cos()) / 2
    return float(((second - mean).clamp_min(0).mean() / (features // 2)).sqrt())


def _scale(linear: nn.Linear, x: Tensor) -> float:
    """What x is multiplied by and W divided by, that both are of one length."""
    long, other = _length(linear.weight.detach()), _length(x)
    return (long / other) ** 0.5 if long > 0 and other > 0 else 1.0


def _length(x: Tensor) -> float:
    """The mean length of rows, without a square that is beyond float64."""
    x = x.cpu().double()
    largest = x.abs().max()
    unit = largest if largest > 0 else torch.ones_like(largest)
    return float((x / unit).norm(dim=-1).mean() * unit)


def _balanced(linear: nn.Linear, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    scale, w = _scale(linear, x), linear.weight.detach().cpu().double()
    b = w.new_zeros(len(w)) if linear.bias is None else linear.bias.detach().cpu().double()
    return x.cpu().double() * scale, w / scale, b


@layer(
    "scalable-nn-kernels",
    paper="Sehanobish et al. 2023, arXiv 2310.13225",
    expression="f(W x + b) ~ C phi(x) + c",
    cost="o m numbers that train and m d that do not, for d inputs and o outputs",
)
class RandomFeatureLinear(nn.Module):
    """A linear layer and its activation as one linear map of random features of the input.

    The paper draws C from the same random features of the weights, C = psi(W, b), which is unbiased for cos and sin but
    of a variance that grows as exp(2 |x| |w|), worse than saying zero at the norms of trained layers; its features for
    ReLU give the arc-cosine kernel of x and w in place of relu(w . x), 0.72 of it off at any width and the best scale.
    `from_linear` has both as published, and by default fits C and c to what the layer says on inputs, which is never
    worse on them. The projection is a buffer: a state that is loaded meets the features that it was fitted to.

    Exponential features grow as exp(g . x): of inputs some ten times as long as those that it was fitted to they are
    beyond 32 bits. Such inputs are refused, here and by `from_linear`; a graph that was compiled raises RuntimeError.

    At equal parameters it has to be held against factors U V (`eckart.fit`), which are closer for trained layers.

    Args:
        in_features: d.
        out_features: o.
        features: m; even for "exponential".
        kind: "relu", of (x, 1); or "exponential", real and imaginary parts of `exponential_features`.
        generator: of the projection.
        device: of all of it.
        dtype: of all of it.

    Raises:
        Refused: sizes below 1, an odd m of exponential features, or another kind.
    """

    projection: Tensor
    scale: Tensor

    def __init__(
        self,
        in_features: int,
        out_features: int,
        features: int,
        *,
        kind: Literal["relu", "exponential"] = "relu",
        generator: torch.Generator | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if min(in_features, out_features, features) < 1 or kind not in ("relu", "exponential"):
            raise Refused(f"{in_features} -> {features} -> {out_features} features, kind={kind!r}: relu or exponential")
        if kind == "exponential" and features % 2:
            raise Refused(f"features={features}: exponential features are real and imaginary parts, an even number")
        self.in_features, self.out_features, self.features, self.kind = in_features, out_features, features, kind
        shape = (features, in_features + 1) if kind == "relu" else (features // 2, in_features)
        drawn = torch.randn(shape, generator=generator, dtype=torch.float64)
        self.register_buffer("projection", drawn.to(device, dtype or torch.get_default_dtype()))
        self.register_buffer("scale", torch.ones_like(self.projection[0, 0]))
        self.weight = nn.Parameter(self.projection.new_zeros(out_features, features))
        self.bias = nn.Parameter(self.projection.new_zeros(out_features))

    def phi(self, x: Tensor) -> Tensor:
        """Features (..., m) of inputs (..., d)."""
        if self.kind == "relu":
            return relu_features(torch.cat([x * self.scale, torch.ones_like(x[..., :1])], -1), self.projection)
        return exponential_features(x * self.scale, self.projection)

    def forward(self, x: Tensor) -> Tensor:
        """C phi(x) + c, (..., o).

        Raises:
            Refused: x has another number of features, or is finite and what comes out of it is not.
        """
        if x.shape[-1] != self.in_features:
            raise Refused(f"x of shape {tuple(x.shape)} has no {self.in_features} features")
        found = F.linear(self.phi(x), self.weight, self.bias)
        sound = found.isfinite().all() | ~x.isfinite().all()
        if torch.compiler.is_compiling():
            torch._assert_async(sound, f"{self.kind} features of an input are beyond floats: scale the inputs")
            return found
        if sound:
            return found
        longest = float((x.detach().cpu().double() * self.scale.cpu()).norm(dim=-1).max())
        raise Refused(
            f"{self.kind} features of an input {longest:.3g} times as long as those that the layer was made for are "
            f"beyond {found.dtype}: scale the inputs, leave those far from the others out, or take kind='relu'"
        )

    @classmethod
    @torch.no_grad()
    def from_linear(
        cls,
        linear: nn.Linear,
        activation: Activation,
        x: Tensor,
        features: int,
        *,
        method: Literal["least-squares", "published"] = "least-squares",
        kind: Literal["relu", "exponential"] | None = None,
        generator: torch.Generator | None = None,
    ) -> RandomFeatureLinear:
        """A layer in the place of activation(linear(x)).

        Args:
            linear: (d -> o).
            activation: "relu", "cos", "sin", or a function.
            x: inputs (n, d) as the layer meets them.
            features: m.
            method: "least-squares" on x; or "published", features of the weights, which knows the three names only.
            kind: of the features; exponential for cos and sin, else relu, where it is None.
            generator: of the projection.

        Raises:
            Refused: NaN or Inf in inputs, weights or what the activation makes of them, an activation or method that is
                not known, inputs of another size, or lengths with which features are beyond the layer's dtype.
        """
        named = not callable(activation)
        if (named and activation not in ("relu", "cos", "sin")) or method not in ("least-squares", "published"):
            raise Refused(
                f"activation={activation!r}, method={method!r}: relu, cos, sin or a function; least-squares "
                "or published"
            )
        own: Literal["relu", "exponential"] = "exponential" if activation in ("cos", "sin") else "relu"
        if method == "published" and (not named or kind not in (None, own)):
            raise Refused(f"the published {activation!r} is of {own} features and has a name")
        if x.ndim != 2 or x.shape[1] != linear.in_features or not len(x) or not torch.isfinite(x).all():
            raise Refused(f"x of shape {tuple(x.shape)} is not (n, {linear.in_features}) finite numbers")
        made = cls(
            linear.in_features,
            linear.out_features,
            features,
            kind=kind or own,
            generator=generator,
            dtype=torch.float64,
        )
        length, held = _length(x), linear.weight.dtype
        made.scale.fill_(_scale(linear, x) if method == "published" else 1 / length if length > 0 else 1.0)
        target = applied(activation, linear(x)).cpu().double()
        if not target.isfinite().all():
            raise Refused(f"{activation!r:.60} of the linear layer has NaN or Inf among its outputs on x")
        phi = made.phi(x.cpu().double())
        sound = bool(phi.to(held).isfinite().all()) and 0 < float(made.scale.to(held)) < torch.inf
        if sound and method == "published":
            made._published(linear, x, activation)
        elif sound:
            mean, middle = phi.mean(0), target.mean(0)
            u, s, vt = torch.linalg.svd(phi - mean, full_matrices=False)
            bottom = s.square() + RIDGE * s.max().square()
            gain = s / bottom.where(bottom > 0, 1.0)
            made.weight.copy_((target - middle).T @ u * gain @ vt)
            made.bias.copy_(middle - made.weight @ mean)
        made = made.to(linear.weight.device, held)
        if not sound or not made.weight.isfinite().all() or not made(x.to(held)).isfinite().all():
            longest = float((x.cpu().double() / (length or 1.0)).norm(dim=1).max())
            raise Refused(
                f"{made.kind} features of inputs of mean length {length:.3g}, the longest {longest:.3g} times that, "
                f"are beyond {held}: scale the inputs, leave those far from the others out, or take kind='relu'"
            )
        return made

    def _published(self, linear: nn.Linear, x: Tensor, activation: Activation) -> None:
        _, w, b = _balanced(linear, x)
        if self.kind == "relu":
            self.weight.copy_(relu_features(torch.cat([w, b[:, None]], 1), self.projection))
            return
        real, imaginary = exponential_features(w, self.projection).chunk(2, -1)
        turn, other = b.cos()[:, None], b.sin()[:, None]
        real, imaginary = turn * real - other * imaginary, turn * imaginary + other * real
        parts = (real, -imaginary) if activation == "cos" else (imaginary, real)
        self.weight.copy_(torch.cat(parts, -1))

    def extra_repr(self) -> str:
        return f"{self.in_features} -> {self.features} {self.kind} features -> {self.out_features}"


@torch.no_grad()
def bundle(first: RandomFeatureLinear, second: nn.Linear) -> RandomFeatureLinear:
    """One layer for second(first(x)): the product of the two maps behind the features, exactly."""
    if second.in_features != first.out_features:
        raise Refused(f"{first.out_features} outputs do not go into a layer of {second.in_features}")
    made = RandomFeatureLinear(
        first.in_features,
        second.out_features,
        first.features,
        kind=first.kind,
        device=first.weight.device,
        dtype=first.weight.dtype,
    )
    made.projection.copy_(first.projection)
    made.scale.copy_(first.scale)
    made.weight.copy_(second.weight @ first.weight)
    made.bias.copy_(second(first.bias))
    return made
