"""`eckart export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from eckart.cli import options as o
from eckart.cli.consoles import console
from eckart.cli.options import Out
from eckart.errors import Refused
from eckart.jobs.exports.contract import Lossy, formats, writer

FORMATS = formats()
if TYPE_CHECKING:
    Name = str
else:
    Name = Literal[tuple(FORMATS)]

LOSSY = 3
"""Exit status where something was written that does not do all that was exported."""


def export(
    model: Annotated[str, Parameter(help="a directory that eckart wrote, a GGUF file, or smollm2")],
    /,
    *,
    to: Annotated[
        Name,
        Parameter(help="; ".join(map(": ".join, FORMATS.items())), group=o.WHAT),
    ],
    rank: Annotated[
        int | None,
        Parameter(
            help="of the LoRA that an adapter becomes, at most: where that loses something, the relative error is "
            f"printed and the exit status is {LOSSY} (default: all that it takes to lose nothing)",
            group=o.WHAT,
        ),
    ] = None,
    out: Out,
) -> int:
    """Turns a compressed model, a GGUF file, or an adapter, into another format."""
    from eckart.jobs.adapt.files import ADAPTER
    from eckart.jobs.adapt.load import is_adapter
    from eckart.jobs.adapt.peft import EXACT, export_adapter

    status = 0
    if is_adapter(model) and to not in ("merged", "peft"):
        raise Refused(
            f"{model} is an adapter, and no model: export it --to merged first, and what that wrote --to {to}"
        )
    if to == "peft" and (Path(model) / ADAPTER).is_file():
        errors = export_adapter(model, out, rank)
        worst = max(errors, key=errors.__getitem__)
        status = LOSSY if errors[worst] > EXACT else 0
        lost = f"relative error of the conversion: at most {errors[worst]:.2e} ({worst})"
        if status:
            lost += f"; leave out --rank to lose nothing (exit status {LOSSY})"
        console(stderr=True).print(lost, highlight=False, soft_wrap=True)
    else:
        if rank is not None:
            raise Refused(f"--rank {rank} is of the LoRA that an adapter of eckart becomes --to peft: leave it out")
        said = writer(to)(model, out)
        status = LOSSY if isinstance(said, Lossy) else 0
        if said:
            said += f" (exit status {LOSSY})" if status else ""
            console(stderr=True).print(said, highlight=False, soft_wrap=True)
    console(stderr=True).print(f"wrote {out}", highlight=False, soft_wrap=True)
    return status
