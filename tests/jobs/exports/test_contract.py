"""The register of formats."""

from __future__ import annotations

from importlib import import_module
from inspect import signature
from pathlib import Path

import pytest

from eckart.cli.command_line import arguments_of, command_line
from eckart.errors import Refused
from eckart.jobs.exports import contract
from eckart.jobs.exports.contract import formats, writer

FILES = sorted(file.stem for file in Path(contract.__file__).parent.glob("[a-z]*.py") if file.stem != "contract")


def test_every_file_is_a_format_and_the_command_line_offers_it() -> None:
    assert [name.replace("-", "_") for name in formats()] == FILES
    to = next(each for each in arguments_of(command_line(), "export") if each.name == "--to")
    assert list(to.get_choices() or ()) == list(formats())
    for name, line in formats().items():
        assert f"{name}: {line}" in str(to.parameter.help)


@pytest.mark.parametrize("name", formats())
def test_a_format_says_what_it_is_and_writes(name: str) -> None:
    module = import_module(f"{contract.PACKAGE}.{name.replace('-', '_')}")
    assert formats()[name] == (module.__doc__ or "").partition("\n")[0]
    assert formats()[name].strip(".") == formats()[name] != ""
    assert list(signature(writer(name)).parameters) == ["source", "out"]
    assert signature(writer(name)).return_annotation == "str"


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(Refused, match=r"unknown format 'denze'; did you mean 'dense'. there are .*dense, .*peft"):
        writer("denze")
