"""The groups of a plan by what of a model is there at a time: one block, or what is in none."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

from torch import nn

from eckart.errors import Refused
from eckart.jobs.compress.blockwise.walk import Walk
from eckart.jobs.compress.plan import Plan
from eckart.models.block_files import BlockFiles
from eckart.models.groups import Group
from eckart.models.sites import Site
from eckart.statistics import Statistics
from eckart.statistics.cache import finite_weights, read_statistics, write_statistics


def sites_by_unit(sites: Sequence[Site], files: BlockFiles) -> list[list[Site]]:
    """The sites of each block, then those in none."""
    found: list[list[Site]] = [[] for _ in range(len(files) + 1)]
    for site in sites:
        found[unit_of(site.name, files)].append(site)
    return found


def unit_of(name: str, files: BlockFiles) -> int:
    """The block that a matrix is in, or the number of blocks."""
    inside = name.startswith(f"{files.prefix}.")
    return int(name[len(files.prefix) + 1 :].split(".")[0]) if inside else len(files)


class Units:
    """Has the groups of a plan at hand, unit by unit, with their weights and statistics.

    Args:
        model: its blocks on the meta device.
        files: where they are.
        plan: of the model; gets the statistics of what is at hand.
        walk: that measures; None for a method that reads no data.
        directory: where statistics are kept for the next time that a unit is at hand; None for nowhere.
        told: called with units that were measured, and all.

    Raises:
        Refused: a group is of several blocks.
    """

    def __init__(
        self,
        model: nn.Module,
        files: BlockFiles,
        plan: Plan,
        walk: Walk | None,
        directory: Path | None,
        told: Callable[[int, int], None],
    ) -> None:
        self._model, self._files, self._plan, self._walk = model, files, plan, walk
        self._directory, self._told = directory, told
        self.order = list(range(len(files) + 1)) if walk is None else walk.order
        self.groups: list[list[Group]] = [[] for _ in self.order]
        for group in plan.groups:
            units = {unit_of(site.name, files) for site in group.sites}
            if len(units) > 1:
                raise Refused(
                    f"{plan.method.name} fits matrices of several blocks together, such as "
                    f"{' and '.join(site.name for site in group.sites[:2])}, and blocks are read one by one: take "
                    "another method, or give it --memory for the whole model"
                )
            self.groups[units.pop()].append(group)

    def __call__(self, groups: Sequence[Group]) -> Iterable[Sequence[Group]]:
        """Some groups, unit by unit: `Plan.portions`."""
        asked = {group.name for group in groups}
        for unit in self.order:
            portion = [group for group in self.groups[unit] if group.name in asked]
            if portion:
                with self.at_hand(unit):
                    yield portion

    @contextmanager
    def at_hand(self, unit: int) -> Iterator[None]:
        """A unit with its weights, and what is known of them, inside."""
        measured = bool(self.groups[unit]) and self._walk is not None
        known = self._known(unit) if measured else {}
        if known is None and self._walk is not None:
            self._walk.prepare(unit)
        there = self._files.loaded(self._model, unit) if unit < len(self._files) else nullcontext(self._model)
        with there as module:
            finite_weights({f"{self._files.prefix}.{unit}" if unit < len(self._files) else "": module})
            self._plan.statistics = self._measured(unit) if known is None else known
            yield
        self._plan.statistics = {}
        self._plan.release()

    def finished(self, unit: int) -> None:
        """Removes the statistics that were kept of a unit."""
        if self._directory is not None:
            self._file(self._directory, unit).unlink(missing_ok=True)

    def kept(self, unit: int) -> bool:
        """Whether the statistics of a unit need not be measured."""
        if self._walk is None or not self.groups[unit]:
            return True
        return self._directory is not None and self._file(self._directory, unit).is_file()

    def _known(self, unit: int) -> Mapping[str, Statistics] | None:
        if self._directory is None:
            return None
        modules = {site.name: site.module for group in self.groups[unit] for site in group.sites}
        return read_statistics(self._file(self._directory, unit), modules)

    def _measured(self, unit: int) -> Mapping[str, Statistics]:
        assert self._walk is not None
        found: Mapping[str, Statistics] = self._walk.statistics(unit)
        if self._directory is not None:
            write_statistics(self._file(self._directory, unit), found)
            found = self._known(unit) or found  # what a later run will read
        self._walk.done(unit)
        self._told(1 + self.order.index(unit), len(self.order))
        return found

    def _file(self, directory: Path, unit: int) -> Path:
        return directory / f"statistics-{unit:05d}.safetensors"
