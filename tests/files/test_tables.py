"""Tables of numbers in files: what is read, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import io, sparse

from eckart.errors import Refused
from eckart.files.tables import read_table

TEXT = "who,a,b\nann,1,\nbob,3.5,4\n"
LISTED = "user,item,rating\n7,x,4\n7,y,0\n9,x,2\n9,x,3\n"


def written(directory: Path, name: str, text: str) -> str:
    (directory / name).write_text(text, encoding="utf-8")
    return str(directory / name)


def test_empty_cells_are_nan_and_a_first_column_of_text_names_the_rows(tmp_path: Path) -> None:
    for file in (written(tmp_path, "t.csv", TEXT), written(tmp_path, "t.tsv", TEXT.replace(",", "\t"))):
        table = read_table(file)
        np.testing.assert_array_equal(table.values, [[1, np.nan], [3.5, 4]])
        assert (list(table.rows), list(table.columns)) == (["ann", "bob"], ["a", "b"])


def test_a_first_line_of_numbers_is_no_header(tmp_path: Path) -> None:
    table = read_table(written(tmp_path, "t.csv", "1.5,2\n3,4\n5,6\n"))
    assert table.values.shape == (3, 2)
    assert not table.columns
    assert "no names" in table.notes[0]
    counted = read_table(written(tmp_path, "c.csv", "id,a\n1,2\n2,4\n3,9\n"))
    assert "id counts the rows" in counted.notes[0]


def test_parquet_is_read_as_text_is(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    file = written(tmp_path, "t.csv", TEXT)
    pd.read_csv(file).to_parquet(tmp_path / "t.parquet")
    pd.read_csv(file, index_col=0).astype({"b": "Int64"}).to_parquet(tmp_path / "i.parquet")
    for name in ("t.parquet", "i.parquet"):
        table = read_table(str(tmp_path / name))
        np.testing.assert_array_equal(table.values, read_table(file).values)
        assert list(table.rows) == ["ann", "bob"]


def test_a_list_of_entries_is_sparse_and_a_zero_in_it_is_observed(tmp_path: Path) -> None:
    table = read_table(written(tmp_path, "r.csv", LISTED), "user,item,rating")
    assert table.values.nnz == 3
    np.testing.assert_array_equal(table.values.toarray(), [[4, 0], [2.5, 0]])
    assert (list(table.rows), list(table.columns)) == (["7", "9"], ["x", "y"])
    assert "1 entries are listed more than once" in table.notes[0]


def test_arrays_and_sparse_matrices(tmp_path: Path) -> None:
    dense = np.arange(6.0).reshape(2, 3)
    np.save(tmp_path / "d.npy", dense)
    np.savez(tmp_path / "d.npz", dense)
    sparse.save_npz(tmp_path / "s.npz", sparse.csr_array(dense))
    io.mmwrite(tmp_path / "m.mtx", sparse.coo_array(dense))
    for name in ("d.npy", "d.npz"):
        np.testing.assert_array_equal(read_table(str(tmp_path / name)).values, dense)
    for name in ("s.npz", "m.mtx"):
        found = read_table(str(tmp_path / name)).values
        assert sparse.issparse(found)
        np.testing.assert_array_equal(found.toarray(), dense)


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="'city' holds no numbers"):
        read_table(written(tmp_path, "a.csv", "who,a,city\nann,1,Rome\n"))
    with pytest.raises(Refused, match="'stars' is no column; three of user, item, rating"):
        read_table(written(tmp_path, "r.csv", LISTED), "user,item,stars")
    with pytest.raises(Refused, match="2 columns are named"):
        read_table(written(tmp_path, "r.csv", LISTED), "user,item")
    with pytest.raises(Refused, match="more fields than its first line names"):
        read_table(written(tmp_path, "long.csv", "a,b\n1,2,3\n4,5,6\n"))
    with pytest.raises(Refused, match="put commas between fields, and a point before decimals"):
        read_table(written(tmp_path, "semicolons.csv", "a;b;c\n1,5;2;3\n4;5,5;6\n"))
    with pytest.raises(Refused, match="rows of other numbers of fields than its first"):
        read_table(written(tmp_path, "ragged.csv", "a,b,c\n1,2\n3,4,5,6\n"))
    (tmp_path / "latin.csv").write_bytes("a,b\n1,é\n".encode("latin-1"))
    with pytest.raises(Refused, match="no text in UTF-8, from byte 6 on"):
        read_table(str(tmp_path / "latin.csv"))
    with pytest.raises(Refused, match="names a column twice"):
        read_table(written(tmp_path, "r.csv", LISTED), "user,user,rating")
    with pytest.raises(Refused, match="'item' holds no numbers"):
        read_table(written(tmp_path, "r.csv", LISTED), "user,rating,item")
    with pytest.raises(Refused, match="a table of 0 x 2"):
        read_table(written(tmp_path, "e.csv", "a,b\n"))
    io.mmwrite(tmp_path / "c.mtx", sparse.coo_array(np.eye(2) * 1j))
    with pytest.raises(Refused, match="complex128: a matrix of real numbers"):
        read_table(str(tmp_path / "c.mtx"))
    np.savez(tmp_path / "two.npz", a=np.ones(2), b=np.ones(2))
    with pytest.raises(Refused, match="holds 2 arrays"):
        read_table(str(tmp_path / "two.npz"))
    np.savez(tmp_path / "object.npz", np.array([{}], dtype=object))
    with pytest.raises(Refused, match="cannot be read"):
        read_table(str(tmp_path / "object.npz"))
    np.save(tmp_path / "line.npy", np.ones(4))
    with pytest.raises(Refused, match="shape"):
        read_table(str(tmp_path / "line.npy"))
    with pytest.raises(Refused, match="entries='a,b,c' names columns"):
        read_table(str(tmp_path / "line.npy"), "a,b,c")
    for name in ("t.xlsx", "missing.csv"):
        with pytest.raises(Refused, match=name):
            read_table(str(tmp_path / name))
