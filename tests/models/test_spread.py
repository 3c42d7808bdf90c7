"""Models that two processes hold shards of are refused in each, and gathered by the lines of the documentation."""

from __future__ import annotations

import multiprocessing
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed
from torch.distributed import device_mesh, fsdp
from transformers import LlamaForCausalLM

import eckart
from support.tiny import tiny_llama

PAGE = Path(__file__).parents[2] / "docs" / "learn" / "smaller.md"
PROCESSES = 2


def sharded(model: Any) -> Any:
    """Parameters are DTensors: FSDP 2."""
    mesh = device_mesh.init_device_mesh("cpu", (PROCESSES,))
    for block in model.model.layers:
        fsdp.fully_shard(block, mesh=mesh)
    return fsdp.fully_shard(model, mesh=mesh)


def tensor_parallel(model: Any) -> Any:
    """Matrices are DTensors, split by rows and by columns."""
    from torch.distributed.tensor import parallel

    mesh = device_mesh.init_device_mesh("cpu", (PROCESSES,))
    plan = {"*.mlp.up_proj": parallel.ColwiseParallel(), "*.mlp.down_proj": parallel.RowwiseParallel()}
    return parallel.parallelize_module(model, mesh, {f"model.layers.{name}": how for name, how in plan.items()})


def gather(spread: Callable[[Any], Any], lines: str, rank: int, place: Path) -> None:
    """One process: spreads a model, has it refused, and runs the lines."""
    torch.set_num_threads(1)  # the pool of threads stayed behind
    store = distributed.FileStore(str(place / "store"), PROCESSES)
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=PROCESSES)
    model = spread(tiny_llama())
    with pytest.raises(eckart.Refused, match="one process's shard of the numbers: gather it first"):
        eckart.compress(model, "svd", keep=0.5, of="linear-parameters")
    exec(lines, {"model": model})
    distributed.barrier()
    distributed.destroy_process_group()


@pytest.mark.skipif(sys.platform != "linux", reason="processes are forked, so that they need not import everything")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("spread", [sharded, tensor_parallel])
def test_two_processes_gather_a_model_by_the_lines_of_the_page(spread: Callable[[Any], Any], tmp_path: Path) -> None:
    (lines,) = re.findall(
        r"^```text\n(import torch\n.*?get_model_state_dict.*?)^```$", PAGE.read_text("utf-8"), re.S | re.M
    )
    lines = lines.replace('"whole"', repr(str(tmp_path / "whole")))
    fork: Any = multiprocessing.get_context("fork")
    started = [fork.Process(target=gather, args=(spread, lines, rank, tmp_path)) for rank in range(PROCESSES)]
    for each in started:
        each.start()
    for each in started:
        each.join(120)
        each.kill()
    assert [each.exitcode for each in started] == [0] * PROCESSES
    models = tiny_llama(), LlamaForCausalLM.from_pretrained(tmp_path / "whole").eval()
    for model in models:
        eckart.compress(model, "svd", keep=0.5, of="linear-parameters")
    for one, other in zip(*(model.state_dict().items() for model in models), strict=True):
        assert one[0] == other[0]
        assert torch.equal(one[1], other[1])
