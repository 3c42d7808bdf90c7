"""Arguments of the public functions that cannot be meant: refused, with their names."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

import eckart

DATA = [torch.randn(64, 32, generator=torch.Generator().manual_seed(0))]
W = torch.randn(8, 8, generator=torch.Generator().manual_seed(0))


def net(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 16))


def small() -> nn.Module:
    model = net()
    eckart.compress(model, "rtn", keep=0.3, of="bytes")
    return model


BAD: dict[str, tuple[Any, dict[str, list[Any]]]] = {
    "compress": (
        lambda **given: eckart.compress(net(), **{"method": "svd", "calibration": DATA, **given}),
        {
            "keep": [80, -1, 0, float("nan"), True],
            "of": ["size", None, 3],
            "seed": ["x", -1, 1.5, None],
            "samples": [0, "3", 2.5],
            "length": [1, None],
            "floor": ["x", 1.0, float("nan")],
            "heal": [-1, "1"],
            "distill": [-1, True],
            "allocation": ["x", 3],
            "embeddings": ["no"],
        },
    ),
    "adapt": (
        lambda **given: eckart.adapt(net(), **given),
        {
            "rank": ["4", 2.5, 0, -1, None, True],
            "alpha": ["x", 0.0, float("nan")],
            "parameters": ["x", 1.5, 0],
            "name": [3, "", "a.b"],
            "seed": ["x", -1],
            "samples": [0],
        },
    ),
    "fit": (
        lambda **given: eckart.fit(**{"weight": W, "rank": 1, **given}),
        {
            "rank": ["2", 2.0, None, True, 0, 9],
            "weight": [[[1.0]], torch.empty(0, 3), torch.ones(2, 2, dtype=torch.int64), W.to("meta"), W[0]],
            "metric": [3, "kfac"],
            "statistics": [3],
        },
    ),
    "diagnose": (
        lambda **given: eckart.diagnose(net(), **given),
        {"seed": ["x", 1.5], "measure": [0.5, ["x"], [2.0]], "tokens": ["text"]},
    ),
    "compensate": (
        lambda **given: eckart.compensate(small(), net(), **{"rank": 1, "calibration": DATA, **given}),
        {"rank": ["1", 1.5, 0, True], "metric": [3, "x"], "seed": ["x"], "samples": [0]},
    ),
    "mitigate": (
        lambda **given: eckart.mitigate_intruders(net(), net(1), **{"scale": 0.5, **given}),
        {"scale": ["x", -1.0, float("nan")], "k": [0, 1.5], "threshold": [0.0, "x"]},
    ),
    "embeddings": (
        lambda **given: eckart.embeddings(W, W, **{"kernel": "gaussian", **given}),
        {"kernel": ["x", 3], "bandwidth": ["x", -1.0], "frequencies": [1.5, "x"], "seed": ["x"]},
    ),
}
CASES = [(name, option, value) for name, (_, bad) in BAD.items() for option, values in bad.items() for value in values]


@pytest.mark.parametrize(("name", "option", "value"), CASES, ids=lambda each: str(each)[:20])
def test_what_cannot_be_meant_is_refused_with_the_name_of_the_argument(name: str, option: str, value: Any) -> None:
    with pytest.raises(eckart.Refused, match=r"name of an adapter|metric" if option in ("name", "metric") else option):
        BAD[name][0](**{option: value})


SIDES = {
    "negative": torch.tensor([1.0, -1.0]),
    "all-negative": -torch.ones(3),
    "nan": torch.tensor([1.0, float("nan")]),
    "infinite": torch.tensor([1.0, float("inf")]),
    "indefinite": torch.tensor([[0.0, 1.0], [1.0, 0.0]]),
    "indefinite-with-ones": torch.tensor([[1.0, 2.0], [2.0, 1.0]]),
    "indefinite-inside": torch.tensor([[1.0, 0.9, 0.0], [0.9, 1.0, 0.9], [0.0, 0.9, 1.0]]),
    "asymmetric": torch.tensor([[1.0, 0.5], [0.0, 1.0]]),
    "negative-definite": -torch.eye(2),
    "integers": torch.tensor([1, 2]),
    "complex": torch.ones(2, dtype=torch.complex64),
    "empty": torch.empty(0),
    "a-list": [1.0, 2.0],
    "rectangular": torch.ones(2, 3),
}


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("where", ["left", "right"])
def test_what_measures_no_error_is_no_metric(where: str, side: str) -> None:
    with pytest.raises(eckart.Refused, match=f"Metric: {where}"):
        eckart.Metric(**{where: SIDES[side]})  # type: ignore[arg-type]


def test_rounding_below_zero_is_no_reason_to_refuse_a_metric() -> None:
    x = torch.randn(5, 40, generator=torch.Generator().manual_seed(0))
    eckart.Metric(right=x.T @ x)
    eckart.Metric(right=torch.tensor([1.0, -1e-9]))
    eckart.Metric(right=torch.zeros(3, 3), left=torch.zeros(3))


def test_another_model_of_the_same_shapes_was_not_what_was_compressed() -> None:
    with pytest.raises(eckart.Refused, match=r"no nearer to the dense ones than zeros are .*: name the model"):
        eckart.compensate(small(), net(7), 1, calibration=DATA)
    assert eckart.compensate(small(), net(), 1, calibration=DATA).added


def test_compressing_twice_says_what_to_do() -> None:
    model = small()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(eckart.Refused, match="all 2 matrices of Sequential are compressed already: compress"):
        eckart.compress(model, "svd", keep=0.5, of="linear-parameters")
    assert all(torch.equal(model.state_dict()[name], t) for name, t in before.items())
    half = net()
    eckart.compress(half, "rtn", keep=0.5, of="bytes", include=["0"])
    eckart.compress(half, "rtn", keep=0.45, of="bytes")
    assert hasattr(half[2], "structure")
