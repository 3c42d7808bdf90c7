"""HTA: the diagonal holds the singular values of the change."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import eckart
from eckart.files.tensors import CHECKSUMS, SEAL
from eckart.structures import Chain, Diagonal
from support.one_layer import IN, normal, one_layer, only, start, stirred


@pytest.mark.parametrize("shape", [(6, 9), (9, 6), (7, 7)])
def test_hta_has_the_singular_values_that_are_on_its_diagonal(shape: tuple[int, int]) -> None:
    path = start("hta", normal(*shape)).path
    assert isinstance(path, Chain)
    stirred(path)
    diagonal = only(path, Diagonal).weight.detach()
    first, last = path.operands()[0].to_dense(), path.operands()[-1].to_dense()
    middle = torch.zeros(shape)
    middle.diagonal().copy_(diagonal)  # type: ignore[arg-type]
    torch.testing.assert_close(path.to_dense(), first @ middle @ last, atol=1e-5, rtol=1e-5)
    found = torch.linalg.svdvals(path.to_dense().detach())
    torch.testing.assert_close(found, diagonal.abs().sort(descending=True).values, atol=1e-5, rtol=1e-5)  # type: ignore[operator]


def test_files_that_name_it_householder_are_read(tmp_path: Path) -> None:
    net, adapter = one_layer("hta")
    stirred(adapter.paths["0"])
    x = normal(5, IN, seed=4)
    expected = net(x).detach()
    eckart.save_adapter(adapter, tmp_path / "a")
    file = tmp_path / "a" / "adapter.json"
    written = json.loads(file.read_text("utf-8"))
    del written[SEAL], written[CHECKSUMS]
    file.write_text(json.dumps(written | {"method": "householder", "eckart": "0.1.0"}), "utf-8")
    adapter.remove()
    found = eckart.load_adapter(net, tmp_path / "a")
    assert found.method.name == "hta"
    torch.testing.assert_close(net(x).detach(), expected)
