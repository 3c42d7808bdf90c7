"""No compiled product reads or writes a byte outside of its tensors: random ones at the very ends of memory."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from eckart.ops.native.layouts import LAYOUTS, Leaves, Options
from eckart.ops.native.library import levels
from tests.support import fuzzed_products
from tests.support.children import in_child
from tests.support.fuzzed_products import Outside, fuzz, fuzz_all
from tests.support.guarded import Memory

pytestmark = pytest.mark.skipif(not levels() or not hasattr(os, "fork"), reason="no compiled products, or no processes")


def test_nothing_outside_of_tensors_is_touched() -> None:
    assert set(fuzzed_products.LAYOUTS) == set(LAYOUTS)
    ended, said = in_child(lambda say: fuzz_all(0, 40, say))
    assert ended == 0, f"a process ended with {ended} in: {said}"


def test_whoever_touches_more_is_named() -> None:
    layout, make = fuzzed_products.LAYOUTS["quantized"]

    def wider(leaves: Leaves, options: Options) -> ctypes.Structure:
        found = layout.describe(leaves, options)
        found.rows += 1  # the end of the codes, which products stop at
        found.run += 1
        return found

    fuzzed_products.LAYOUTS["quantized"] = replace(layout, describe=wider), make
    try:
        ended, said = in_child(lambda say: [fuzz(seed, "quantized", Memory(40, 1 << 17), say) for seed in range(20)])  # type: ignore[func-returns-value]
    finally:
        fuzzed_products.LAYOUTS["quantized"] = layout, make
    assert ended != 0
    assert "quantized(" in said
    assert "before the end of memory, seed" in said


@pytest.mark.parametrize("at_end", [True, False])
def test_what_was_written_around_a_tensor_is_seen(at_end: bool) -> None:
    memory = Memory(2, 100)
    tensor = memory.put(torch.arange(25.0), at_end)
    assert torch.equal(tensor, torch.arange(25.0))
    assert memory.untouched()
    ctypes.memset(tensor.data_ptr() - 1 if at_end else tensor.data_ptr() + 100, 0, 1)
    assert not memory.untouched()
    memory.clear()
    again: Tensor = memory.room(25, torch.float32, at_end)
    assert again.isnan().all()
    assert memory.untouched()
    with pytest.raises(ValueError, match="no room for 4400 bytes in place 1 of 2"):
        memory.room(1100, torch.float32, at_end)
    ended, _ = in_child(lambda say: ctypes.memset(tensor.data_ptr() + 100 if at_end else tensor.data_ptr() - 1, 0, 1))  # type: ignore[arg-type,return-value]
    assert ended in (-signal.SIGSEGV, -signal.SIGBUS)


def test_a_product_that_wrote_outside_is_an_error() -> None:
    ended, said = in_child(_writing_before)
    assert ended == 1
    assert Outside.__name__ in said
    assert "multiply wrote outside of its tensors at " in said


def _writing_before(say: Callable[[str], None]) -> None:
    multiplied = fuzzed_products._multiplied

    def worse(*given: object) -> Tensor:
        y: Tensor = multiplied(*given)  # type: ignore[arg-type]
        ctypes.memset(y.data_ptr() - 1, 0, 1)
        return y

    fuzzed_products._multiplied = worse  # type: ignore[assignment]
    fuzz(1, "dense", Memory(40, 1 << 17), say)
