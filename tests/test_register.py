"""Every card of every family: what it says, where its paper and its test lie, what is loaded to ask for it."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from pkgutil import iter_modules

import pytest

import eckart
from eckart.errors import Refused
from eckart.register import FAMILIES, Card, register_of

TESTS = Path(__file__).parent
PACKAGE = Path(eckart.__file__).parent


def papers(family: str) -> set[str]:
    """The names of the files of a family that are papers."""
    names = {module.name for module in iter_modules([str(PACKAGE / family)])}
    return {name for name in names if not name.startswith("_")} - {"contract"}


def file_of(card: Card) -> str:
    package, _, file = card.entry.__module__.rpartition(".")
    assert package == FAMILIES[card.family]
    return file


CARDS = [pytest.param(card, id=f"{family}-{name}") for family in FAMILIES for name, card in register_of(family).items()]


@pytest.mark.parametrize("card", CARDS)
def test_a_card_is_complete(card: Card) -> None:
    assert card.paper.strip() == card.paper != ""
    assert len(card.summary) > 20
    paragraph = (card.entry.__doc__ or "").strip().split("\n\n")[0]
    assert "\n" not in paragraph, f"the summary of {card.name} does not end with its line"
    assert list(card.columns())
    assert all(isinstance(text, str) for text in card.columns().values())


@pytest.mark.parametrize("card", CARDS)
def test_a_paper_has_a_file_and_a_test_of_its_own(card: Card) -> None:
    file = file_of(card)
    assert file in papers(card.family)
    assert f"{card.name.replace('-', '_')}_".startswith(f"{file}_"), f"{card.name} is not looked for in {file}.py first"
    assert (TESTS / card.family / f"test_{file}.py").exists()


@pytest.mark.parametrize("family", ["estimators", "kernels", "sketching", "optim", "layers"])
def test_what_a_package_offers_by_name_is_no_module(family: str) -> None:
    package = importlib.import_module(FAMILIES[family])
    for card in register_of(family).values():
        assert getattr(package, card.entry.__name__) is card.entry


@pytest.mark.parametrize("card", CARDS)
def test_a_card_says_what_was_measured_or_why_nothing_was(card: Card) -> None:
    assert bool(card.measured) != bool(card.unmeasured)
    assert all(where and lines for where, lines in card.measured.items())


@pytest.mark.parametrize("family", FAMILIES)
def test_every_file_without_an_underscore_is_a_paper(family: str) -> None:
    assert papers(family) == {file_of(card) for card in register_of(family).values()}


def alone(family: str) -> str:
    """The first paper of a family whose file imports no other paper."""
    package = FAMILIES[family]
    for name in sorted(papers(family)):
        text = (PACKAGE / family / f"{name}.py").read_text("utf-8")
        if not any(f"from {package}.{other} import" in text for other in papers(family)):
            return name
    raise AssertionError(f"every paper of {family} imports another")


ASKED = """
import json, sys
from eckart.register import register_of
for family, name in json.loads(sys.argv[1]).items():
    register_of(family)[name.replace("_", "-")]
print(json.dumps([name for name in sys.modules if name.startswith("eckart.")]))
"""


def test_a_card_loads_its_own_file_only() -> None:
    asked = {family: alone(family) for family in FAMILIES}
    command = [sys.executable, "-c", ASKED, json.dumps(asked)]
    loaded = set(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    for family, name in asked.items():
        assert {file for file in papers(family) if f"{FAMILIES[family]}.{file}" in loaded} == {name}


@pytest.mark.parametrize("family", FAMILIES)
def test_an_unknown_name_is_refused_with_the_near_one_and_all_others(family: str) -> None:
    register = register_of(family)
    name = max(register, key=len)
    with pytest.raises(Refused) as told:
        register.find(name[:-1])
    assert f"unknown {register.noun} {name[:-1]!r}; did you mean " in str(told.value)
    assert all(other in str(told.value) for other in register)
    with pytest.raises(Refused, match=r"'&&'; there are "):
        register.find("&&")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_name_of_another_family_says_where_it_belongs(family: str) -> None:
    register = register_of(family)
    for other in FAMILIES.keys() - {family}:
        theirs = register_of(other)
        name = next(name for name in theirs if sum(name in register_of(each) for each in FAMILIES) == 1)
        with pytest.raises(Refused, match=f"{name!r} is no {register.noun} but an? {theirs.noun}: ") as told:
            register.find(name)
        assert str(told.value).endswith(theirs.door.format(name=name))


def test_an_unknown_family_is_refused() -> None:
    with pytest.raises(Refused, match=f"unknown family 'optimizers'; there are {', '.join(FAMILIES)}"):
        register_of("optimizers")


def test_a_name_is_registered_once() -> None:
    register = register_of("compressors")
    with pytest.raises(ValueError, match="'svd' is registered twice") as told:
        register.add(register["svd"])
    assert not isinstance(told.value, Refused)


def test_a_register_is_a_mapping_of_names() -> None:
    assert 3 not in eckart.METHODS
    assert None not in eckart.METHODS
    with pytest.raises(KeyError):
        eckart.METHODS[3]  # type: ignore[index]
    with pytest.raises(eckart.Refused, match="unknown compressor 'KFAC'; did you mean 'kfac'"):
        eckart.METHODS.find("KFAC")
    assert repr(eckart.ADAPTERS).startswith("<adapters: adalora, corda")
