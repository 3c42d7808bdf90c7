"""Curves of finished blocks, which an interrupted run goes on with."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from eckart.compressors.contract import METHODS, Members
from eckart.jobs.compress.blockwise.records import curves_in, put_curves, put_record, record
from eckart.jobs.compress.curves import fit_or_reason
from eckart.statistics import Statistics
from support import hard


@pytest.mark.parametrize("errors", [True, False])
def test_curves_come_back_as_they_were(errors: bool, tmp_path: Path) -> None:
    curves = {}
    for name in ("svd", "magnitude", "rtn"):
        weight = hard.normal(6, 8).float()
        _, curves[name] = fit_or_reason(METHODS.find(name), "matrix", Members((weight,), (Statistics(),)), errors)
    bad = Members((torch.full((4, 4), float("nan")),), (Statistics(),))
    _, curves["failed"] = fit_or_reason(METHODS.find("svd"), "matrix", bad)
    put_curves(tmp_path / "curves.safetensors", curves)
    found = curves_in(tmp_path / "curves.safetensors")
    assert found is not None
    assert found.keys() == curves.keys()
    for name, curve in curves.items():
        spectra = found[name].spectrum, curve.spectrum
        assert all(s is None for s in spectra) or torch.equal(*spectra)  # type: ignore[arg-type]
        assert {**vars(found[name]), "spectrum": 0} == {**vars(curve), "spectrum": 0}, name
    assert found["failed"].failed


def test_what_is_damaged_is_not_there(tmp_path: Path) -> None:
    file = tmp_path / "record.safetensors"
    assert record(file) is None
    put_record(file, {"a": 1}, {"t": torch.ones(3)})
    found = record(file)
    assert found is not None
    assert found[0] == {"a": 1}
    damaged = bytearray(file.read_bytes())
    damaged[-1] ^= 1
    file.write_bytes(damaged)
    assert record(file) is None
    assert curves_in(file) is None
