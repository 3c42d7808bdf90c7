"""GroupSparse and GroupSparseCodes: groups of inputs that are stored, values or codes, and their places."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eckart.structures import Dense, GroupSparse, GroupSparseCodes, StructuredMatrix
from support import hard
from support.pruning import random_mask

few = settings(deadline=None, max_examples=25)
byte = torch.uint8


@few
@given(st.integers(1, 7), st.integers(1, 70), st.integers(1, 20), st.floats(0, 1), st.integers(0, 99))
def test_group_sparse_against_a_loop(out: int, columns: int, group: int, density: float, seed: int) -> None:
    groups = -(-columns // group)
    W, kept = hard.normal(out, columns, seed=seed), random_mask(out, groups, density, seed)
    sparse = GroupSparse.from_dense(W, kept, group)
    sparse.check_values()
    values, places, dense = [], [], torch.zeros_like(W)
    for i in range(out):
        for g in range(groups):
            if kept[i, g]:
                run = W[i, g * group : (g + 1) * group].tolist()
                values.append(run + [0.0] * (group - len(run)))
                places.append(g)
                dense[i, g * group : (g + 1) * group] = W[i, g * group : (g + 1) * group]
    assert sparse.values.tolist() == values
    assert sparse.places.tolist() == places
    assert sparse.counts.tolist() == kept.sum(1).tolist()
    assert torch.equal(sparse.to_dense(), dense)
    index = torch.randint(out, (2, 5), generator=torch.Generator().manual_seed(seed))
    assert torch.equal(sparse.rows(index), dense[index])
    cost = sparse.cost()
    entries = group * len(places)
    assert (cost.parameters, cost.bytes, cost.macs) == (entries, 8 * entries + len(places) + out, entries)
    assert GroupSparse.empty((out, columns), len(places), W.dtype, group).cost() == cost


@few
@given(st.integers(1, 7), st.integers(1, 70), st.sampled_from((2, 3, 4, 8)), st.floats(0, 1), st.integers(0, 99))
def test_codes_are_the_nearest_of_the_grid(out: int, columns: int, bits: int, density: float, seed: int) -> None:
    groups = -(-columns // 16)
    W, kept = hard.normal(out, columns, seed=seed), random_mask(out, groups, density, seed)
    coded = GroupSparseCodes.quantize(W, kept, bits)
    coded.check_values()
    dense, half = torch.zeros_like(W), 2 ** (bits - 1)
    for i in range(out):
        for g in range(groups):
            run = W[i, 16 * g : 16 * g + 16]
            if kept[i, g]:
                scale = max(float(run.max()) / (half - 1), -float(run.min()) / half)
                dense[i, 16 * g : 16 * g + 16] = scale * (run / scale).round().clamp(-half, half - 1)
    torch.testing.assert_close(coded.to_dense().detach(), dense, rtol=1e-12, atol=1e-12)
    assert torch.equal(coded.rows(torch.arange(out)), coded.to_dense())
    stored, cost = int(kept.sum()), coded.cost()
    assert (cost.parameters, cost.macs) == (16 * stored, 16 * stored)
    assert cost.bytes == stored * (2 * bits + 8 + 1) + out
    assert GroupSparseCodes.empty((out, columns), stored, bits, W.dtype).cost() == cost


def test_bytes_of_half_the_groups() -> None:
    W, kept = torch.ones(4, 64), torch.tensor([[True, False, True, False]]).expand(4, 4)
    dense = Dense(W).cost().bytes
    assert GroupSparse.from_dense(W, kept).cost().bytes == dense // 2 + 4 * 2 + 4
    assert GroupSparseCodes.quantize(W, kept, 4).cost().bytes == 4 * (2 * (8 + 4 + 1) + 1)


@pytest.mark.parametrize(
    ("columns", "places", "counts"),
    [(255, byte, byte), (256, byte, torch.int16), (257, torch.int16, torch.int16), (40000, torch.int32, torch.int32)],
)
def test_indices_are_as_small_as_they_can_be(columns: int, places: torch.dtype, counts: torch.dtype) -> None:
    sparse = GroupSparse.from_dense(torch.ones(1, columns), torch.ones(1, columns).bool(), 1)
    sparse.check_values()
    assert (sparse.places.dtype, sparse.counts.dtype) == (places, counts)
    assert sparse.to_dense().all()


def test_what_is_stored_beyond_the_matrix_counts_for_nothing() -> None:
    W, kept = hard.normal(2, 20), torch.ones(2, 2).bool()
    sparse = GroupSparse.from_dense(W, kept)
    with torch.no_grad():
        sparse.values[1, 4:] = torch.nan
    assert torch.equal(sparse.to_dense(), W)
    assert torch.equal(sparse.rows(torch.tensor([0])), W[:1])
    x = hard.normal(3, 20)
    sparse(x).sum().backward()
    assert sparse.values.grad is not None
    assert sparse.values.grad[1].tolist()[4:] == [0.0] * 12


def test_dropped_groups_see_no_infinity_when_rows_are_looked_up() -> None:
    sparse = GroupSparse.from_dense(torch.full((2, 32), torch.inf), torch.tensor([[True, False], [False, False]]))
    dense = sparse.to_dense()
    assert torch.isinf(dense[0, :16]).all()
    assert not dense[0, 16:].any()
    assert not dense[1].any()


def made(values: int = 2, places: object = None, counts: object = None, size: int = 20) -> GroupSparse:
    return GroupSparse(
        torch.ones(values, 16),
        torch.tensor([0, 1], dtype=byte) if places is None else places,
        torch.tensor([1, 1], dtype=byte) if counts is None else counts,
        group=16,
        size=size,
    )


def coded(codes: torch.Tensor, bits: int = 4) -> GroupSparseCodes:
    place, count = torch.zeros(1, dtype=byte), torch.ones(1, dtype=byte)
    return GroupSparseCodes(codes, torch.ones(1), place, count, bits=bits, group=16, size=20)


WRONG: dict[str, Callable[[], StructuredMatrix]] = {
    r"places must be torch.uint8 of shape \(3,\), got torch.uint8 of shape \(2,\)": lambda: made(3),
    r"places must be torch.uint8 of shape \(2,\), got torch.int64": lambda: made(places=torch.tensor([0, 1])),
    r"counts must be torch.uint8 of shape \(out,\), got torch.float32": lambda: made(counts=torch.ones(2)),
    "counts must be torch.uint8 .* got None": lambda: GroupSparse(
        torch.ones(0, 16),
        torch.zeros(0, dtype=byte),
        None,  # type: ignore[arg-type]
        group=16,
        size=20,
    ),
    "places must be torch.int16": lambda: made(size=16 * 257),
    "5 groups do not fit 2 rows of 2": lambda: made(5, torch.zeros(5, dtype=byte)),
    r"groups of 16 must be of shape \(kept, 16\), got 8 each": lambda: GroupSparse(
        torch.ones(2, 8), torch.tensor([0, 1], dtype=byte), torch.tensor([2], dtype=byte), group=16, size=20
    ),
    "size must be an integer of at least 1, got 0": lambda: made(size=0),
    r"torch.bool of shape \(2, 3\), got torch.bool of shape \(2, 4\)": lambda: GroupSparse.from_dense(
        torch.ones(2, 40), torch.ones(2, 4).bool()
    ),
    r"torch.bool of shape \(2, 3\), got torch.float32": lambda: GroupSparseCodes.quantize(
        torch.ones(2, 40), torch.ones(2, 3), 4
    ),
    "bits must be 2 to 8, got 9": lambda: coded(torch.zeros(1, 16, dtype=byte), 9),
    r"codes must be torch.uint8 of shape \(1, 8\), got torch.uint8 of shape \(1, 16\)": lambda: coded(
        torch.zeros(1, 16, dtype=byte)
    ),
    "NaN or Inf": lambda: GroupSparseCodes.quantize(torch.full((2, 16), torch.nan), torch.ones(2, 1).bool(), 4),
}


@pytest.mark.parametrize("message", WRONG)
def test_what_cannot_be_is_refused(message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WRONG[message]()


def index(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=byte)


DAMAGED: dict[str, Callable[[], StructuredMatrix]] = {
    "2 groups but counts of 3": lambda: made(counts=index(1, 2)),
    "2 groups but counts of 1": lambda: made(counts=index(1, 0)),
    r"places must lie in 0\.\.1": lambda: made(places=index(0, 2)),
    "ascend within each row": lambda: made(places=index(1, 0), counts=index(2, 0)),
    "without repetition": lambda: made(places=index(1, 1), counts=index(0, 2)),
    "scales have NaN or Inf": lambda: GroupSparseCodes(
        torch.zeros(1, 8, dtype=byte), torch.tensor([torch.nan]), index(0), index(1), bits=4, group=16, size=20
    ),
}


@pytest.mark.parametrize("message", DAMAGED)
def test_damage_is_found(message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DAMAGED[message]().check_values()


def test_negative_counts_are_found() -> None:
    columns = 16 * 300
    places, counts = torch.tensor([0, 1], dtype=torch.int16), torch.tensor([-1, 3], dtype=torch.int16)
    with pytest.raises(ValueError, match="2 groups but counts of 2"):
        GroupSparse(torch.ones(2, 16), places, counts, group=16, size=columns).check_values()
