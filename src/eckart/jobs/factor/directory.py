"""The job of `eckart fit`: a table in a file in, a fitted estimator and what it says of the table out."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from eckart._version import __version__
from eckart.arrays import entries
from eckart.errors import Refused, check_types
from eckart.estimators import save
from eckart.estimators._completion import column_means
from eckart.estimators.contract import ESTIMATORS
from eckart.files.tables import Table, read_table
from eckart.jobs.factor.outputs import Outputs, completes
from eckart.jobs.named import check_names, parsed
from eckart.jobs.workspace import workspace
from eckart.kernels.contract import KERNELS
from eckart.machine import peak_rss_bytes
from eckart.progress import Progress, silent
from eckart.report import as_json, write_report
from eckart.report.command import changed, command_words
from eckart.report.fitting import Course, FitReport, FitSeconds, TableFacts

REPORT = "fit.json"
ESTIMATOR = "estimator.safetensors"
RANKS = ("n_components", "max_rank", "rank")
"""What estimators call the number of factors."""


OTHERWISE = {
    "clusterer": "gives clusters (of kind clusterer), and here tables of factors are written",
    "density": "gives densities (of kind density), and here tables of factors are written",
    "regressor": "learns targets (of kind regressor), which stand in no table of their own here",
    "classifier": "learns classes (of kind classifier), which stand in no table of their own here",
    "kernel": "is a kernel (of kind kernel), which fits nothing by itself",
    "sums": "reads points and their values (of kind sums), which are more than one table",
    "trials": "reads trials of channels and samples (of kind trials), which are no table",
    "solver": "is a function of arrays (of kind solver)",
}
"""Why a method of another kind than a transformer does not fit here."""


@dataclass(frozen=True)
class Wish:
    """What is to be found in a table.

    Attributes:
        method: NAME or NAME:OPTION=VALUE,... of an estimator of `eckart methods estimators`.
        rank: number of factors; None for the method's own.
        entries: of a list of entries, its columns with the row, the column and the value: "user,item,rating".
        hold_out: share of the observed entries that are kept from the fit, and predicted.
        picture: HEIGHTxWIDTH, where each row of the table is a picture.
        top: predictions of each row that are written.
        seed: of what is drawn.
    """

    method: str
    rank: int | None = None
    entries: str = ""
    hold_out: float = 0.0
    picture: str = ""
    top: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        check_types(self)
        if not 0 <= self.hold_out < 1:
            raise Refused(f"hold_out={self.hold_out} is no share of the entries, from 0 to less than 1")
        if self.seed < 0:
            raise Refused(f"seed={self.seed} is below 0")
        if self.top < 1:
            raise Refused(f"top={self.top}: at least one prediction of each row is written")
        self.made()

    def made(self) -> Any:
        """The estimator, not fitted.

        Raises:
            Refused: there is none of that name, it reads no plain table, or it has no such option.
        """
        name, options = parsed(self.method)
        card: Any = KERNELS[name] if name in KERNELS else ESTIMATORS.find(name)
        if card.kind != "transformer":
            raise Refused(f"{name} {OTHERWISE[card.kind]}: use it from Python")
        there = card.entry().get_params()
        if self.rank is not None:
            called = next((word for word in RANKS if word in there), None)
            if called is None:
                raise Refused(f"{name} finds its rank by itself: leave --rank out; {', '.join(there)} are its options")
            options = {called: self.rank, **options}
        if "random_state" in there:
            options.setdefault("random_state", self.seed)
        if "fit_inverse_transform" in there:
            options.setdefault("fit_inverse_transform", True)
        check_names(name, options, there)
        for option, value in options.items():
            if isinstance(value, str) and type(there[option]) in (int, float):
                raise Refused(f"{name}: {option}={value} is no number")
        return card.entry(**options)


def factor_directory(data: str, out: str | Path, wish: Wish, *, progress: Progress = silent) -> dict[str, Any]:
    """Fits an estimator to a table into a new directory, and returns what its `fit.json` says.

    The directory has `estimator.safetensors` (see `eckart.estimators.load`), the tables that the estimator makes of
    this one, `fit.json` and `report.html`.

    Args:
        data: a file, see `eckart.files.tables.read_table`.
        out: the directory to make; it appears whole or not at all.
        wish: what is to be found.
        progress: told of the phases.

    Raises:
        Refused: anything that cannot be done as asked, before anything is written.
    """
    with workspace(out) as work:
        progress("load", 0, 1)
        table = read_table(data, wish.entries)
        estimator = wish.made()
        learned, kept_back = held_back(table.values, wish)
        progress("load", 1, 1)
        work.lap("load")
        progress("fit", 0, 1)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            fitted(estimator, learned, wish.method)
        progress("fit", 1, 1)
        work.lap("fit")
        partial = work.begin()
        outputs = Outputs(partial, table, estimator, wish.picture, wish.top)
        outputs.write(learned)
        save(estimator, partial / ESTIMATOR)
        work.lap("write")
        report = FitReport(
            eckart=__version__,
            data=data,
            method=wish.method,
            estimator=" ".join(repr(estimator).split()),
            table=facts(table),
            error=outputs.error,
            held_out=scored(estimator, learned, kept_back),
            singular_values=[float(v) for v in getattr(estimator, "singular_values_", ())],
            course=course(estimator),
            predictions=outputs.predictions,
            pictures=outputs.pictures,
            files={ESTIMATOR: "the estimator: eckart.estimators.load reads it", **outputs.files},
            peak_rss_bytes=peak_rss_bytes(),
            seconds=FitSeconds(**work.lap.seconds),
            command=command_words("fit", [data], changed(wish)),
            warnings=[*table.notes, *dict.fromkeys(str(each.message) for each in said)],
        )
        write_report(as_json(report), partial, REPORT)
    return as_json(report)


def fitted(estimator: Any, table: Any, method: str) -> None:
    """Fits it; what scikit-learn or the estimator says of the table or an option is a refusal."""
    if sparse.issparse(table) and not estimator.__sklearn_tags__().input_tags.sparse:
        raise Refused(f"{method} reads no sparse tables: write this one as .npy, with zeros where nothing is stored")
    try:
        estimator.fit(table)
    except Refused:
        raise
    except (ValueError, TypeError) as error:
        raise Refused(f"{method} cannot be fitted to this table: {error}") from error


def facts(table: Table) -> TableFacts:
    """Its shape, and what of it is there."""
    rows, columns = table.values.shape
    held = table.values.nnz if sparse.issparse(table.values) else int(np.isfinite(table.values).sum())
    share = held / max(1, rows * columns)
    return TableFacts(rows=rows, columns=columns, observed=share, sparse=sparse.issparse(table.values))


def course(estimator: Any) -> Course | None:
    """How its iteration went; None where it had none."""
    if not hasattr(estimator, "history_"):
        return None
    return Course(
        iterations=estimator.n_iter_,
        converged=bool(estimator.converged_),
        history=[float(value) for value in estimator.history_],
    )


def held_back(values: Any, wish: Wish) -> tuple[Any, tuple[Any, Any, Any] | None]:
    """The table without a drawn share of its entries, and these: their rows, columns and values.

    Raises:
        Refused: the estimator predicts no entries, or the share is of none.
    """
    if not wish.hold_out:
        return values, None
    if not completes(wish.made()):
        raise Refused(f"hold_out={wish.hold_out}: {wish.method} predicts no entries that are missing")
    listed = sparse.coo_array(values) if sparse.issparse(values) else None
    rows, columns = listed.coords if listed is not None else np.nonzero(~np.isnan(values))
    drawn = np.random.default_rng(wish.seed).random(len(rows)) < wish.hold_out
    if not drawn.any() or drawn.all():
        raise Refused(f"hold_out={wish.hold_out} takes {int(drawn.sum())} of {len(rows)} entries")
    if listed is not None:
        rest = ~drawn
        learned = sparse.csr_array((listed.data[rest], (rows[rest], columns[rest])), listed.shape)
        return learned, (rows[drawn], columns[drawn], listed.data[drawn])
    learned = np.array(values, np.float64)
    truth = learned[rows[drawn], columns[drawn]]
    learned[rows[drawn], columns[drawn]] = np.nan
    return learned, (rows[drawn], columns[drawn], truth)


def scored(estimator: Any, learned: Any, kept_back: tuple[Any, Any, Any] | None) -> Mapping[str, float] | None:
    """Root mean square errors of entries that were held back: of the predictions, and of the means of columns."""
    if kept_back is None:
        return None
    rows, columns, truth = kept_back
    means, _ = column_means(entries(learned))
    wrong = estimator.predict_entries(rows, columns) - truth
    plain = means[columns] - truth
    return {"rmse": float(np.sqrt(np.mean(wrong**2))), "column_means": float(np.sqrt(np.mean(plain**2)))}
