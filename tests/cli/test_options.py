"""Options: made of dataclasses and functions, whose defaults and words they have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from cyclopts.argument import Argument

from eckart.cli.command_line import COMMANDS, arguments_of, command_line
from eckart.cli.options import defaults, words
from eckart.jobs.adapt.directory import Request
from eckart.jobs.compensate.directory import compensate_directory
from eckart.jobs.compress.recipe import Recipe
from eckart.jobs.diagnose.directory import diagnose_directory
from eckart.jobs.diagnose.embeddings import embeddings
from eckart.jobs.learning.loop import Training
from eckart.jobs.texts import Texts

APP = command_line()
SOURCES: dict[str, tuple[Any, ...]] = {
    "compress": (Recipe, Texts),
    "compensate": (compensate_directory, Texts),
    "adapt": (Request, Training),
    "diagnose": (diagnose_directory,),
    "embeddings": (embeddings,),
}
"""What the options of each command are made of."""
SPELLING = {("compress", "evaluation"): "--eval", ("compensate", "evaluation"): "--eval", ("adapt", "text"): "--eval"}
NO_OPTION = {"eval_length", "cache", "progress"}


def options(command: str) -> dict[str, Argument]:
    return {name: argument for argument in arguments_of(APP, command) for name in argument.names}


@pytest.mark.parametrize(("command", "source"), [(c, s) for c, sources in SOURCES.items() for s in sources])
def test_every_field_is_an_option_with_its_default(command: str, source: Any) -> None:
    found = options(command)
    for name, default in defaults(source).items():
        if name in NO_OPTION:
            continue
        argument = found[SPELLING.get((command, name), f"--{name.replace('_', '-')}")]
        given = argument.field_info.default
        assert (given is argument.field_info.empty) == argument.required
        if not argument.required:
            assert given == default


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_says_what_it_is_and_has_a_group(command: str) -> None:
    for argument in arguments_of(APP, command):
        if argument.show:
            assert argument.parameter.help
            assert not argument.parameter.help.endswith(".")
            assert argument.parameter.group[0].name not in ("", "Parameters")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_defaults_and_fits_the_terminal(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for width in (60, 160):
        monkeypatch.setenv("COLUMNS", str(width))
        command_line()([command, "--help"])
        shown = capsys.readouterr().out
        assert max(map(len, shown.splitlines())) <= width
        flat = " ".join(shown.replace("│", " ").split())
        for argument in arguments_of(APP, command):
            if argument.show:
                assert argument.name in flat
                default = argument.field_info.default
                if isinstance(default, int | float | str) and default not in ("", False) and default is not None:
                    assert f"[default: {default}]" in flat


def test_words_of_attributes_and_arguments() -> None:
    def function(*, a: int, bc: int) -> None:
        """Does.

        Args:
            a: the `first`,
                on two lines.
            bc, d: others.

        Raises:
            Refused: never.
        """

    assert words(function) == {"a": "the first, on two lines", "bc": "others", "d": "others"}


def test_the_later_of_two_wins(asked: Callable[..., Any]) -> None:
    assert asked("compress", "x", "--keep", "0.5", "--keep", "70%")["recipe"].keep == 0.7
    assert asked("compress", "x", "--eval", "a", "--eval", "none")["texts"].evaluation == ""


def test_patterns_add_up(asked: Callable[..., Any]) -> None:
    given = asked("compress", "x", "--include", "a", "--include", "b.*", "--exclude", "re:(c|d)")
    assert (given["recipe"].include, given["recipe"].exclude) == (("a", "b.*"), ("re:(c|d)",))


@pytest.fixture
def asked() -> Callable[..., Any]:
    """What a command line asks for, by name."""

    def parsed(*tokens: str) -> dict[str, Any]:
        _, bound, _ = APP.parse_args(tokens, exit_on_error=False, print_error=False)
        return dict(bound.arguments)

    return parsed
