"""Results as a prompt and a notebook show them: a line, and a short table, whatever large things they hold."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from eckart.report.types import Coverage


@dataclass(frozen=True)
class Glance:
    """What is worth knowing of a result at once.

    Attributes:
        title: what it is.
        rows: what is known of it: a name, and values.
        headings: over the values; none where a single one needs none.
        notes: sentences below.
    """

    title: str
    rows: Sequence[Sequence[str]]
    headings: Sequence[str] = ()
    notes: Sequence[str] = ()

    def line(self) -> str:
        """In one line of text."""
        rows = (f"{name} {' -> '.join(filter(None, values[:2]))}" for name, *values in self.rows)
        return f"<{'; '.join([self.title, *rows])}>"

    def html(self) -> str:
        """As a table of HTML; its texts are escaped and it has no style of its own."""

        def row(cells: Sequence[str], tag: str = "td") -> str:
            first, *others = (escape(cell) for cell in cells)
            return f"<tr><th>{first}</th>{''.join(f'<{tag}>{cell}</{tag}>' for cell in others)}</tr>"

        head = f"<thead>{row(['', *self.headings], 'th')}</thead>" if self.headings else ""
        notes = "".join(f"<p>{escape(note)}</p>" for note in self.notes)
        body = "".join(map(row, self.rows))
        return f"<table><caption>{escape(self.title)}</caption>{head}<tbody>{body}</tbody></table>{notes}"


class Shown(ABC):
    """A result that says in short what it is; its dataclass is made with `repr=False`."""

    @abstractmethod
    def glance(self) -> Glance:
        """What is worth knowing of it at once."""

    def __repr__(self) -> str:
        return self.glance().line()

    def _repr_html_(self) -> str:
        return self.glance().html()


def noted(warnings: Sequence[str], coverage: Coverage | None = None, most: int = 3) -> list[str]:
    """What was looked at, the first warnings, and how many more there are."""
    sentence = [] if coverage is None or coverage.sentence in warnings else [coverage.sentence]
    more = len(warnings) - most
    shown = [f"warning: {text}" for text in warnings[:most]]
    return sentence + shown + [f"and {more} more warnings"] * (more > 0)
