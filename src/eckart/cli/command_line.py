"""What the command line understands: its commands, each loaded when it is asked for, and words for its errors."""

from __future__ import annotations

from cyclopts import App, CycloptsError, Parameter
from cyclopts.argument import ArgumentCollection
from cyclopts.exceptions import (
    CoercionError,
    MissingArgumentError,
    UnknownCommandError,
    UnknownOptionError,
    UnusedCliTokensError,
)

from eckart._version import __version__
from eckart.cli.consoles import console
from eckart.errors import Refused
from eckart.register import near

COMMANDS = {
    "compress": "make a model smaller and measure what it cost",
    "compensate": "add low-rank paths for what the compression of a model lost",
    "adapt": "train a few numbers beside the frozen matrices of a model",
    "train": "train all of a model, or a configuration from the start",
    "diagnose": "spectra, heavy tails, what changed, and what a cut would cost",
    "embeddings": "what of one set's diversity a second set, paired with it, explains",
    "fit": "factor a table of numbers: complete it, clean it, find what it is made of",
    "evaluate": "perplexity, distance to a dense model, speed, size",
    "export": "turn a compressed model into another format",
    "verify": "hold every tensor of a directory to its checksum",
    "methods": "the published methods there are",
}
"""What each does; the function of that name in the module of that name under `eckart.cli` does it."""


def command_line() -> App:
    """The whole command line; what it parses is a function of `COMMANDS` and its arguments."""
    app = App(
        name="eckart",
        help="Stores matrices as fewer numbers and keeps what matters.",
        version=f"eckart {__version__}",
        console=console(),
        help_format="plaintext",
        result_action="return_value",
        suppress_keyboard_interrupt=False,
        default_parameter=Parameter(negative=(), allow_repeating=True),
    )
    for position, (name, does) in enumerate(COMMANDS.items()):
        app.command(f"eckart.cli.{name}:{name}", name=name, help=does, sort_key=position)
    app.register_install_completion_command(help="install completion for the shell that runs")
    return app


def arguments_of(app: App, name: str) -> ArgumentCollection:
    """What a command of the command line can be told."""
    return app[name].assemble_argument_collection(default_parameter=app.default_parameter)


def said(error: CycloptsError) -> str:
    """What is wrong with a command line, in one line."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, Refused):
            return str(cause)
        cause = cause.__cause__
    chain = " ".join(["eckart", *(error.command_chain or ())])
    more = f"see {chain} --help"
    if isinstance(error, UnknownCommandError):
        name = (error.unused_tokens or [""])[0]
        return f"unknown command {name!r}; {near(name, COMMANDS)}there are {', '.join(COMMANDS)}"
    if isinstance(error, UnknownOptionError):
        name = error.token.keyword or error.token.value
        names = [name for argument in error.argument_collection if argument.parse for name in argument.names]
        return f"unknown option {name}; {near(name, names)}{more}"
    if isinstance(error, UnusedCliTokensError):
        return f"{' '.join(error.unused_tokens or [])} is too much for {chain}; {more}"
    if isinstance(error, MissingArgumentError) and error.argument is not None:
        needs = f"{error.keyword} needs a value" if error.keyword else f"{chain} needs {error.argument.name}"
        return f"{needs}; {more}"
    if isinstance(error, CoercionError) and error.argument is not None and error.token is not None:
        name, choices = error.argument.name, error.argument.get_choices(force=True)
        wanted = f"none of {', '.join(choices)}" if choices else f"no {getattr(error.target_type, '__name__', 'value')}"
        return f"{name} {error.token.value!r} is {wanted}; {near(error.token.value, choices or ())}{more}"
    return f"{' '.join(str(error).split()).rstrip('.')}; {more}"
