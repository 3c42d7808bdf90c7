"""The import contract: who may know whom, and what may not occur in the package at all."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src"
FILES = sorted((SOURCE / "eckart").rglob("*.py"))
LONGEST = 300

# What each layer may import of the package besides itself; a module that is in no layer is a job.
ALLOWED = {
    "_version": set[str](),
    "tensors": set[str](),
    "heads": set[str](),
    "structures": set[str](),
    "metrics": {"structures"},
    "linalg": {"metrics", "structures"},
    "mixture": set[str](),
    "statistics": {"structures", "tensors"},
    "methods": {"structures", "linalg", "metrics", "statistics", "heads", "mixture"},
    "budget": set[str](),
    "models": {"structures", "linalg", "metrics", "statistics", "heads", "mixture", "tensors", "_version"},
    "report": {"_version"},
    "streams": {"models", "statistics"},
    "sequential": {"streams", "plan", "models", "statistics", "structures"},
    "heal": {"streams", "models", "statistics", "structures"},
}
FRONT = {"", "cli", "__main__"}  # "" is the package itself
UNSAFE_MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
UNSAFE_CALLS = {"torch.load", "eval", "exec"}


@dataclass(frozen=True)
class Import:
    """`importer` (a dotted module) imports `imported`, on line `line`; at module level or inside a function."""

    importer: str
    imported: str
    line: int
    top: bool


def module_name(file: Path) -> str:
    parts = file.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(file) for file in FILES}


def imports(tree: ast.Module, importer: str, package: bool = False) -> Iterator[Import]:
    """The imports of a module; `from a import b` counts as `a.b` where that is a module, else as `a`."""
    functions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
    inside = {child for node in ast.walk(tree) if isinstance(node, functions) for child in ast.walk(node)}
    for node in ast.walk(tree):
        top = node not in inside
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(importer, alias.name, node.lineno, top)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = importer.split(".") if package else importer.split(".")[:-1]
                parts = parts[: len(parts) - node.level + 1]
                base = ".".join([*parts, base] if base else parts)
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                yield Import(importer, inner if inner in MODULES else base, node.lineno, top)


def layer(module: str) -> str:
    """`methods` for `eckart.methods.compress.svd`, "" for the package itself."""
    return ".".join(module.split(".")[1:2])


def complaints(found: Import) -> Iterator[str]:
    where = f"{found.importer}, line {found.line}, imports {found.imported}"
    if found.imported.split(".")[0] in UNSAFE_MODULES:
        yield f"{where}: nothing here reads or writes pickles"
    if found.imported.split(".")[0] != "eckart":
        return
    source, target = layer(found.importer), layer(found.imported)
    if target in FRONT and source not in FRONT:
        yield f"{where}: nothing imports the command line or the package's front"
    elif source in ALLOWED and target not in ALLOWED[source] | {source}:
        yield f"{where}: {source} may import only {', '.join(sorted(ALLOWED[source])) or 'itself'}"


def unsafe(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        if called in UNSAFE_CALLS:
            yield f"line {node.lineno} calls {called}, which can run code from a file"
        if called.endswith(".cuda"):
            yield f"line {node.lineno} calls {called}; the device is the tensor's or the user's"
        for keyword in node.keywords:
            allowed = isinstance(keyword.value, ast.Constant) and not keyword.value.value
            if keyword.arg == "trust_remote_code" and not allowed:
                yield f"line {node.lineno} passes trust_remote_code={ast.unparse(keyword.value)}"


def cycles(edges: dict[str, set[str]]) -> list[str]:
    """The import cycles a depth-first search meets, as `a -> b -> a`."""
    done: set[str] = set()
    found: list[str] = []

    def visit(module: str, path: list[str]) -> None:
        if module in path:
            found.append(" -> ".join([*path[path.index(module) :], module]))
        elif module not in done:
            for imported in sorted(edges.get(module, ())):
                visit(imported, [*path, module])
            done.add(module)

    for module in sorted(edges):
        visit(module, [])
    return found


def parse(file: Path) -> ast.Module:
    return ast.parse(file.read_text("utf-8"), str(file))


def imports_of(file: Path) -> list[Import]:
    return list(imports(parse(file), module_name(file), file.name == "__init__.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: module_name(file))
def test_layer(file: Path) -> None:
    broken = [text for found in imports_of(file) for text in complaints(found)]
    assert not broken, "\n".join(broken)


@pytest.mark.parametrize("file", FILES, ids=lambda file: module_name(file))
def test_safe(file: Path) -> None:
    broken = list(unsafe(parse(file)))
    assert not broken, f"{file}: " + "\n".join(broken)


def test_no_import_cycles() -> None:
    edges: dict[str, set[str]] = {}
    for file in FILES:
        for found in imports_of(file):
            # A package's __init__ gathers what is inside: only imports of other modules by name are edges.
            if found.top and found.imported in MODULES:
                edges.setdefault(found.importer, set()).add(found.imported)
    assert not cycles(edges)


def test_files_are_short() -> None:
    code = [f for f in (SOURCE / "eckart").rglob("*") if f.suffix in (".py", ".js", ".css", ".html")]
    lengths = {str(f.relative_to(SOURCE)): len(f.read_text("utf-8").splitlines()) for f in code}
    long = {name: length for name, length in lengths.items() if length > LONGEST}
    assert not long, f"over {LONGEST} lines, which asks to be two files: {long}"


@pytest.mark.parametrize(
    ("importer", "source"),
    [
        ("eckart.structures.x", "from eckart.models import sites"),
        ("eckart.structures.x", "import eckart.statistics.needs"),
        ("eckart.structures.x", "from ..methods import registry"),
        ("eckart.statistics.x", "def f():\n    from eckart.metrics import Metric"),
        ("eckart.methods.compress.x", "from eckart.budget import allocate"),
        ("eckart.budget.x", "from eckart.structures import Cost"),
        ("eckart.models.x", "from eckart import methods"),
        ("eckart.models.x", "from eckart.compress import run"),
        ("eckart.streams", "from eckart.plan import Plan"),
        ("eckart.heal", "from eckart.sequential import refit"),
        ("eckart.heal", "from eckart.methods import find"),
        ("eckart.job", "from eckart.cli import main"),
        ("eckart.job", "import eckart"),
        ("eckart.job", "import pickle"),
    ],
)
def test_contract_bites_on_imports(importer: str, source: str) -> None:
    assert [text for found in imports(ast.parse(source), importer) for text in complaints(found)]


@pytest.mark.parametrize(
    "source",
    ["torch.load(f)", "a.from_pretrained(d, trust_remote_code=True)", "f(trust_remote_code=x)", "w.cuda()", "eval(s)"],
)
def test_contract_bites_on_calls(source: str) -> None:
    assert list(unsafe(ast.parse(source)))


def test_contract_bites_on_cycles() -> None:
    assert cycles({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b -> c -> b"]
    assert not cycles({"a": {"b", "c"}, "b": {"c"}})
