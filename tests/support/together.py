"""Two processes that train together, each on half of a batch, and one that has the whole of it.

`python -m tests.support.together KIND DIRECTORY` is both of them: KIND is `optim` or `parametrizations`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from eckart.optim import OPTIMIZERS
from eckart.optim.contract import MatrixOptimizer
from support.reparametrizing import EVERY, made, networks, pictures

SMALL = {"rank": 2, "every": 3, "window": 4, "damping": 0.1, "total": 40, "lr": 0.01}
CLASSES = {name: card.entry for name, card in OPTIMIZERS.items() if isinstance(card.entry, type)}
GROWTH = "dst-continual, gradient"
Found = dict[str, dict[str, Tensor]]


def small(name: str, params: object, **options: object) -> MatrixOptimizer:
    """An optimizer with small options where it has such."""
    known = CLASSES[name]([nn.Parameter(torch.zeros(1))]).defaults
    given = {**SMALL, "rank": 1} if name == "apollo-mini" else SMALL
    found: MatrixOptimizer = CLASSES[name](params, **{k: v for k, v in given.items() if k in known} | options)
    return found


def optim(rank: int | None) -> Found:
    """The parameters after some steps of every optimizer; of the whole batch where rank is None."""
    found = {}
    x, y = (torch.randn(8, 8, generator=torch.Generator().manual_seed(i)).double() for i in (4, 5))
    for name in CLASSES:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(8, 12), nn.Tanh(), nn.Linear(12, 8)).double()
        run = net if rank is None else DistributedDataParallel(net)
        optimizer = small(name, net.parameters())
        for _ in range(7):
            part = slice(rank, None, 1 if rank is None else 2)
            (run(x[part]) - y[part]).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
        found[name] = {key: p.detach() for key, p in net.named_parameters()}
    return found


def parametrizations(rank: int | None) -> Found:
    """The same of every parametrization: all tensors of the model, and of its schedule."""
    found = {}
    x, y = pictures(count=16)
    for name in [*EVERY, GROWTH]:
        net = networks(name)[0]()
        result = made(net, name.partition(",")[0], **({"growth": "gradient"} if name == GROWTH else {}))
        # Buffers are not to be kept together by being sent around.
        run = net if rank is None else DistributedDataParallel(net, broadcast_buffers=False)
        optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3, weight_decay=0.0)
        hooks = result.schedule(optimizer, 14)
        for _ in range(14):
            part = slice(rank, None, 1 if rank is None else 2)
            hooks.before_step()
            F.cross_entropy(run(x[part]), y[part]).backward()
            hooks.after_backward()
            optimizer.step()
            hooks.after_step()
            optimizer.zero_grad()
        found[name] = {**net.state_dict(), **hooks.state_dict()}
    return found


KINDS: dict[str, Callable[[int | None], Found]] = {"optim": optim, "parametrizations": parametrizations}


def both(kind: str, directory: Path) -> tuple[Found, Found]:
    """What each of two processes has in the end."""
    root = Path(__file__).parents[2]
    path = os.pathsep.join([str(root), str(root / "tests"), *sys.path])
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.together", kind, str(directory)],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        cwd=root,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    first, second = (torch.load(directory / f"{rank}.pt", weights_only=True) for rank in range(2))
    return first, second


def main() -> None:
    kind, directory = sys.argv[1], Path(sys.argv[2])
    torch.set_num_threads(1)
    child = os.fork()
    rank = int(child == 0)
    dist.init_process_group("gloo", init_method=f"file://{directory / 'meeting'}", rank=rank, world_size=2)
    torch.save(KINDS[kind](rank), directory / f"{rank}.pt")
    dist.barrier()
    if rank == 0:
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


if __name__ == "__main__":
    main()
