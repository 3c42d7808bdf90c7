"""What infinitely wide networks are: neural tangent kernels in closed form, of any network, and what training does."""

from __future__ import annotations

from collections.abc import Sequence
from math import pi
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from eckart.arrays import back
from eckart.arrays import dense as dense_array
from eckart.errors import Refused
from eckart.kernels._kernel import Kernel
from eckart.kernels._parameters import log_parameter, plain
from eckart.kernels.contract import Example, kernel
from eckart.linalg.distances import squared_distances
from eckart.linalg.jacobian_products import Outputs, Route, jacobian_gram

SERIES = 0.02
"""An angle below which sin t - t cos t is t^3/3 - t^5/30 + t^7/840, to sixteen digits."""


def angle(h: Tensor, g: Tensor) -> Tensor:
    """The angle between unit vectors u and v, h = |u - v|^2 and g = |u + v|^2; its gradient is zero where one is."""
    inside = (h > 0) & (g > 0)
    between = 2 * torch.atan2(h.where(inside, 1.0).sqrt(), g.where(inside, 1.0).sqrt())
    return between.where(inside, pi * (h > 0).to(h.dtype))


def relu_duals(theta: Tensor) -> tuple[Tensor, Tensor]:
    """What of ReLU features is left at an angle theta: 1 - k_1 and k_0 (Cho and Saul 2009, eq. 6).

    k_1 = (sin theta + (pi - theta) cos theta) / pi is 2 E[relu(u) relu(v)], and k_0 = 1 - theta / pi is
    2 E[relu'(u) relu'(v)], of normal u and v of variance 1 at that angle. 1 - k_1 keeps its digits near zero.
    """
    rest = theta.sin() - theta * theta.cos()
    series = theta**3 * (1 / 3 - theta.square() / 30 + theta**4 / 840)
    less = 2 * (theta / 2).sin().square() - torch.where(theta < SERIES, series, rest) / pi
    return less, 1 - theta / pi


def _example(rng: np.random.Generator) -> Example:
    turn = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    made = NTK(2, "relu", bias_variance=0.2)
    return Example(made, rng.standard_normal((12, 3)), rng.standard_normal((5, 3)), (lambda x: x @ turn,))


@kernel(
    "ntk",
    paper="Jacot, Gabriel and Hongler 2018, arXiv 1806.07572, theorem 1; Cho and Saul 2009; Williams 1996 for erf",
    gives="tangent kernels of networks",
    example=_example,
    expression="S' = w E[s(u) s(v)] + b, T' = S' + w E[s'(u) s'(v)] T",
)
class NTK(Kernel):
    """The kernel by which an infinitely wide network learns, or by which it is distributed before it does.

    The network is h_1 = sqrt(w / d) W_1 x + sqrt(b) b_1, h_(l + 1) = sqrt(w / n) W s(h_l) + sqrt(b) b, its output the
    last h, all W and b standard normal and all of them trained. Wide, h_l are normal with covariance S_l, and the
    products of gradients are T_l: with (u, v) normal of covariance S_l between two points,
    S_1 = T_1 = w x.z / d + b, S_(l + 1) = w E[s(u) s(v)] + b, T_(l + 1) = S_(l + 1) + w E[s'(u) s'(v)] T_l.

    Angles are carried from layer to layer as squared distances, which keeps coincident points exact. On digits and on
    Fashion-MNIST it gains nothing over a Gaussian kernel of the best width, which is ahead by up to 0.7 points of those
    of ReLU.

    Args:
        depth: hidden layers, 1 or more.
        activation: s: "relu" or "erf".
        weight_variance: w; 2 keeps the variance of ReLU layers.
        bias_variance: b; zero for no biases.
        kind: "ntk", T, that of training by gradient flow; or "nngp", S, that of the untrained network.

    Raises:
        Refused: one of these out of its range.
    """

    def __init__(
        self,
        depth: int = 1,
        activation: Literal["relu", "erf"] = "relu",
        *,
        weight_variance: float = 2.0,
        bias_variance: float = 0.0,
        kind: Literal["ntk", "nngp"] = "ntk",
    ) -> None:
        super().__init__()
        if depth != int(depth) or depth < 1 or activation not in ("relu", "erf") or kind not in ("ntk", "nngp"):
            raise Refused(
                f"NTK: depth={depth}, activation={activation!r}, kind={kind!r}: a whole depth from 1 on, relu or erf, "
                "ntk or nngp"
            )
        self.depth, self.activation, self.kind = int(depth), activation, kind
        self.log_weight_variance = log_parameter("NTK", "weight_variance", weight_variance)
        self.log_bias_variance = log_parameter("NTK", "bias_variance", bias_variance) if bias_variance else None

    def options(self) -> dict[str, Any]:
        bias = 0.0 if self.log_bias_variance is None else plain(self.log_bias_variance.exp())
        weight = plain(self.log_weight_variance.exp())
        named = {"depth": self.depth, "activation": self.activation, "kind": self.kind}
        return {**named, "weight_variance": weight, "bias_variance": bias}

    def _first(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Lengths (n,) and directions (n, d + 1) of sqrt(S_1)'s features (sqrt(w / d) x, sqrt(b))."""
        inner = x * (self.log_weight_variance.exp() / max(x.shape[1], 1)).sqrt()
        if self.log_bias_variance is not None:
            inner = torch.cat([inner, (self.log_bias_variance / 2).exp().expand(len(x), 1)], 1)
        size = inner.detach().abs().amax(1, keepdim=True) if inner.shape[1] else inner.new_zeros(len(x), 1)
        inner = inner / size.where(size > 0, 1.0)
        length = torch.linalg.vector_norm(inner, dim=1, keepdim=True)
        r = (length * size)[:, 0]
        if not torch.isfinite(r.detach().square()).all():
            raise Refused(f"points of lengths up to {float(r.max()):.3g} have squares beyond float64: scale them")
        return r, inner / length.where(length > 0, 1.0)

    def _between(self, x: Tensor, z: Tensor) -> Tensor:
        r, u = self._first(x)
        t, v = (r, u) if z is x else self._first(z)
        h, g = squared_distances(u, None if z is x else v), squared_distances(u, -v)
        return self._layers(r[:, None], t, h, g)

    def _diagonal(self, x: Tensor) -> Tensor:
        r, _ = self._first(x)
        return self._layers(r, r, torch.zeros_like(r), torch.full_like(r, 4.0))

    def _layers(self, r: Tensor, t: Tensor, h: Tensor, g: Tensor) -> Tensor:
        """T or S behind all layers, from lengths and |u - v|^2 and |u + v|^2 of directions u and v at the first."""
        w = self.log_weight_variance.exp()
        s = tangent = r * t * (1 - h / 2)
        for _ in range(self.depth):
            r, t, h, s, slope = self._relu(r, t, h, g, w) if self.activation == "relu" else self._erf(r, t, h, w)
            g, tangent = 4 - h, s + slope * tangent
        return tangent if self.kind == "ntk" else s

    def _relu(self, r: Tensor, t: Tensor, h: Tensor, g: Tensor, w: Tensor) -> tuple[Tensor, ...]:
        less, half = relu_duals(angle(h, g))
        a, c = r * (w / 2).sqrt(), t * (w / 2).sqrt()
        if self.log_bias_variance is None:
            return a, c, 2 * less, a * c * (1 - less), w / 2 * half
        b = self.log_bias_variance.exp()
        first, second = (a.square() + b).sqrt(), (c.square() + b).sqrt()
        # |u/|u| - v/|v||^2 = (|u - v|^2 - (|u| - |v|)^2) / |u| |v| of vectors that have sqrt(b) behind a and c.
        apart = (a - c).square() * (1 - ((a + c) / (first + second)).square()) + 2 * a * c * less
        s = a * c * (1 - less) + b
        return first, second, (apart / (first * second)).clamp(0, 4), s, w / 2 * half

    def _erf(self, r: Tensor, t: Tensor, h: Tensor, w: Tensor) -> tuple[Tensor, ...]:
        b = 0.0 if self.log_bias_variance is None else self.log_bias_variance.exp()
        p, q = 1 / (1 + 2 * r.square()), 1 / (1 + 2 * t.square())
        a, c = 2**0.5 * r * p.sqrt(), 2**0.5 * t * q.sqrt()
        # E[erf u erf v] = 2/pi arcsin m, m = 2 S_uv / sqrt((1 + 2 S_uu)(1 + 2 S_vv)); rest is 1 - m^2.
        rest = p + q * (1 - p) + (a * c).square() * (h - h.square() / 4)
        first, second = (
            _root(w * 2 / pi * torch.atan2(m.square(), (o * (2 - o)).sqrt()) + b) for m, o in ((a, p), (c, q))
        )
        s = w * 2 / pi * torch.atan2(a * c * (1 - h / 2), rest.sqrt()) + b
        size = first * second
        near = torch.where(size > 0, s / size.where(size > 0, 1.0), 1.0)
        return first, second, (2 - 2 * near).clamp(0, 4), s, w * 4 / pi * (p * q / rest).sqrt()


def _root(x: Tensor) -> Tensor:
    """The square root, whose gradient is zero at zero."""
    return x.where(x > 0, 1.0).sqrt() * (x > 0)


def empirical_ntk(
    network: nn.Module,
    x: Tensor,
    z: Tensor | None = None,
    *,
    parameters: Sequence[str] | None = None,
    outputs: Outputs = "mean",
    route: Route = "auto",
    tile: int = 64,
) -> Tensor:
    """The tangent kernel of a network as it is: products of the gradients of its outputs at two inputs.

    K(x, z) = df(x)/dp . df(z)/dp over the parameters p. See `eckart.linalg.jacobian_products` for the three routes.

    Args:
        network: (n, ...) -> (n,) or (n, o), each output depending on its own input.
        x: n inputs (n, ...).
        z: m inputs; x where it is None.
        parameters: names of those that count; all that require gradients where it is None.
        outputs: "mean" over the outputs; "sum", of the one function sum_o f_o / sqrt(o), which needs one gradient for
            all (Mohamadi, Bae and Sutherland 2023, arXiv 2206.12543); "all", a matrix (o, o) for each pair; or the
            number of one.
        route: "layers", "jacobian", "products", or "auto".
        tile: inputs whose gradients are held at once.

    Returns:
        (n, m), or (n, m, o, o) of all outputs; in the dtype of the parameters.

    Raises:
        Refused: unknown parameters, outputs of another shape, or layers that tie inputs together.
    """
    return jacobian_gram(network, x, z, names=parameters, outputs=outputs, route=route, tile=tile)


def trained(gram: Any, y: Any, times: Any, *, cross: Any = None, start: Any = None, cross_start: Any = None) -> Any:
    """What a network of constant tangent kernel says after each of many times of gradient flow, from one eigh.

    With L = |f - y|^2 / 2, f(t) = f(0) + K(., x) K^-1 (I - exp(-t K)) (y - f(0)) (Lee et al. 2019, arXiv 1902.06720,
    eqs. 9 and 10, of the rate 1 and a loss that is no mean); where K is singular, as much as is learned: the function
    (1 - exp(-t l)) / l is t at l = 0, and no inverse is formed.

    Args:
        gram: K (n, n) of the training inputs.
        y: targets (n,) or (n, k).
        times: t, from zero on, infinite ones too; one or (s,), in units of 1 / K.
        cross: K of other inputs with the training inputs, (m, n); where it is None, what is said of the latter.
        start: f(0) at the training inputs, as y; zero where it is None.
        cross_start: f(0) at the others.

    Returns:
        (m,) or (m, k) for one time, else one more dimension in front; as y came.

    Raises:
        Refused: shapes that do not go together, NaN or Inf, a negative time, or a K that is not symmetric.
    """
    k, target = dense_array(gram, "gram"), dense_array(y, "y", ndim=None)
    t = np.asarray(times, np.float64)
    if k.shape != (len(target), len(target)) or not np.allclose(
        k, k.T, rtol=1e-8, atol=1e-8 * np.abs(k).max(initial=0)
    ):
        raise Refused(f"gram of shape {k.shape} is no symmetric matrix of {len(target)} targets")
    if t.ndim > 1 or not (t >= 0).all():
        raise Refused(f"times={times} are not one or a list of numbers from zero on")
    others = k if cross is None else dense_array(cross, "cross")
    before = np.zeros_like(target) if start is None else dense_array(start, "start", ndim=target.ndim)
    there = before if cross is None else np.zeros((len(others), *target.shape[1:]))
    there = there if cross is None or cross_start is None else dense_array(cross_start, "cross_start", ndim=target.ndim)
    if before.shape != target.shape or others.shape[1] != len(k) or there.shape != (len(others), *target.shape[1:]):
        raise Refused(f"start {before.shape}, cross {others.shape} and cross_start {there.shape} do not go with y")
    values, vectors = np.linalg.eigh(k)
    floor = len(k) * np.finfo(float).eps * np.abs(values).max(initial=0)
    held, lost = np.where(values > floor, values, 1.0), values <= floor
    rest = vectors.T @ (target - before).reshape(len(k), -1)
    left = others @ vectors
    found = []
    for each in t.reshape(-1):
        gain = np.where(lost, each if np.isfinite(each) else 0.0, -np.expm1(-each * held) / held)
        found.append(there + ((left * gain) @ rest).reshape(there.shape))
    return back(np.stack(found).reshape(*t.shape, *there.shape), y)
