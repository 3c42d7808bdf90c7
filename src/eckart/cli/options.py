"""Options made from dataclasses and functions, so that their types, defaults and words stand in one place."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, make_dataclass
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

from cyclopts import Group, Parameter, Token
from cyclopts.argument import ArgumentCollection

from eckart.errors import Refused
from eckart.report.numbers import read_percent

F = TypeVar("F", bound=Callable[..., int])

WHAT = Group.create_ordered("What")
BUDGET = Group.create_ordered("How small")
DATA = Group.create_ordered("Data")
TRAINING = Group.create_ordered("Training")
RUN = Group.create_ordered("How it is run")
OUTPUT = Group.create_ordered("Output")


@dataclass(frozen=True)
class Options:
    """Keyword arguments of a function, as they were asked for."""

    def given(self) -> dict[str, Any]:
        """The arguments by name."""
        return {each.name: getattr(self, each.name) for each in fields(self)}


def options_of(
    source: Any, groups: Mapping[Group, str], *, leave: Sequence[str] = (), **changes: Parameter
) -> type[Any]:
    """A dataclass that cyclopts reads as options: a field for each field of a dataclass, or keyword of a function.

    Args:
        source: a dataclass, of which the new one is a subclass; or a function, for which it is one of `Options`.
        groups: names, with spaces between them, by the group of the help that shows them.
        leave: names that are no options.
        changes: what an option has otherwise than by its name, type and docstring.
    """
    hints, said = get_type_hints(source), words(source)
    of = {name: group for group, names in groups.items() for name in names.split()}
    made = []
    for name, default in defaults(source).items():
        if name in leave:
            continue
        quiet = default is None or default is False or default in ("", ())
        own = Parameter(help=said.get(name), group=of[name], show_default=not quiet)
        hint = (
            Annotated[_tuple(hints[name]), own, changes[name]]
            if name in changes
            else Annotated[_tuple(hints[name]), own]
        )
        made.append((name, hint, field(default=default)))
    bases: tuple[Any, ...] = (source if is_dataclass(source) else Options,)
    # The module keeps cyclopts from taking the class for one of the standard library.
    return make_dataclass(
        f"{source.__name__}_options", made, bases=bases, namespace={"__module__": __name__}, frozen=True
    )


def defaults(source: Any) -> dict[str, Any]:
    """Defaults by name, of the fields of a dataclass or of the keywords of a function; MISSING where there is none."""
    if is_dataclass(source):
        return {each.name: each.default for each in fields(source)}
    keywords = [p for p in inspect.signature(source).parameters.values() if p.kind is p.KEYWORD_ONLY]
    return {p.name: MISSING if p.default is p.empty else p.default for p in keywords}


def words(source: Any) -> dict[str, str]:
    """What a docstring says of each attribute or argument, without its full stop.

    >>> words(Talk)["quiet"]
    'no progress: only errors and the result'
    """
    text = inspect.cleandoc(source.__doc__ or "")
    section = re.search(r"^(?:Attributes|Args):\n((?:    .*\n?|\n)*)", text, re.M)
    entries = re.findall(r"^    (\w[\w, ]*): (.*(?:\n {5,}.*)*)", section[1] if section else "", re.M)
    return {
        name: re.sub(r"\s+", " ", said).replace("`", "").removesuffix(".")
        for names, said in entries
        for name in names.split(", ")
    }


def taking(**kinds: type[Any]) -> Callable[[F], F]:
    """Says what the dataclasses are made of that a command takes, and that each of their fields is an option."""

    def mark(command: F) -> F:
        for name, kind in kinds.items():
            command.__annotations__[name] = Annotated[kind, Parameter(name="*")]
            if MISSING not in defaults(kind).values():
                command.__kwdefaults__ = {**(command.__kwdefaults__ or {}), name: kind()}
        return command

    return mark


def _tuple(hint: Any) -> Any:
    """Tuples where a hint says `Sequence`, of which cyclopts would make lists."""
    return tuple[get_args(hint)[0], ...] if get_origin(hint) is Sequence else hint  # type: ignore[misc]


def share(_: Any, tokens: Sequence[Token]) -> float:
    """0.8 or 80%."""
    return _share(tokens[-1].value, tokens[-1].keyword)


def shares(_: Any, tokens: Sequence[Token]) -> tuple[float, ...]:
    """Shares with commas between them."""
    return tuple(_share(word, t.keyword) for t in tokens for word in t.value.split(",") if word.strip())


def _share(word: str, option: str | None) -> float:
    try:
        return float(read_percent(word))
    except ValueError:
        raise Refused(f"{option} {word}: a share is needed, as in 0.8 or 80%") from None


def in_bytes(gigabytes: float | None) -> int | None:
    """GB as bytes; Refused where that is no size."""
    if gigabytes is None:
        return None
    if not 1e-9 <= gigabytes < math.inf:
        raise Refused(f"memory={gigabytes} is no number of GB above 0")
    return round(gigabytes * 1e9)


def text_or_none(_: Any, tokens: Sequence[Token]) -> str:
    """The name of a text; "" for none."""
    return "" if tokens[-1].value == "none" else tokens[-1].value


def one_of(arguments: ArgumentCollection) -> None:
    """Raises Refused where several options of a group are given."""
    given = [argument.name for argument in arguments if argument.tokens]
    if len(given) > 1:
        raise Refused(f"{given[0]} is not allowed with {given[1]}: name one of them")


@dataclass(frozen=True)
class Talk:
    """How much a command says.

    Attributes:
        quiet: no progress: only errors and the result.
        verbose: the seconds of every phase too.
        json: print one JSON document instead of tables.
    """

    quiet: bool = False
    verbose: bool = False
    json: bool = False


_Q, _V = Parameter(name=("--quiet", "-q")), Parameter(name=("--verbose", "-v"))
_GROUPS = {OUTPUT: "quiet verbose json"}
TALK = options_of(Talk, _GROUPS, quiet=_Q, verbose=_V)
NO_JSON = options_of(Talk, _GROUPS, quiet=_Q, verbose=_V, json=Parameter(parse=False))

TAKE = Parameter(help="pattern of matrices to take; repeatable")
LEAVE = Parameter(help="pattern of matrices to leave; repeatable")
METHOD = Parameter(help="see eckart methods")
SAMPLES = Parameter(help="calibration sequences")
LENGTH = Parameter(help="tokens in each")
SEED = Parameter(help="of everything random")
EVALUATION = Parameter(name="--eval", help="file, folder or name of a text, or none", converter=text_or_none)
EVALUATION_SAMPLES = Parameter(help="evaluation sequences")
CALIBRATION = Parameter(help="file, folder, name of a text, self for what the model writes, or mixture of both")

Model = Annotated[str, Parameter(help="a local directory, a GGUF file, a hub name, or smollm2")]
Written = Annotated[str, Parameter(help="a directory that eckart wrote")]
Out = Annotated[str, Parameter(help="directory to make", group=OUTPUT)]
Memory = Annotated[
    float | None, Parameter(help="GB the statistics may take in one pass (default: half of what is free)", group=RUN)
]
DEVICE = Parameter(help="where models are run: cpu, cuda, mps, xpu or auto")
Device = Annotated[str, DEVICE, Parameter(group=RUN)]
Json = Annotated[bool, Parameter(help="print one JSON document instead of tables", group=OUTPUT, show_default=False)]
ReportTo = Annotated[
    tuple[str, ...],
    Parameter(
        help="tracker that follows the losses: tensorboard, wandb, mlflow, or another that transformers knows",
        negative_iterable=(),
        group=RUN,
        show_default=False,
    ),
]
Resume = Annotated[bool, Parameter(help="go on with an interrupted run", group=RUN, show_default=False)]
NoSpeed = Annotated[bool, Parameter(help="do not time the models", group=RUN, show_default=False)]
