"""Codes of several rows: the error feedback by inverses written out, and what the codes are better than."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import eckart
from eckart.compressors import vector_codebook
from eckart.linalg.optimal_brain_surgery import DAMPING
from eckart.metrics import Metric
from eckart.structures import VectorQuantized
from support import hard
from support.quantizing import correlated


def fitted(weight: torch.Tensor, moment: torch.Tensor, bits: int, **options: int) -> VectorQuantized:
    statistics = eckart.Statistics(input_second_moment=moment)
    structure = eckart.fit(weight, "vector-codebook", bits=bits, statistics=statistics, **options)
    assert isinstance(structure, VectorQuantized)
    return structure


@pytest.mark.parametrize(("out", "bits", "length"), [(70, 2, 4), (33, 3, 2), (34, 4, 2), (30, 3, 1)])
def test_columns_yet_to_come_make_up_for_those_before(
    out: int, bits: int, length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vector_codebook, "SHARE", 0)
    weight, moment = hard.normal(out, 48), correlated(48)
    matrix = fitted(weight, moment, bits, group=32, length=length)
    assert (matrix.length, matrix.bits) == (length, bits * length)
    book, scales = matrix.codebook.detach(), F.pad(matrix.scales.detach().T, (0, 0, 0, -out % length))
    damped = moment + DAMPING * moment.diagonal().mean() * torch.eye(48, dtype=torch.float64)
    rest, left = F.pad(weight, (0, 0, 0, -out % length)), moment.diagonal().argsort(descending=True).tolist()
    found = torch.empty_like(matrix.unpacked())
    while left:
        j, s = left[0], scales[:, left[0] // 32].view(-1, 1, length)
        error = (rest[:, j].view(-1, 1, length) - s * book).square().sum(2)
        found[:, j] = error.argmin(1)
        made = (s[:, 0] * book[found[:, j].long()]).flatten()
        inverse = damped[left][:, left].inverse()
        rest[:, left] -= (rest[:, j] - made)[:, None] * inverse[0] / inverse[0, 0]
        left = left[1:]
    assert torch.equal(matrix.unpacked(), found)


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_it_errs_less_than_codes_of_single_entries(bits: int) -> None:
    weight, moment = hard.normal(512, 256).float(), correlated(256)
    metric, statistics = Metric(right=moment), eckart.Statistics(input_second_moment=moment)
    found = fitted(weight.bfloat16(), moment, bits)
    names = ("gptq", "codebook-gptq")
    others = [eckart.fit(weight.bfloat16(), name, bits=bits, statistics=statistics) for name in names]
    errors = [float(metric.error(weight - each.to_dense().detach().float())) ** 0.5 for each in (found, *others)]
    assert errors[0] < {2: 0.9, 3: 0.95, 4: 1.0}[bits] * min(errors[1:])
    assert found.cost().bytes < 1.05 * others[0].cost().bytes


def test_bytes_are_codes_scales_and_one_codebook() -> None:
    matrix = fitted(hard.normal(512, 256).bfloat16(), correlated(256), 2)
    assert matrix.cost().bytes == 512 * 256 // 4 + 2 * (512 * 256 // 64 + 256 * 4)


def test_small_matrices_have_codes_of_fewer_rows() -> None:
    lengths = [fitted(hard.normal(out, 64).bfloat16(), correlated(64), 2).length for out in (8, 32, 1024)]
    assert lengths == [1, 2, 4]
    with pytest.raises(ValueError, match="length=0 is none of 1, 2, 4"):
        fitted(hard.normal(8, 64), correlated(64), 2, length=0)


@pytest.mark.parametrize("values", ["zero", "positive", "one entry", "constant"])
def test_matrices_of_few_values(values: str) -> None:
    weight = {
        "zero": torch.zeros(256, 64),
        "positive": hard.normal(256, 64).abs() + 0.1,
        "one entry": torch.zeros(256, 64).index_put_((torch.tensor(3), torch.tensor(5)), torch.tensor(2.0)),
        "constant": torch.full((256, 64), -3.0),
    }[values]
    dense = fitted(weight, torch.eye(64), 2).to_dense()
    assert torch.isfinite(dense).all()
    assert (dense - weight).norm() <= (0.5 if values == "positive" else 0.01) * weight.norm()
