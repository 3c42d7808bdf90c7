"""Tasks one after the other, each with a sparse choice of entries of its own; what a task learned stays as it is."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from eckart.errors import Refused
from eckart.ops.packing import pack
from eckart.parametrizations._sparse import Slopes, density, drawn, elsewhere
from eckart.parametrizations.contract import Layer, Schedule, Step, Structures, check_share, parametrization
from eckart.structures.by_task import ByTask

GROWTHS = ("random", "gradient")


class Task(Schedule):
    """One task: those of its entries that no earlier task uses train, and move.

    `state` holds which entries train. A schedule is one task: `Reparametrization.schedule` begins the next.
    """

    def __init__(
        self,
        structures: Structures,
        steps: int,
        generator: torch.Generator,
        *,
        growth: str = "random",
        drop: float = 0.3,
        every: int = 100,
        until: float = 0.75,
    ) -> None:
        super().__init__()
        check_share("drop", drop)
        check_share("until", until)
        if growth not in GROWTHS:
            raise Refused(f"growth={growth!r} is none of {', '.join(GROWTHS)}")
        if every < 1:
            raise Refused(f"every={every} must be at least 1")
        self.growth, self.drop, self.every, self.last = growth, drop, every, until * steps
        self.generator = generator
        self.matrices = {name: each for name, each in structures.items() if isinstance(each, ByTask)}
        self.state = {name: torch.zeros_like(each.weight, dtype=torch.bool) for name, each in self.matrices.items()}
        self._before: dict[str, Tensor] = {}
        self._watched = Slopes(self.matrices)

    @torch.no_grad()
    def before_step(self, step: Step) -> None:
        for name, each in self.matrices.items():
            if step.done == 0:
                self._begin(name, each, step)
            each.task.copy_(each.begun - 1)
            self._before[name] = each.weight.detach().clone()
        if self.growth == "gradient" and self._due(step):
            self._watched.watch()

    def _begin(self, name: str, each: ByTask, step: Step) -> None:
        if (task := int(each.begun)) == len(each.masks):
            raise Refused(f"all {task} tasks that were announced have been learned: reparametrize with more tasks=")
        each.begun.fill_(task + 1)
        self.state[name] = each.mask(task) & ~each.before(task)
        step.forget(each.weight, torch.ones_like(each.weight, dtype=torch.bool))

    def _due(self, step: Step) -> bool:
        return (step.done + 1) % self.every == 0 and step.done + 1 < self.last

    @torch.no_grad()
    def after_backward(self, step: Step) -> None:
        for name, each in self.matrices.items():
            if each.weight.grad is not None:
                each.weight.grad.masked_fill_(~self.state[name], 0)

    @torch.no_grad()
    def after_step(self, step: Step) -> None:
        slopes = self._watched.taken() if self.growth == "gradient" and self._due(step) else {}
        for name, each in self.matrices.items():
            own = self.state[name]
            each.weight.copy_(torch.where(own, each.weight, self._before[name]))
            step.forget(each.weight, ~own)
            if self._due(step):
                self._move(name, each, step, slopes.get(name))

    def _move(self, name: str, each: ByTask, step: Step, slope: Tensor | None) -> None:
        own, acting = self.state[name].reshape(-1), each.mask(int(each.task)).reshape(-1)
        share = self.drop / 2 * (1 + math.cos(math.pi * (step.done + 1) / self.last))
        count = min(int(share * int(own.sum())), int((~acting).sum()))
        if count < 1 or (self.growth == "gradient" and slope is None):  # or no input reached it
            return
        size = torch.where(own, each.weight.abs().view(-1), torch.inf)
        stays = acting.clone()
        stays[size.topk(count, largest=False).indices] = False
        taken = stays.nonzero()[:, 0]
        if slope is not None:
            gain = slope.abs().flatten()
            gain[taken] = -1
            grown = gain.topk(count).indices
        else:
            grown = elsewhere(own.numel(), taken, count, self.generator)
        stays[grown] = True
        task = int(each.task)
        each.masks[task] = pack(stays.view(each.shape).to(torch.uint8), 1)
        self.state[name] = each.mask(task) & ~each.before(task)
        begun = torch.zeros_like(own)
        begun[grown] = True
        begun &= self.state[name].reshape(-1)  # an entry of another task comes as it is
        each.weight.view(-1).masked_fill_(begun, 0)
        step.forget(each.weight, begun.view(each.shape))


@parametrization(
    "dst-continual",
    paper="Yildirim et al. 2023, arXiv 2308.14831",
    expression="ByTask*",
    schedule=Task,
)
def dst_continual(layer: Layer, *, tasks: int = 5, keep: float = 0.2, distribution: str = "erk") -> ByTask:
    """Of each matrix every task uses a share `keep`, chosen by dynamic sparse training; earlier tasks are not changed.

    `made.schedule(optimizer, steps)` is one task: at its first step entries are drawn, of `keep` of all matrices,
    dealt out by `distribution`. Those that no earlier task uses train; those that one does act as they are. Every
    `every` steps until `until` of the task, a share that falls from `drop` along a cosine, of the least |w| among those
    that train, goes elsewhere: to drawn places (`growth="random"`) or to those of largest gradient, used ones among
    them. Free entries begin at zero there. Another task acts after `structure.task.fill_(t)`; which one an input
    belongs to has to be known. Biases, norms and heads are shared by all tasks and not protected: freeze them, or give
    each task its own.
    """
    if tasks < 1:
        raise Refused(f"tasks={tasks} must be at least 1")
    share = density(layer, keep, distribution)
    out, columns = layer.shape
    masks = torch.zeros(tasks, out * columns, dtype=torch.uint8)
    for mask in masks:
        mask[drawn(max(1, round(share * mask.numel())), mask.numel(), layer.generator)] = 1
    packed = pack(masks.view(tasks, out, columns), 1).to(layer.weight.device)
    zero = torch.zeros(1, dtype=torch.int64, device=layer.weight.device)
    return ByTask(layer.weight.clone(), packed, zero, zero.clone())
