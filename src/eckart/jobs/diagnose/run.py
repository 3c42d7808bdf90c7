"""The job: a model in, what its matrices say out."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from eckart.diagnostics.contract import MATRIX_SUBJECTS, columns_of, common_window
from eckart.errors import Refused, check_type
from eckart.jobs.calibration import as_batch, check_tokens
from eckart.jobs.coverage import coverage, warnings_of
from eckart.jobs.diagnose.cost import check_measure, cost_curves, cost_plan, measured_costs, split
from eckart.jobs.diagnose.hidden_states import hidden_state_rows
from eckart.jobs.diagnose.matrices import layer_type, look_at, pairs
from eckart.jobs.diagnose.rows import changed, matrix_row
from eckart.models.dense import densified
from eckart.models.filters import filters
from eckart.models.presence import present
from eckart.models.sites import model_cost
from eckart.models.tasks import check_writes, task_of
from eckart.progress import Progress, shown
from eckart.report.numbers import shown_number
from eckart.report.shown import Glance, Shown, noted
from eckart.report.types import Coverage
from eckart.statistics.batch_checks import check_batches
from eckart.statistics.batches import Batch
from eckart.statistics.cache import finite_weights


@dataclass(repr=False)
class Diagnosis(Shown):
    """What `eckart.diagnose` found in a model.

    Attributes:
        rows: one for each matrix: its name, columns of numbers, and notes on those that are missing.
        window: side of the windows that fit all matrices; None where no matrix is large enough.
        hidden_states: one for each layer, where there was a text.
        measured: one for each size that was to be measured: its predicted and its measured rise of the loss.
        size: parameters, linear_parameters and bytes of the whole model.
        warnings: what did not go as it should.
        coverage: what share of the model's numbers was looked at, and what was left and why.
    """

    rows: list[dict[str, Any]]
    window: int | None
    hidden_states: list[dict[str, Any]] = field(default_factory=list)
    measured: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    size: dict[str, int] = field(default_factory=dict)
    coverage: Coverage | None = None

    @property
    def summary(self) -> dict[str, float]:
        """The mean of each number over the matrices that have it, by column."""
        names = [name for name, column in columns_of(*MATRIX_SUBJECTS).items() if column.mean]
        values = {name: [row[name] for row in self.rows if row.get(name) is not None] for name in names}
        return {name: sum(found) / len(found) for name, found in values.items() if found}

    def glance(self) -> Glance:
        """Means over the matrices, and the extremes of each number."""
        columns, rows = columns_of(*MATRIX_SUBJECTS), []
        for name, mean in self.summary.items():
            found = [row[name] for row in self.rows if row.get(name) is not None]
            numbers = (mean, min(found), max(found))
            rows.append((columns[name].heading(name), *(shown_number(float(number)) for number in numbers)))
        title = f"Diagnosis of {len(self.rows)} matrices"
        return Glance(title, rows, ("mean", "least", "most"), noted(self.warnings, self.coverage))

    def __repr__(self) -> str:
        return f"<Diagnosis of {len(self.rows)} matrices: rows, summary, to_frame()>"

    def to_frame(self) -> Any:
        """The rows as a pandas DataFrame, columns of lists left out.

        Raises:
            Refused: pandas is not installed.
        """
        try:
            pandas = importlib.import_module("pandas")
        except ImportError as error:
            raise Refused("to_frame needs pandas: pip install pandas; `rows` is the same without it") from error
        return pandas.DataFrame([{k: v for k, v in r.items() if not isinstance(v, list | dict)} for r in self.rows])


@torch.no_grad()
def diagnose(
    model: nn.Module,
    *,
    against: nn.Module | None = None,
    tokens: Tensor | Sequence[Batch] | None = None,
    measure: Sequence[float] = (),
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    seed: int = 0,
    cache: Path | None = None,
    memory: int | None = None,
    progress: Progress = shown,
) -> Diagnosis:
    """Looks at every matrix of a model: its spectrum, noise and tail, what changed in it, and what a cut would cost.

    A matrix that is not finite, zero or too small for a fit is a row with notes in the place of numbers.

    Args:
        model: any module, dense or compressed by eckart. Nothing is changed.
        against: the model it came from; adds how far each matrix moved, and its intruder dimensions.
        tokens: (sequences, length), int64, for a model of text, or batches that any model can be called with: adds
            hidden states, and to each linear map the curve of what a lower rank would cost, in the two-sided metric.
        measure: shares of the linear parameters. The model is compressed to each by the curves, and its divergence
            from the dense one measured on every eighth sequence, which the curves then have not seen.
        include: patterns of the names of matrices to look at, or regular expressions behind `re:`; all where there
            are none, embeddings and head among them.
        exclude: patterns of those to leave.
        seed: of everything random.
        cache: directory for statistics; None keeps them in memory.
        memory: bytes the statistics may take in one pass.
        progress: told of the phases; by default it draws a line in a terminal or a notebook, and nothing elsewhere.

    Raises:
        Refused: no matrix, models that do not match, tokens for a model with weights that are not finite, or a size
            to measure that cannot be had.

    >>> import torch, eckart
    >>> generator = torch.manual_seed(0)
    >>> row = eckart.diagnose(torch.nn.Sequential(torch.nn.Linear(64, 256))).rows[0]
    >>> row["N"], row["M"], row["mp_spikes"]
    (256, 64, 0)
    """
    present(model)
    if against is not None:
        present(against, "the model it is compared with")
    check_type("seed", seed, int)
    if isinstance(tokens, str):
        raise Refused(f"tokens={tokens[:40]!r} is a text: give its token ids, (sequences, length), or batches")
    if isinstance(tokens, Tensor):
        check_tokens("tokens", tokens)
    check_measure(measure, len(tokens) if isinstance(tokens, Tensor) else 0)
    if measure:
        check_writes(task_of(model), "measure=")
    model = densified(model)
    sites = look_at(model, include, exclude)
    account = coverage(model, sites)
    matched = pairs(sites, densified(against)) if against is not None else []
    if tokens is not None:
        finite_weights({"": model})
        rows = [row[None] for row in tokens] if isinstance(tokens, Tensor) else list(map(as_batch, tokens, count()))
        check_batches(model, rows)
    window = common_window([filters(site).shape[:2] for site in sites])
    found = Diagnosis([], window, size=model_size(model), warnings=warnings_of(account), coverage=account)
    for done, site in enumerate(sites, 1):
        named: dict[str, Any] = {"name": site.name, "layer_type": layer_type(site)}
        found.rows.append(named | matrix_row(site.weight.cpu(), filters(site).cpu(), window, seed=seed))
        progress("spectra", done, len(sites))
    columns = columns_of(*MATRIX_SUBJECTS)
    broken = [row["name"] for row in found.rows if not columns.keys() & row.keys()]
    if broken:
        found.warnings.append(f"{len(broken)} matrices hold NaN or Inf, {broken[0]} among them")
    for done, (site, base) in enumerate(matched, 1):
        row = found.rows[done - 1]
        numbers, notes = changed(base.weight.cpu(), site.weight.cpu())
        row |= numbers
        row["notes"] += notes
        progress("compare", done, len(matched))
    if tokens is not None:
        found.hidden_states = hidden_state_rows(model, rows, progress)
        if not found.hidden_states:
            found.warnings.append(f"{type(model).__name__} returns no hidden states: nothing is said of them")
        batches, back = split(tokens, measure)
        hold = bool(measure)
        plan = cost_plan(
            model, batches, include, exclude, seed=seed, cache=cache, memory=memory, hold=hold, progress=progress
        )
        if plan is None and measure:
            raise Refused("there is nothing to measure: none of the matrices is a linear map that can be compressed")
        if plan is not None:
            curves = cost_curves(plan)
            for row in found.rows:
                if row["name"] in curves:
                    row["curve"] = curves[row["name"]]
            found.measured = measured_costs(plan, model, back, measure, progress)
    return found


def model_size(model: nn.Module) -> dict[str, int]:
    """Parameters and bytes of a whole model, and the parameters of its linear maps; shared tensors count once."""
    cost = model_cost(model)
    tensors = {t.data_ptr(): t for t in model.state_dict().values()}
    stored = sum(t.numel() * t.element_size() for t in tensors.values())
    return {"parameters": cost["parameters"], "linear_parameters": cost["linear_parameters"], "bytes": stored}
