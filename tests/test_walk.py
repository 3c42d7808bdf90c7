"""One weight's way through a compression is short: few files are handed it, each named after what it does."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import pytest
import torch
from torch import Tensor

import eckart
from tests.support.tiny import tiny_llama

HOUSE = Path(eckart.__file__).parent


@contextmanager
def followed(weight: Tensor, rooms: set[str]) -> Iterator[None]:
    """Notes the files of eckart with a function that is handed the weight, or a view of it."""
    place = weight.untyped_storage().data_ptr()

    def note(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event != "call" or not code.co_filename.startswith(str(HOUSE)):
            return
        arguments = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        handed = [frame.f_locals.get(name) for name in arguments]
        if any(isinstance(value, Tensor) and value.untyped_storage().data_ptr() == place for value in handed):
            rooms.add(Path(code.co_filename).relative_to(HOUSE).as_posix())

    sys.setprofile(note)
    threading.setprofile(note)  # matrices are fitted in threads
    try:
        yield
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


@pytest.mark.parametrize("method", ["kfac", "gptq", "wanda", "fwsvd"])
def test_a_weight_passes_fewer_than_fifteen_files(method: str) -> None:
    model, rooms = tiny_llama(), set[str]()
    ids = torch.randint(8, (4, 16), generator=torch.Generator().manual_seed(0))
    weight = model.model.layers[0].mlp.up_proj.weight
    with followed(weight, rooms):
        eckart.compress(model, method, keep=0.6, of="bytes", calibration=ids)
    assert f"compressors/{method}.py" in rooms
    assert len(rooms) < 15, sorted(rooms)
