"""What may not occur in the package: imports upwards, code out of files, dependencies out of their rooms."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from pkgutil import iter_modules

import pytest

import eckart

ROOT = Path(__file__).parents[1]
PACKAGE = Path(eckart.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
LONGEST = 300

UNSAFE_MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
UNSAFE_CALLS = {"torch.load", "eval", "exec"}
ROOMS = {
    "rich": ["cli/*"],
    "transformers": [
        "models/transformers*.py",
        "jobs/adapt/trainer_callback.py",
        "jobs/reparametrize/trainer_callback.py",
        "jobs/learning/transformers_trackers.py",
    ],
    "sklearn": ["scikit/door.py", "estimators/*", "kernels/*"],
}
"""Where a dependency may be imported, files of the package by pattern."""

LINT = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(sys.argv[1], no_cache=True))"


def linted(source: Path) -> subprocess.CompletedProcess[str]:
    """What import-linter says of the package in a directory, by the contracts of `pyproject.toml`."""
    command = [sys.executable, "-c", LINT, str(ROOT / "pyproject.toml")]
    environment = {**os.environ, "PYTHONPATH": str(source), "COLUMNS": "200"}
    return subprocess.run(command, capture_output=True, text=True, cwd=source, env=environment)


def test_imports_run_downwards() -> None:
    result = linted(PACKAGE.parent)
    assert result.returncode == 0, result.stdout + result.stderr


FORBIDDEN = {
    "structures/dense.py": ("eckart.models.sites", "Imports run downwards"),
    "budget/__init__.py": ("eckart.structures.base", "Imports run downwards"),
    "models/sites.py": ("eckart.compressors.svd", "Imports run downwards"),
    "compressors/svd.py": ("eckart.adapters.lora", "A family of papers knows no other"),
    "adapters/lora.py": ("eckart.models.sites", "Methods know no model"),
    "jobs/fit.py": ("eckart.cli", "Imports run downwards"),
}
"""An import that may not be, and the contract that says so, by the file of the package that a copy has it in."""


def test_the_contracts_bite_on_imports_inside_functions(tmp_path: Path) -> None:
    shutil.copytree(PACKAGE, tmp_path / "eckart", ignore=shutil.ignore_patterns("__pycache__"))
    for file, (imported, _) in FORBIDDEN.items():
        with (tmp_path / "eckart" / file).open("a", encoding="utf-8") as opened:
            opened.write(f"\n\ndef late() -> None:\n    import {imported}\n")
    result = linted(tmp_path)
    assert result.returncode == 1
    contracts = result.stdout.split("Broken contracts")[1].split("\n----")
    for file, (imported, contract) in FORBIDDEN.items():
        importer = f"eckart.{file.removesuffix('.py').removesuffix('/__init__').replace('/', '.')}"
        assert f"{contract} BROKEN" in result.stdout
        assert any(f"{importer} -> {imported}" in text for text in contracts), (importer, imported)


def test_the_contracts_bite_on_a_module_without_a_floor(tmp_path: Path) -> None:
    shutil.copytree(PACKAGE, tmp_path / "eckart", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "eckart" / "newcomer.py").write_text('"""New."""\n')
    result = linted(tmp_path)
    assert result.returncode == 1
    assert "newcomer" in result.stdout


def parse(file: Path) -> ast.Module:
    return ast.parse(file.read_text("utf-8"), str(file))


@cache
def trees() -> dict[str, ast.Module]:
    return {str(file.relative_to(PACKAGE)): parse(file) for file in FILES}


def imported(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and name of every module that is imported, at the top or inside a function."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.lineno, node.module or ""


def unsafe(tree: ast.Module) -> Iterator[str]:
    for line, name in imported(tree):
        if name.split(".")[0] in UNSAFE_MODULES:
            yield f"line {line} imports {name}: nothing here reads or writes pickles"
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


def test_nothing_runs_code_from_a_file_or_picks_a_device() -> None:
    broken = [f"{file}, {text}" for file, tree in trees().items() for text in unsafe(tree)]
    assert not broken, "\n".join(broken)


@pytest.mark.parametrize(
    "source",
    [
        *("import pickle", "def f():\n    from joblib import load", "torch.load(f)", "eval(s)", "w.cuda()"),
        *("a.from_pretrained(d, trust_remote_code=True)", "f(trust_remote_code=x)"),
    ],
)
def test_unsafe_code_is_seen(source: str) -> None:
    assert list(unsafe(ast.parse(source)))


@pytest.mark.parametrize("dependency", ROOMS)
def test_a_dependency_stays_in_its_room(dependency: str) -> None:
    users = {
        file
        for file, tree in trees().items()
        if any(name.split(".")[0] == dependency for _, name in imported(tree))
        and not any(fnmatch(file, room) for room in ROOMS[dependency])
    }
    assert not users, f"{dependency} is imported in {users}"


def test_no_public_name_is_that_of_a_module() -> None:
    modules = {module.name for module in iter_modules([str(PACKAGE)])}
    assert not modules & set(eckart.__all__)


def test_docstrings_say_something() -> None:
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = [(file, node) for file, tree in trees().items() for node in ast.walk(tree) if isinstance(node, documented)]
    texts = [(file, getattr(node, "name", "module"), ast.get_docstring(node)) for file, node in nodes]
    empty = [f"{file}: {name}" for file, name, text in texts if text is not None and len(text.strip(". \n")) < 4]
    assert not empty, f"a docstring without words: {empty}"
    silent = [file for file, name, text in texts if name == "module" and not text and file != "_version.py"]
    assert not silent, f"a file that does not say what it is: {silent}"


def test_files_are_short() -> None:
    code = [file for file in PACKAGE.rglob("*") if file.suffix in (".py", ".js", ".css", ".html")]
    lengths = {str(file.relative_to(PACKAGE)): len(file.read_text("utf-8").splitlines()) for file in code}
    long = {name: length for name, length in lengths.items() if length > LONGEST}
    assert not long, f"over {LONGEST} lines, which asks to be two files: {long}"
