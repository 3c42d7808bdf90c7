"""The statistics of a model of which one block is there at a time: activations between blocks wait in files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from eckart.errors import Refused
from eckart.jobs.compress.blockwise.activations import Activations
from eckart.jobs.compress.blockwise.skeleton import Skeleton, called
from eckart.models.block_files import BlockFiles
from eckart.models.sites import Site
from eckart.statistics import Need, Statistics
from eckart.statistics.accumulators import GRADIENT_NEEDS
from eckart.statistics.batches import Batch, device_of
from eckart.statistics.cache import chunks, read_statistics, write_statistics
from eckart.statistics.freezing import frozen
from eckart.statistics.labels import sampled_gradient
from eckart.statistics.padding import longest, without_padding
from eckart.statistics.precision import mixed
from eckart.statistics.recorder import Mingled, Recorder
from eckart.statistics.ties import also_looked_up, joined, with_ties

LABELS = "labels"


class Walk:
    """A model walked through from its first block to its last, and back where gradients are measured.

    What is measured is what `collect` measures: the same hooks see the same tensors in the same order, but for one
    block after the other. What is in no block is unit `len(files)`, and is measured last.

    Args:
        model: in eval mode, its blocks on the meta device.
        files: where they are.
        units: the sites of each block, and those outside of them.
        needs: what to collect.
        batches: as for `collect`.
        seed: of the sampled labels.
        mixed_precision: as for `collect`, of what runs while something is measured and of the blocks in front of it.
        directory: for activations, and what an interrupted walk goes on from.
        limit: bytes that the statistics of one pass over a block may take.

    Attributes:
        order: of the units, in which their statistics can be had with the least work.

    Raises:
        Refused: the model cannot be walked through, and why.
    """

    def __init__(
        self,
        model: nn.Module,
        files: BlockFiles,
        units: Sequence[Sequence[Site]],
        needs: Sequence[Need],
        batches: Sequence[Batch],
        *,
        seed: int,
        mixed_precision: bool = False,
        directory: Path,
        limit: int,
    ) -> None:
        self._model, self._files, self._needs, self._seed, self._limit = model, files, tuple(needs), seed, limit
        self._mixed = mixed_precision
        self._units = [with_ties(model, {site.name: site.module for site in sites}) for sites in units]
        self._parts = [part for batch in batches for part in without_padding(model, batch)]
        tables = any(site.is_embedding for site in units[-1])
        self.backward = bool(GRADIENT_NEEDS & set(needs)) or tables
        count = len(files)
        self.order = [*reversed(range(count)), count] if self.backward else list(range(count + 1))
        self._skeleton = Skeleton(model, files.prefix, self._parts[0], lambda: files.loaded(model, 0))
        self._calls = [self._skeleton.calls(part) for part in self._parts]
        self._front, self._tail = self._sides() if self._units[-1] else ({}, {})
        device = device_of(model)
        self._hidden = Activations(directory, "hidden", len(self._parts), device)
        self._gradients = Activations(directory, "gradient", len(self._parts), device)
        self._ends = directory / "ends.safetensors"

    def prepare(self, unit: int) -> None:
        """Has what the statistics of a unit are made from, for which other blocks may have to be read."""
        with _samples_apart():
            if not self.backward:
                self._reach(unit)
            elif unit < len(self._files):
                self._reach_back(unit + 1)
                self._reach(unit)
            else:
                if self._tail and read_statistics(self._ends, self._tail) is None:
                    self._turn()
                if self._front:
                    self._reach_back(0)

    def statistics(self, unit: int) -> dict[str, Statistics]:
        """The statistics of the matrices of a unit, whose weights are there, and which was prepared."""
        with _samples_apart():
            if unit == len(self._files):
                return joined(self._outside())
            through = self._through_back if self.backward else self._through
            return joined(through(unit, self._units[unit]))

    def done(self, unit: int) -> None:
        """Says that the statistics of a unit are not asked for again: removes what only they were made from."""
        if self.backward and unit < len(self._files):
            self._gradients.drop(unit + 1)
        if unit < len(self._files) or not self.backward:
            self._hidden.drop(unit)

    def _reach(self, boundary: int) -> None:
        """Has the hidden states in front of a block, or behind the last one."""
        if self._hidden.whole(boundary):
            return
        if boundary == 0:
            with torch.no_grad():
                for i, part in enumerate(self._parts):
                    self._hidden.put(0, i, self._skeleton.enter(part))
            return
        self._reach(boundary - 1)
        with self._files.loaded(self._model, boundary - 1):
            self._through(boundary - 1, {})
        if not self.backward:
            self._hidden.drop(boundary - 1)

    def _reach_back(self, boundary: int) -> None:
        """Has the gradients by the hidden states of a boundary."""
        if self._gradients.whole(boundary):
            return
        if boundary == len(self._files):
            self._turn()
            return
        self._reach_back(boundary + 1)
        self._reach(boundary)
        with self._files.loaded(self._model, boundary):
            self._through_back(boundary, {})

    @torch.no_grad()
    def _through(self, block: int, modules: Mapping[str, nn.Module]) -> dict[str, Statistics]:
        """Runs a block, measures modules in it, and has what it returns wait for the next one."""
        found: dict[str, Statistics] = {}
        last = block + 1 == len(self._files) and not (self._units[-1] or self.backward)
        kept = last or self._hidden.whole(block + 1)
        module = self._block(block)
        for chunk in chunks(modules, self._needs, self._limit):
            with self._recording({name: modules[name] for name in chunk}) as recorder:
                for i, part in enumerate(self._parts):
                    recorder.start(part, longest(self._model, part))
                    output = self._skeleton.run(module, self._hidden.get(block, i), self._calls[i][block])
                    recorder.finish()
                    if not kept:
                        self._hidden.put(block + 1, i, output)
            kept = True
            found |= recorder.results()
        return found

    def _through_back(self, block: int, modules: Mapping[str, nn.Module]) -> dict[str, Statistics]:
        """Runs a block, and back through it, measures modules in it, and has its gradient wait for the one before."""
        found: dict[str, Statistics] = {}
        kept = (block == 0 and not self._front) or self._gradients.whole(block)
        module = self._block(block)
        for chunk in chunks(modules, self._needs, self._limit):
            with self._recording({name: modules[name] for name in chunk}) as recorder:
                for i, part in enumerate(self._parts):
                    note = self._gradients.note(block + 1, i)
                    recorder.tally.labels += int(note[LABELS])
                    recorder.start(part, longest(self._model, part))
                    given = self._hidden.get(block, i).requires_grad_()
                    with torch.enable_grad():
                        output = self._skeleton.run(module, given.clone(), self._calls[i][block])
                    recorder.recording_inputs = False
                    torch.autograd.backward(output, self._gradients.get(block + 1, i))
                    recorder.finish()
                    if not kept:
                        assert given.grad is not None
                        self._gradients.put(block, i, given.grad, note)
            kept = True
            found |= recorder.results()
        return found

    def _turn(self) -> None:
        """From the last hidden states to the loss and back; measures what stands behind the last block."""
        count = len(self._files)
        self._reach(count)
        generator = torch.Generator().manual_seed(self._seed)
        with self._recording(self._tail) as recorder:
            for i, part in enumerate(self._parts):
                recorder.start(part, longest(self._model, part))
                given = self._hidden.get(count, i).requires_grad_()
                with torch.enable_grad():
                    output = self._skeleton.leave(part, given.clone())
                    target, gradient, labels = sampled_gradient(output, generator)
                recorder.tally.labels += labels
                recorder.recording_inputs = False
                torch.autograd.backward(target, gradient)
                recorder.finish()
                assert given.grad is not None
                self._gradients.put(count, i, given.grad, {LABELS: labels})
        if self._tail:
            write_statistics(self._ends, recorder.results())
        self._hidden.drop(count)

    @torch.no_grad()
    def _outside(self) -> dict[str, Statistics]:
        """The statistics of what is in no block."""
        count, modules = len(self._files), self._units[-1]
        if not self.backward:
            with self._recording(modules) as recorder:
                for i, part in enumerate(self._parts):
                    recorder.start(part, longest(self._model, part))
                    self._skeleton.leave(part, self._hidden.get(count, i))
                    recorder.finish()
            return recorder.results()
        found: dict[str, Statistics] = {}
        if self._front:
            with self._recording(self._front) as recorder:
                for i, part in enumerate(self._parts):
                    recorder.tally.labels += int(self._gradients.note(0, i)[LABELS])
                    recorder.start(part, longest(self._model, part))
                    with torch.enable_grad():
                        hidden = self._skeleton.enter(part)
                    recorder.recording_inputs = False
                    torch.autograd.backward(hidden, self._gradients.get(0, i))
                    recorder.finish()
            found |= recorder.results()
        if self._tail:
            found |= read_statistics(self._ends, self._tail) or {}
        return {name: found[name] for name in modules}

    def _bypassed(self, front: Mapping[str, nn.Module], hidden: Tensor) -> bool:
        """Whether what runs in front of the blocks takes other ways than through them."""

        def watched(*values: Any) -> Tensor:
            output: Tensor = values[-1]
            return output.detach().requires_grad_()

        part = self._parts[0]
        with ExitStack() as stack, torch.enable_grad():
            stack.enter_context(frozen(self._model))
            for module in front.values():
                stack.callback(module.register_forward_hook(watched).remove)
            others = self._skeleton.noted(part, hidden.detach())
            return any(tensor.requires_grad for tensor in others)

    def _block(self, block: int) -> nn.Module:
        return self._model.get_submodule(f"{self._files.prefix}.{block}")

    @contextmanager
    def _recording(self, modules: Mapping[str, nn.Module]) -> Iterator[Recorder]:
        recorder = Recorder(modules, frozenset(self._needs), also_looked_up(self._units[-1]))
        with ExitStack() as stack:
            stack.enter_context(frozen(self._model))
            stack.enter_context(mixed(self._model, self._mixed))
            for name, module in modules.items():
                stack.callback(module.register_forward_hook(recorder.hook(name)).remove)
            yield recorder

    def _sides(self) -> tuple[dict[str, nn.Module], dict[str, nn.Module]]:
        """What is in no block, as it runs before the first one or behind the last one."""
        part, modules = self._parts[0], self._units[-1]
        with torch.no_grad():
            before = called(modules, lambda: self._skeleton.enter(part))
            hidden = self._skeleton.enter(part)
            both = called(modules, lambda: self._skeleton.leave(part, hidden))
        for name, count in before.items():
            if both[name] > count:
                raise Refused(f"{name} runs both in front of the blocks and behind them: leave it out")
        front = {name: module for name, module in modules.items() if name in before}
        if self.backward and front and self._bypassed(front, hidden):
            raise Refused(
                f"what {next(iter(front))} computes reaches the output of {type(self._model).__name__} past the hidden "
                "states between blocks too, so that its gradients cannot be measured block by block: leave it out"
            )
        return front, {name: module for name, module in modules.items() if name not in before}


@contextmanager
def _samples_apart() -> Iterator[None]:
    """Refuses a model of which the samples of a batch would have to be run one by one."""
    try:
        yield
    except Mingled as error:
        raise Refused(
            "the model puts the rows of several samples together, so that the gradients of each cannot be told apart "
            "block by block: give one sample a batch"
        ) from error
