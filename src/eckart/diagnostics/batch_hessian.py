"""How much sharper the loss of a batch is than that of all examples, and the learning rates that this allows."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from eckart.diagnostics.contract import Column, Curvature, Numbers, diagnostic
from eckart.errors import Refused
from eckart.linalg.spectral_density import lanczos

STEPS = 48
"""Of the Lanczos process."""
PROBES = 8
"""Vectors that the variance is taken along."""
BATCHES = tuple(2**k for k in range(11))
OCCUPIED = 1e-25
"""Weight of a node of the quadrature below which it is none: the process had ended."""


def batch_eigenvalue(value: float, noise: float, batch: float) -> float:
    """The largest eigenvalue of the Hessian of a batch, that of all examples being `value` (Granziol et al. 2022).

    The Hessian of b examples is that of all of them and a fluctuation, of variance s^2 / b an entry. With this a Wigner
    matrix of P rows, lambda becomes lambda + (P s^2 / b) / lambda where lambda > sqrt(P s^2 / b), and is lost below the
    edge 2 sqrt(P s^2 / b) of the fluctuation where it is not.

    Args:
        value: lambda.
        noise: P s^2, see `Sharpness`.
        batch: b.
    """
    radius = math.sqrt(noise / batch)
    return value + radius * (radius / value) if value > radius else 2 * radius


@dataclass(frozen=True)
class Sharpness:
    """The ends of a Hessian's spectrum, and how much those of single examples differ from it.

    Attributes:
        largest, smallest: eigenvalues of the mean of all batches; bounds from inside, close after some dozen steps.
        noise: E|H_i - H|_F^2 / P, which is P s^2 where all entries vary alike.
        leading: E|(H_i - H) u|^2, u the eigenvector of the largest eigenvalue; the same where all entries vary alike.
    """

    largest: float
    smallest: float
    noise: float
    leading: float


def sharpness(curvature: Curvature, *, steps: int = STEPS, probes: int = PROBES) -> Sharpness:
    """By the Lanczos process with the mean Hessian, and by its batches along vectors.

    For v of random signs and unit length, E|(H_j - H) v|^2 is |H_j - H|_F^2 / P. The mean over m batches of b examples,
    m / (m - 1) of it, is that of single examples by b.

    Args:
        curvature: batch by batch.
        steps: of the Lanczos process, orthogonalized in full.
        probes: random vectors for the variance.

    Raises:
        Refused: NaN or Inf among the products, or squares of them that overflow.
    """
    generator = torch.Generator().manual_seed(curvature.seed)
    p, m = curvature.size, len(curvature.products)
    signs = torch.randint(0, 2, (p, probes), generator=generator)
    vectors = (2.0 * signs.double() - 1) / p**0.5
    found = [_products(curvature, vectors[:, k]) for k in range(probes)]
    exponent = math.frexp(max(float(part.abs().max()) for part in found))[1]
    scale = math.ldexp(1.0, -max(-1000, min(1000, exponent)))

    def mean(q: Tensor) -> Tensor:
        return scale * _products(curvature, q[:, 0]).mean(0)[:, None]

    def varied(products: Tensor) -> float:
        scaled = scale * products
        return curvature.batch / (m - 1) * float((scaled - scaled.mean(0)).square().sum()) / scale / scale

    nodes, inner, basis = lanczos(mean, vectors[:, :1], min(steps, p), 1e-12)
    at = torch.nonzero(inner[0, 0].square() > OCCUPIED).squeeze(1)
    leading = torch.nn.functional.normalize(inner[0, :, at[-1]] @ basis[:, :, 0], dim=0)
    made = Sharpness(
        float(nodes[0, at[-1]]) / scale,
        float(nodes[0, at[0]]) / scale,
        sum(varied(part) for part in found) / probes,
        varied(_products(curvature, leading)),
    )
    if not math.isfinite(sum(map(abs, vars(made).values()))):
        raise Refused(f"products up to 2^{exponent} have squares that do not fit float64; scale the loss down")
    return made


def _products(curvature: Curvature, v: Tensor) -> Tensor:
    """H_j v of every batch, (m, P)."""
    found = torch.stack([product(v).double() for product in curvature.products])
    if not torch.isfinite(found).all():
        raise Refused("NaN or Inf among the products with the Hessian; is the loss finite there?")
    return found


@diagnostic(
    "batch-hessian",
    paper="Granziol, Zohren and Roberts 2022, arXiv 2006.09092",
    of="curvature",
    gives={
        "curvature_largest": Column("Largest eigenvalue of the Hessian of all examples"),
        "curvature_smallest": Column("Smallest eigenvalue of it"),
        "curvature_noise": Column("E|H_i - H|^2 / P: how much the Hessian of one example differs, all entries alike"),
        "curvature_noise_leading": Column("E|(H_i - H) u|^2, the same along the leading eigenvector u"),
        "batch_of_noise": Column("Batch below which the largest eigenvalue of a batch is that of its noise"),
        "batches": Column("Examples in a batch, for the lists that follow", kind="integers"),
        "batch_curvature": Column("Largest eigenvalue on so many examples, by the leading noise", kind="numbers"),
        "batch_curvature_alike": Column("The same by the noise of all entries alike, as published", kind="numbers"),
        "sgd_rates": Column("Largest stable rate of gradient descent on them, 2 by the first", kind="numbers"),
        "adam_rates": Column("Largest rate of Adam on them, by that on all examples", kind="numbers"),
    },
    noun="curvature",
)
def batch_hessian(curvature: Curvature) -> Numbers:
    """How much sharper the loss of a batch is than that of all examples, and the learning rates that this allows.

    The Hessian of b examples has the largest eigenvalue lambda_b = lambda + (v / b) / lambda where lambda^2 > v / b and
    2 sqrt(v / b) where it is not (`batch_eigenvalue`). As published, v = P s^2 = E|H_i - H|_F^2 / P, as if all
    entries of the Hessians of single examples varied alike. They vary where the Hessian is large: v is taken along its
    leading eigenvector u, E|(H_i - H) u|^2. Descent on the quadratic is stable up to a rate of 2 / lambda_b: the rate
    grows with b until v / b is small beside lambda^2. Adam divides by what has about the root of the Hessian for its
    spectrum, so that its rate grows with the root: (lambda / lambda_b)^(1/2).

    Args:
        curvature: `Curvature.of(loss, parameters, batches, batch)`, say.

    Raises:
        Refused: a loss that is flat or has no positive curvature, NaN or Inf.
    """
    found = sharpness(curvature)
    value = found.largest
    if not value > 0:
        raise Refused(f"the largest eigenvalue of the Hessian is {value:.3g}: no rate is too large for it")
    sharp = [batch_eigenvalue(value, found.leading, b) for b in BATCHES]
    if not min(sharp) > 2 / torch.finfo(torch.float64).max:
        raise Refused(f"a curvature of {value:.3g} has no rate in float64; scale the loss up")
    return {
        "curvature_largest": value,
        "curvature_smallest": found.smallest,
        "curvature_noise": found.noise,
        "curvature_noise_leading": found.leading,
        "batch_of_noise": found.leading / value / value,
        "batches": list(BATCHES),
        "batch_curvature": sharp,
        "batch_curvature_alike": [batch_eigenvalue(value, found.noise, b) for b in BATCHES],
        "sgd_rates": [2 / each for each in sharp],
        "adam_rates": [math.sqrt(value / each) for each in sharp],
    }
