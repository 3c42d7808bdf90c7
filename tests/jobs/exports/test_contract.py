"""The register of formats."""

from __future__ import annotations

from importlib import import_module
from inspect import signature
from pathlib import Path

import pytest

from eckart.cli.command_line import arguments_of, command_line
from eckart.errors import Refused
from eckart.files.directories import new_directory
from eckart.jobs.exports import contract, dense
from eckart.jobs.exports.contract import formats, missing_module, writer
from support.commands import nothing_left

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


def begin(out: Path, file: str) -> None:
    with new_directory(out) as partial:
        (partial / file).write_text("half")
        raise Refused("what was read back is not the same model")


@pytest.mark.parametrize("name", FILES)
def test_what_a_format_began_to_write_is_cleared_away(name: str, tmp_path: Path) -> None:
    file = getattr(import_module(f"{contract.PACKAGE}.{name}"), "FILE", "model.safetensors")
    for written in (file, f"{file}.data" if file.endswith(".onnx") else file):
        with pytest.raises(Refused, match="not the same model"):
            begin(tmp_path / "o", written)
        assert nothing_left(tmp_path / "o")


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(Refused, match=r"unknown format 'denze'; did you mean 'dense'. there are .*dense, .*peft"):
        writer("denze")


@pytest.mark.parametrize(
    ("module", "package"),
    [("google.protobuf", "protobuf"), ("google", "protobuf"), ("sentencepiece.x", "sentencepiece")],
)
def test_a_package_that_an_export_lacks_is_named(
    module: str, package: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def write(source: str, out: str | Path) -> str:
        raise ModuleNotFoundError(f"No module named {module!r}", name=module)

    monkeypatch.setattr(dense, "write", write)
    with pytest.raises(Refused, match=f"export --to dense needs the module {module}, .*: pip install .* {package}$"):
        writer("dense")("somewhere", tmp_path / "o")


def test_a_missing_module_is_found_behind_what_others_made_of_it() -> None:
    first = ModuleNotFoundError("No module named 'google'", name="google")
    caused, met = RuntimeError("cannot convert"), ValueError("cannot export")
    caused.__cause__, met.__context__ = first, caused
    assert missing_module(first) is missing_module(met) is first
    assert missing_module(RuntimeError("another one")) is None
