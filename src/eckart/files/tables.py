"""Tables of numbers in files: comma-separated, Parquet, NumPy, SciPy and Matrix Market; and lists of entries."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import io, sparse

from eckart.errors import Refused
from eckart.files.arrays import read_array
from eckart.files.regular import regular

SUFFIXES = (".csv", ".tsv", ".parquet", ".npy", ".npz", ".mtx", ".safetensors")
FRAMES = (".csv", ".tsv", ".parquet")


@dataclass(frozen=True)
class Table:
    """A matrix, and what its rows and columns are called.

    Attributes:
        values: (rows, columns), dense with NaN for what is missing, or sparse where stored means observed.
        rows, columns: names; empty where the file has none.
        notes: what a reader should know of how it was read.
    """

    values: Any
    rows: Sequence[str] = ()
    columns: Sequence[str] = ()
    notes: Sequence[str] = ()


def read_table(source: str, entries: str = "") -> Table:
    """A table of numbers; empty cells of text files are NaN.

    Args:
        source: .csv, .tsv or .parquet (pip install 'eckart[data]'), whose first column may be names of rows; .npy or
            .safetensors with one matrix; .npz of `scipy.sparse.save_npz`, or with one array; .mtx.
        entries: of a file that lists entries of a matrix instead, the columns with the row, the column and the value:
            "user,item,rating". What is listed twice counts with its mean.

    Raises:
        Refused: the file cannot be read, holds other than numbers, or has no such columns.
    """
    found = _read(source, entries)
    _check_size(found.values, source)
    return found


def _check_size(values: Any, source: str) -> None:
    if 0 in values.shape:
        raise Refused(f"{source} is a table of {' x '.join(map(str, values.shape))}: there is nothing in it")


def _read(source: str, entries: str) -> Table:
    file = Path(source)
    if file.suffix in FRAMES:
        frame = _frame(_there(source))
        _check_size(frame, source)
        return _listed(frame, entries, source) if entries else _table(frame, source)
    if entries:
        raise Refused(f"entries={entries!r} names columns, which {source} has not: only {', '.join(FRAMES)} do")
    if file.suffix in (".npy", ".safetensors") or ".safetensors:" in source:
        values = read_array(source).numpy()
    elif file.suffix == ".npz":
        values = _npz(_there(source))
    elif file.suffix == ".mtx":
        values = _matrix_market(_there(source))
    else:
        raise Refused(f"{source} is none of {', '.join(SUFFIXES)}")
    if values.ndim != 2 or values.dtype.kind not in "biuf":
        raise Refused(f"{source} is of shape {values.shape} and {values.dtype}: a matrix of real numbers is needed")
    return Table(values)


def _there(source: str) -> Path:
    try:
        return regular(Path(source))
    except OSError as error:
        raise Refused(f"{source} cannot be read: {error.strerror or error}") from error


def _frame(file: Path) -> Any:
    try:
        import pandas as pd
    except ImportError:
        raise Refused(f"{file} is read by pandas: pip install 'eckart[data]'") from None
    try:
        if file.suffix == ".parquet":
            frame = pd.read_parquet(file)
            return frame if isinstance(frame.index, pd.RangeIndex) else frame.reset_index()
        separator = "," if file.suffix == ".csv" else "\t"
        with file.open(newline="", encoding="utf-8-sig") as opened:
            lines = csv.reader(opened, delimiter=separator)
            first, second = next(lines, [""]), next(lines, [])
        if len(second) > len(first):
            raise Refused(
                f"{file} has rows of more fields than its first line names: name every column, put "
                f"{'commas' if separator == ',' else 'tabs'} between fields, and a point before decimals"
            )
        named = not all(map(_is_number, first))
        return pd.read_csv(file, sep=separator, header=0 if named else None)
    except Refused:
        raise
    except ImportError as error:
        raise Refused(f"{file} is read by pyarrow: pip install pyarrow") from error
    except UnicodeDecodeError as error:
        raise Refused(f"{file} is no text in UTF-8, from byte {error.start} on: save it in that encoding") from error
    except pd.errors.ParserError as error:
        raise Refused(f"{file} has rows of other numbers of fields than its first ({error})") from error
    except (OSError, ValueError, csv.Error) as error:
        raise Refused(f"{file} cannot be read: {error}") from error


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _table(frame: Any, source: str) -> Table:
    numeric = _numeric(frame)
    names: Sequence[str] = ()
    if numeric and not numeric[0]:
        names, frame, numeric = [str(name) for name in frame.iloc[:, 0]], frame.iloc[:, 1:], numeric[1:]
    text = [str(name) for name, is_numeric in zip(frame.columns, numeric, strict=True) if not is_numeric]
    if text:
        raise Refused(
            f"{source}: column {text[0]!r} holds no numbers ({len(text)} such); only the first column may be names. "
            "For a list of entries name its columns: row, column and value"
        )
    values = frame.to_numpy(np.float64, na_value=np.nan)
    columns = [] if all(isinstance(name, int) for name in frame.columns) else [str(name) for name in frame.columns]
    notes = [] if columns else ["the first line holds numbers, so columns have no names"]
    first = values[:, 0] if values.size else np.zeros(0)
    if len(first) > 2 and (np.diff(first) == 1).all():
        notes.append(f"column {columns[0] if columns else 0} counts the rows, and is taken as data: leave it out")
    return Table(values, names, columns, notes)


def _numeric(frame: Any) -> list[bool]:
    """Which columns hold numbers."""
    from pandas.api.types import is_numeric_dtype

    return [bool(is_numeric_dtype(kind)) for kind in frame.dtypes]


def _listed(frame: Any, entries: str, source: str) -> Table:
    named = [name.strip() for name in entries.split(",")]
    there = [str(name) for name in frame.columns]
    missing = [name for name in named if name not in there]
    if len(named) != 3 or missing:
        which = f"{missing[0]!r} is no column" if missing else f"{len(named)} columns are named"
        raise Refused(f"entries={entries!r}: {which}; three of {', '.join(there)} are needed: row, column, value")
    if len(set(named)) < 3:
        raise Refused(f"entries={entries!r} names a column twice: row, column and value are needed")
    frame = frame[named].dropna()
    if not _numeric(frame)[2]:
        raise Refused(f"{source}: column {named[2]!r} holds no numbers")
    rows, row_names = _numbered(frame[named[0]])
    columns, column_names = _numbered(frame[named[1]])
    shape = len(row_names), len(column_names)
    total = sparse.coo_array((frame[named[2]].to_numpy(np.float64), (rows, columns)), shape).tocsr()
    times = sparse.coo_array((np.ones(len(rows)), (rows, columns)), shape).tocsr()
    total.data /= times.data
    again = len(rows) - times.nnz
    notes = [f"{again} entries are listed more than once: their mean counts"] if again else []
    return Table(total, row_names, column_names, notes)


def _numbered(labels: Any) -> tuple[Any, list[str]]:
    """Places from zero, and the names that they stand for in their order."""
    names, places = np.unique(labels.to_numpy(), return_inverse=True)
    return places, [str(name) for name in names]


def _npz(file: Path) -> Any:
    try:
        with np.load(file, allow_pickle=False) as held:
            if "format" in held.files:
                return sparse.csr_array(sparse.load_npz(file))
            if len(held.files) != 1:
                raise Refused(f"{file} holds {len(held.files)} arrays ({', '.join(held.files)}), and one is needed")
            return held[held.files[0]]
    except (OSError, ValueError, EOFError) as error:
        raise Refused(f"{file} cannot be read as .npz: {error}") from error


def _matrix_market(file: Path) -> Any:
    try:
        found = io.mmread(file)
    except (OSError, ValueError) as error:
        raise Refused(f"{file} cannot be read as Matrix Market: {error}") from error
    return sparse.csr_array(found) if sparse.issparse(found) else np.asarray(found)
