"""Sparse dictionary learning on the inputs of a layer."""

from __future__ import annotations

import torch
from torch import Tensor

from eckart.linalg import project
from eckart.methods.onebyone import Once, OneByOne, paying
from eckart.methods.registry import Family, compressor
from eckart.metrics import Metric
from eckart.statistics.needs import Need, Statistics
from eckart.structures.base import Cost
from eckart.structures.compose import Chain
from eckart.structures.dense import Dense
from eckart.structures.masked import Masked
from eckart.structures.quantized import finite_matrix

ATOMS = 2
"""Atoms for each entry of a column of codes, the paper's k / s."""
ROUNDS = 16
REFINEMENTS = 3
SIZES = 12
RIDGE = 1e-3


@compressor(
    "cospadi",
    paper="Shopkhoev et al. 2025, arXiv 2509.22075",
    expression="Chain(Masked, Dense)",
    needs=(Need.INPUT_SECOND_MOMENT,),
    size="terms",
)
def cospadi(weight: Tensor, statistics: Statistics) -> Family:
    """W^T ~ D Z: every output a sum of s of the k = 2 s atoms of a dictionary, fitted to what W does to its inputs.

    The error is `||C^1/2 (W^T - D Z)||`: columns of Z belong to outputs, so that a dictionary C^1/2 D of the columns of
    C^1/2 W^T keeps its sparse codes when the metric is undone. Places of the codes are stored as bits, as the paper
    counts them; with an index of 16 bits for each, 16-bit codes would take the bytes of a product of rank k, which can
    hold whatever they hold.

    Where the paper alternates orthogonal matching pursuit and K-SVD, all codes are the largest of a least-squares fit
    here, and all atoms are updated at once; half of them being used, that is as good and many times faster.

    Args:
        weight: (out, in).
        statistics: `input_second_moment` C is read; errors are `||(W - What) C^1/2||_F^2`.

    Raises:
        ValueError: weight or C has NaN or Inf entries, or C does not fit the weight.
    """
    w, moment = finite_matrix(weight), statistics.get(Need.INPUT_SECOND_MOMENT)
    scale = float(w.abs().max()) or 1.0

    prepared = Once(lambda: signals(w.double() / scale, moment).to(torch.promote_types(w.dtype, torch.float32)))

    def fit(terms: int) -> Chain:
        codes = sparse_codes(prepared(), ATOMS * terms, terms)
        atoms = least_squares_atoms(codes, w.double() / scale) * scale
        return assemble(codes, atoms, terms, w.dtype)

    def cost(terms: int) -> Cost:
        return cospadi_cost(w.shape[0], w.shape[1], terms, w.element_size())

    most = len(paying(w, range(1, w.numel() // (w.shape[0] + ATOMS * w.shape[1]) + 1), cost))
    sizes = sorted({max(1, round(most * i / SIZES)) for i in range(1, SIZES + 1)}) if most else []
    return OneByOne(w, sizes, cost, fit, Metric(right=moment))


def signals(weight: Tensor, moment: Tensor) -> Tensor:
    """Y (out, min(out, in)) with Y Y^T = W C W^T, principal directions first, of mean squared row norm one.

    Any codes X, one row an output, have `||(W - X T) C^1/2|| = ||Y - X T'||` up to a common factor for the best T and
    T', so that the metric is no more to be thought of.
    """
    principal = project(weight, Metric(right=moment))
    y = principal.synthesis * (-principal.errors.diff()).clamp_min(0).sqrt()
    size = y.square().sum(1).mean().sqrt()
    return y / size if size > 0 else y


def sparse_codes(y: Tensor, k: int, s: int) -> Tensor:
    """Codes X (n, k), s entries a row, of a dictionary T (k, m) with small `||Y - X T||_F`.

    Starts from the first k principal directions. Each round fits codes without a restriction, `X = Y T^T (T T^T)^-1`,
    keeps the s largest of each row and improves them by conjugate gradients; then T is the least-squares dictionary of
    these codes, with unit rows, and moves on as far again as it came, which halves the number of rounds.

    Args:
        y: Y (n, m), signals in rows.
        k: atoms; where they are more than m, the others start as signals.
        s: entries a row.
    """
    n, m = y.shape
    start = torch.eye(min(k, m), m).to(y)
    more = y[torch.linspace(0, n - 1, k - len(start)).long()] if k > m else y[:0]
    atoms = torch.cat([start, _unit(more)])
    best, least = y.new_zeros(n, k), float("inf")
    for _ in range(ROUNDS):
        gram, products = atoms @ atoms.T, y @ atoms.T
        damped = gram + RIDGE * torch.eye(k).to(y)
        codes = torch.cholesky_solve(products.T, torch.linalg.cholesky(damped)).T
        kept = largest(codes, s)
        codes = conjugate_gradients(gram, products, codes * kept, kept)
        fitted = least_squares_atoms(codes, y)
        error = float((y - codes @ fitted).square().sum())
        if error < least:
            best, least = codes, error
        fitted = _unit(fitted)
        atoms = _unit(2 * fitted - atoms)
    return best


def largest(codes: Tensor, s: int) -> Tensor:
    """Where the s entries of largest magnitude of each row are: codes (n, k) -> (n, k), bool."""
    return torch.zeros_like(codes, dtype=torch.bool).scatter_(1, codes.abs().topk(s, 1).indices, True)


def conjugate_gradients(gram: Tensor, products: Tensor, codes: Tensor, kept: Tensor) -> Tensor:
    """A few steps towards the least-squares codes with entries where `kept` is true, for all rows at once.

    Args:
        gram: T T^T (k, k).
        products: Y T^T (n, k).
        codes: where to start, (n, k).
        kept: (n, k), bool.
    """
    residual = (products - codes @ gram) * kept
    direction, squares = residual, residual.square().sum(1, keepdim=True)
    for _ in range(REFINEMENTS):
        image = direction @ gram
        curvature = (direction * image).sum(1, keepdim=True)
        step = torch.where(curvature > 0, squares / curvature, 0.0)
        codes = codes + step * direction
        residual = residual - step * image * kept
        before, squares = squares, residual.square().sum(1, keepdim=True)
        direction = residual + torch.where(before > 0, squares / before, 0.0) * direction
    return codes


def least_squares_atoms(codes: Tensor, y: Tensor) -> Tensor:
    """T (k, m) of least `||Y - X T||_F`: X^T X T = X^T Y, codes X (n, k), Y (n, m); an atom that is not used is zero.

    With W in the place of Y it is the best dictionary in the metric of any inputs.
    """
    x = codes.to(y.dtype)
    gram = x.T @ x
    gram.diagonal().add_(1e3 * torch.finfo(y.dtype).eps * gram.diagonal().mean() + torch.finfo(y.dtype).tiny)
    atoms: Tensor = torch.cholesky_solve(x.T @ y, torch.linalg.cholesky(gram))
    return atoms


def assemble(codes: Tensor, atoms: Tensor, s: int, dtype: torch.dtype) -> Chain:
    """`codes @ atoms` with each column and row of equal norm, so that neither overflows a short dtype."""
    x = codes.double()
    ratio = torch.linalg.vector_norm(atoms, dim=1) / torch.linalg.vector_norm(x, dim=0)
    balance = torch.where((ratio > 0) & torch.isfinite(ratio), ratio, 1.0).sqrt()
    rows = (atoms / balance[:, None]).to(dtype).contiguous()
    return Chain(Masked.from_dense((x * balance).to(dtype), largest(codes, s)), Dense(rows))


def cospadi_cost(out: int, columns: int, s: int, itemsize: int) -> Cost:
    """The cost of `assemble` with s entries a row."""
    values = s * (out + ATOMS * columns)
    return Cost(values, values * itemsize + out * -(-ATOMS * s // 8), values)


def _unit(rows: Tensor) -> Tensor:
    norms = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return rows / torch.where(norms > 0, norms, 1.0)
