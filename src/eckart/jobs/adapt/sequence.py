"""Several tasks learned one after the other, in the matrices themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import nn

from eckart.errors import Refused, check_types
from eckart.jobs.adapt.adapter import Adapter
from eckart.jobs.adapt.bases import matrix_shape
from eckart.jobs.adapt.run import adapt, base_of, find_bases
from eckart.jobs.calibration import Calibration
from eckart.texts.tokenizer import Tokenizer

METHOD = "osf-next"


@dataclass
class TaskSequence:
    """Tasks learned one after the other: before each, what was learned is merged and the matrices are split again.

    A share of the singular triplets of each matrix, the largest, is protected from what is learned next; the share
    grows from task to task, so that what earlier tasks put there stays.

    Attributes:
        model: any nn.Module; its matrices change from task to task.
        tasks: how many there will be.
        protected: the share of triplets that the first and that the last task leaves as it is; tasks between them are
            at even distances.
        include, exclude: patterns of the names of matrices, as for `eckart.adapt`.
        seed: as for `eckart.adapt`.
        adapter: that of the task which is being learned; None before the first and after the last.
        begun: tasks so far.
        errors: the largest error of each merge, see `eckart.Adapter.merge`.

    >>> import torch, eckart
    >>> net = torch.nn.Sequential(torch.nn.Linear(32, 32), torch.nn.ReLU(), torch.nn.Linear(32, 8))
    >>> sequence = eckart.TaskSequence(net, tasks=2)
    >>> for task in range(2):
    ...     adapter = sequence.next(calibration=[torch.randn(16, 32)])
    ...     optimizer = torch.optim.AdamW(adapter.trainable_parameters(), lr=1e-3)
    ...     adapter.plan(steps=1)
    ...     net(torch.randn(16, 32)).square().mean().backward()
    ...     optimizer.step()
    ...     adapter.step()
    >>> sequence.end()
    """

    model: nn.Module
    tasks: int
    protected: tuple[float, float] = (0.2, 0.8)
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    seed: int = 0
    adapter: Adapter | None = field(default=None, init=False)
    begun: int = field(default=0, init=False)
    errors: list[float] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        check_types(self)
        if self.tasks < 1:
            raise Refused(f"tasks={self.tasks} must be at least 1")
        first, last = self.protected if len(self.protected) == 2 else (-1.0, -1.0)
        if not 0 <= first <= last < 1:
            raise Refused(f"protected={self.protected} must be two shares, 0 <= first <= last < 1")

    def share(self, task: int) -> float:
        """The share of triplets that task 0, 1, ... leaves as it is."""
        first, last = self.protected
        return first + (last - first) * task / max(1, self.tasks - 1)

    def next(
        self, calibration: Calibration | None = None, tokenizer: Tokenizer | None = None, *, length: int = 256
    ) -> Adapter:
        """Merges what was learned and begins the next task.

        Args:
            calibration: data of the task before, of the next one before the first; see `eckart.adapt`.
            tokenizer: turns text into ids; needed for text.
            length: tokens in a sequence of text.

        Returns:
            The adapter to train, as one of `eckart.adapt`.

        Raises:
            Refused: there were as many tasks as were announced; and as `eckart.adapt`.
        """
        if self.begun == self.tasks:
            raise Refused(f"{self.tasks} tasks were announced, and all were begun: announce more with tasks=")
        self.end()
        bases = find_bases(self.model, self.include, self.exclude)
        sizes = [min(matrix_shape(base_of(base))) for base in bases.values()]
        rank = max(1, round((1 - self.share(self.begun)) * sum(sizes) / len(sizes)))
        self.adapter = adapt(
            self.model,
            METHOD,
            rank=min(rank, sum(sizes) // len(sizes)),
            include=self.include,
            exclude=self.exclude,
            calibration=calibration,
            tokenizer=tokenizer,
            length=length,
            seed=self.seed,
        )
        self.begun += 1
        return self.adapter

    def end(self) -> None:
        """Merges what the last task learned; the model has no adapter then."""
        if self.adapter is None:
            return
        self.errors.append(max(self.adapter.merge().values()))
        self.adapter.remove()
        self.adapter = None
