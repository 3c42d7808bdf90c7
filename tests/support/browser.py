"""A page as a parser and as a headless browser see it."""

from __future__ import annotations

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest


class Page(HTMLParser):
    """Collects the elements of a page with the text of scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {"script": [], "style": []}
        self._inside: str | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag in self.texts:
            self._inside = tag
            self.texts[tag].append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = None

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.texts[self._inside][-1] += data


BROWSER = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
]
in_browser = pytest.mark.skipif(BROWSER is None, reason="no chromium, chromium-browser or google-chrome on PATH")


def drawn(page: str, directory: Path, address: str = "", width: int = 1280) -> str:
    """The document after its script has run, serialised by a headless browser; `address` is what follows its name."""
    assert BROWSER is not None
    file = directory / "report.html"
    file.write_text(page, encoding="utf-8")
    # The browser takes a quarter of its time to make a profile, in which pages keep nothing: one for all tests.
    own = [f"--user-data-dir={directory.parent / 'profile-of-the-browser'}", f"--window-size={width},900"]
    command = [BROWSER, *FLAGS, *own, "--dump-dom", file.as_uri() + address]
    return subprocess.run(command, capture_output=True, text=True, timeout=180, check=True).stdout


def asked(page: str, script: str, directory: Path, address: str = "", width: int = 1280) -> dict[str, str | None]:
    """The attributes of the root of a page on which a script of the test has run too, which its policy would forbid."""
    page = re.sub("<meta http-equiv[^>]*>", "", page).replace("</body>", f"<script>{script}</script></body>")
    return dict(Page(drawn(page, directory, address, width)).elements)["html"]
