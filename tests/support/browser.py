"""A page as a parser and as a headless browser see it."""

from __future__ import annotations

import atexit
import fcntl
import json
import os
import re
import select
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

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
    "--remote-debugging-pipe",
]
in_browser = pytest.mark.skipif(BROWSER is None, reason="no chromium, chromium-browser or google-chrome on PATH")

AS_THREE_AND_FOUR = """
import os, sys
os.dup2(int(sys.argv[1]), 3), os.dup2(int(sys.argv[2]), 4)
os.execv(sys.argv[3], sys.argv[3:])
"""


class Browser:
    """A headless browser that answers the DevTools protocol over two pipes: started once, as a start takes a second."""

    def __init__(self, path: str) -> None:
        self.profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        its_in, to = os.pipe()
        back, its_out = os.pipe()
        # It reads descriptor 3 and writes 4; what lies there in between is moved out of the way.
        its_in, its_out = fcntl.fcntl(its_in, fcntl.F_DUPFD, 10), fcntl.fcntl(its_out, fcntl.F_DUPFD, 10)
        command = [sys.executable, "-c", AS_THREE_AND_FOUR, str(its_in), str(its_out), path, *FLAGS]
        self.process = subprocess.Popen(
            [*command, f"--user-data-dir={self.profile.name}"],
            pass_fds=(its_in, its_out),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(its_in)
        os.close(its_out)
        self.back, self.to = os.fdopen(back, "rb"), os.fdopen(to, "wb")
        self.rest, self.number = b"", 0
        self.waiting: list[dict[str, Any]] = []

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.profile.cleanup()

    def heard(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The first message that is wanted; the others wait."""
        while True:
            for index, message in enumerate(self.waiting):
                if wanted(message):
                    return self.waiting.pop(index)
            ready, _, _ = select.select([self.back], [], [], 180)
            more = os.read(self.back.fileno(), 1 << 20) if ready else b""
            if not more:
                raise RuntimeError(f"the browser is silent; its process: {self.process.poll()}")
            *whole, self.rest = (self.rest + more).split(b"\0")
            self.waiting += map(json.loads, whole)

    def ask(self, method: str, session: str | None = None, **parameters: object) -> dict[str, Any]:
        """What a command of the protocol returns."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        self.to.write(json.dumps(message | ({"sessionId": session} if session else {})).encode() + b"\0")
        self.to.flush()
        answer = self.heard(lambda message: message.get("id") == self.number)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        found: dict[str, Any] = answer["result"]
        return found

    def document(self, address: str, width: int) -> str:
        """The document at an address once it is loaded, in a profile of its own that forgets it afterwards."""
        context = self.ask("Target.createBrowserContext")["browserContextId"]
        target = self.ask("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        shape = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.ask("Emulation.setDeviceMetricsOverride", session, **shape)
        self.ask("Page.enable", session)
        self.ask("Page.setLifecycleEventsEnabled", session, enabled=True)
        load = {"name": "load", "loaderId": self.ask("Page.navigate", session, url=address)["loaderId"]}
        self.heard(lambda message: load.items() <= message.get("params", {}).items())
        whole = "new XMLSerializer().serializeToString(document.doctype) + document.documentElement.outerHTML"
        text: str = self.ask("Runtime.evaluate", session, expression=whole)["result"]["value"]
        self.ask("Target.disposeBrowserContext", browserContextId=context)
        self.waiting.clear()
        return text


@cache
def _browser() -> Browser:
    assert BROWSER is not None
    started = Browser(BROWSER)
    atexit.register(started.close)
    return started


def drawn(page: str, directory: Path, address: str = "", width: int = 1280) -> str:
    """The document after its script has run, serialised by a headless browser; `address` is what follows its name."""
    file = directory / "report.html"
    file.write_text(page, encoding="utf-8")
    return _browser().document(file.as_uri() + address, width)


def asked(page: str, script: str, directory: Path, address: str = "", width: int = 1280) -> dict[str, str | None]:
    """The attributes of the root of a page on which a script of the test has run too, which its policy would forbid."""
    page = re.sub("<meta http-equiv[^>]*>", "", page).replace("</body>", f"<script>{script}</script></body>")
    return dict(Page(drawn(page, directory, address, width)).elements)["html"]
