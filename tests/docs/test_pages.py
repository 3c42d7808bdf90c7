"""What the documentation says is so: its Python runs, its commands parse, its pages match the code."""

from __future__ import annotations

import copy
import importlib.util
import json
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from jsonschema import Draft202012Validator
from torch import nn

import eckart
from eckart import structures
from eckart.adapters.contract import ADAPTERS
from eckart.budget import ALLOCATIONS
from eckart.cli.command_line import COMMANDS, arguments_of, command_line
from eckart.compressors.contract import METHODS
from eckart.estimators.contract import ESTIMATORS
from eckart.jobs.compress.directory import compress_directory
from eckart.jobs.compress.recipe import Recipe
from eckart.jobs.texts import Texts
from eckart.register import FAMILIES, register_of
from eckart.report import schema
from eckart.statistics import Need
from eckart.structures import KINDS
from support.tiny import TEXT, save_tiny

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
CONTRIBUTING = ROOT / "CONTRIBUTING.md"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
GENERATED = ("reference/report.md", "reference/cli.md", *(f"papers/{family}.md" for family in FAMILIES))
NOT_SHOWN = {
    "__version__",
    "ADAPTERS",
    "METHODS",
    "PARAMETRIZATIONS",
    "KINDS",
    "Spec",
}  # tables and aliases, told of elsewhere
FOREIGN = {"--strict", "--check", "--no-deps", "--nuclear-norm"}  # options of other programs and of benchmarks
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.S | re.M)


def page_id(page: Path) -> str:
    return str(page.relative_to(ROOT))


every_page = pytest.mark.parametrize("page", PAGES, ids=page_id)


def blocks(page: Path, language: str) -> list[str]:
    return [body for name, body in FENCE.findall(page.read_text("utf-8")) if name == language]


def anchors(page: Path) -> set[str]:
    """What the headings of a page are called in its address."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text("utf-8")), re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands(page: Path) -> list[list[str]]:
    lines = "".join(blocks(page, "sh")).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("eckart ")]


def options() -> set[str]:
    app = command_line()
    found = {name for name in app if name.startswith("--")}
    for command in COMMANDS:
        for argument in arguments_of(app, command):
            found |= set(argument.names)
    return found


def load_script(path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, path.stem, module)
    spec.loader.exec_module(module)
    return module


def run(source: str, name: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What a block of Python defines."""
    # __future__ imports must come first, and classes need a module to be in.
    monkeypatch.setitem(sys.modules, name, ModuleType(name))
    space: dict[str, Any] = {"__name__": name}
    exec(compile(source, name, "exec", dont_inherit=True), space)
    return space


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with what the documentation takes for granted, in tiny: my-model, my-text.txt and smaller."""
    folder = tmp_path_factory.mktemp("documentation")
    save_tiny(folder / "my-model")
    (folder / "my-text.txt").write_text(TEXT * 20, encoding="utf-8")
    recipe = Recipe(method="svd", keep=0.7, of="linear-parameters", samples=2, length=32)
    texts = Texts(calibration=str(folder / "my-text.txt"), evaluation="")
    compress_directory(str(folder / "my-model"), folder / "smaller", recipe, texts, measure_speed=False)
    return folder


@pytest.fixture
def registers() -> Iterator[None]:
    """Leaves the registers as they were: examples add to them."""
    held: list[dict[str, Any]] = [KINDS, ALLOCATIONS, *(register_of(family)._cards for family in FAMILIES)]
    for family in FAMILIES:
        len(register_of(family))  # imports all papers
    before = [dict(entries) for entries in held]
    yield
    for entries, old in zip(held, before, strict=True):
        entries.clear()
        entries.update(old)


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=page_id)
@pytest.mark.usefixtures("registers")
def test_python_runs(page: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workplace)
    for i, source in enumerate(blocks(page, "python")):
        run(source, f"{page.stem}_{i}", monkeypatch)


@pytest.mark.usefixtures("registers")
def test_examples_of_papers_do_what_they_say(monkeypatch: pytest.MonkeyPatch) -> None:
    spaces = [run(source, f"example_{i}", monkeypatch) for i, source in enumerate(blocks(CONTRIBUTING, "python"))]
    named = {name: value for space in spaces for name, value in space.items()}
    x = torch.randn(64, 24, generator=torch.Generator().manual_seed(0))
    net = nn.Sequential(nn.Linear(24, 20)).eval()
    before = net(x)
    with named["half_batches"](net):
        assert torch.allclose(net(x), before, atol=1e-6)
    assert eckart.diagnose(net).rows[0]["entry_kurtosis"] > 1
    assert named["Outer"](torch.ones(2), torch.ones(3)).to_dense().shape == (2, 3)
    adapter = eckart.adapt(net, "row-scales", rank=4)
    assert torch.equal(net(x), before)
    assert sum(p.numel() for p in adapter.trainable_parameters()) == 4
    adapter.remove()
    thin = copy.deepcopy(net)
    made = eckart.reparametrize(thin, "thinned", keep=0.25)
    optimizer = torch.optim.SGD(thin.parameters(), lr=0.1)
    hooks = made.schedule(optimizer, 1)
    hooks.before_step()
    thin(x).square().mean().backward()
    hooks.after_backward()
    optimizer.step()
    hooks.after_step()
    made.finish()
    assert made.structures["0"].cost().parameters == 120
    compressed = eckart.compress(
        net, "row-scaled", keep=0.5, of="linear-parameters", allocation="in_turns", calibration=[x]
    )
    assert compressed.choice["0"] == 5  # 5 (24 + 20) numbers of the 240 that may be kept


@every_page
def test_commands_parse(page: Path) -> None:
    app = command_line()
    for tokens in commands(page):
        _, bound, _ = app.parse_args(tokens, exit_on_error=False, print_error=False)
        for asked in bound.arguments.values():
            name = getattr(asked, "method", "svd").partition(":")[0]
            assert name in {**METHODS, **ADAPTERS, **ESTIMATORS}


@every_page
def test_options_exist(page: Path) -> None:
    prose = FENCE.sub("", page.read_text("utf-8"))
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", re.sub(r"<!--.*?-->", "", prose, flags=re.S)))
    assert named <= options() | FOREIGN


@every_page
def test_links_lead_somewhere(page: Path) -> None:
    text = FENCE.sub("", page.read_text("utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        file = page.parent / name if name else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


@every_page
def test_images_are_small_and_have_words(page: Path) -> None:
    for words, target in re.findall(r"!\[([^]]*)\]\(([^)\s]+)\)", page.read_text("utf-8")):
        assert words
        assert (page.parent / target).stat().st_size < 150_000


@pytest.mark.parametrize("name", GENERATED)
def test_generated_page_is_up_to_date(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    generate = load_script(DOCS / "generate.py", monkeypatch)
    assert set(GENERATED) == set(generate.PAGES)
    assert (DOCS / name).read_text("utf-8") == generate.PAGES[name](), f"docs/{name} is out of date: run make docs"


def test_every_public_name_is_on_a_page_of_the_reference() -> None:
    pages = "\n".join(page.read_text("utf-8") for page in (DOCS / "reference").glob("*.md"))
    shown = set(re.findall(r"^::: (\S+)$", pages, re.M))
    public = {f"eckart.{name}" for name in set(eckart.__all__) - NOT_SHOWN}
    assert not public - shown
    ends = {name.rpartition(".")[2] for name in shown if name.startswith("eckart.structures.")}
    assert not set(structures.__all__) - NOT_SHOWN - ends


def test_what_the_reference_names_is_there_without_running_anything() -> None:
    pages = "\n".join(page.read_text("utf-8") for page in (DOCS / "reference").glob("*.md"))
    for name in re.findall(r"^::: (\S+)$", pages, re.M):
        module, _, last = name.rpartition(".")
        # What a package's `__getattr__` finds, the pages' maker does not, as it runs no code.
        held = vars(importlib.import_module(module))
        assert last in held or last in held.get("__all__", ()) or importlib.util.find_spec(name), name


@pytest.mark.parametrize("family", ["estimators", "kernels", "sketching"])
def test_every_paper_in_python_is_on_a_page_of_the_reference(family: str) -> None:
    pages = "\n".join(page.read_text("utf-8") for page in (DOCS / "reference").glob("*.md"))
    shown = set(re.findall(r"^::: (\S+)$", pages, re.M))
    assert not {card.entry.__module__ for card in register_of(family).values()} - shown


@pytest.mark.parametrize("family", FAMILIES)
def test_every_paper_has_its_section(family: str) -> None:
    page = (DOCS / "papers" / f"{family}.md").read_text("utf-8")
    assert re.findall(r"^## (\S+)$", page, re.M) == list(register_of(family))


def test_report_of_a_run_has_the_documented_fields(workplace: Path) -> None:
    report = json.loads((workplace / "smaller" / "report.json").read_text("utf-8"))
    assert not [error.message for error in Draft202012Validator(schema()).iter_errors(report)]


def test_navigation_is_complete() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text("utf-8").partition("\nnav:")[2]
    named = re.findall(r"[\w/-]+\.md", navigation)
    assert sorted(named) == sorted(page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md"))


def test_structures_are_all_explained() -> None:
    text = (DOCS / "learn" / "structures.md").read_text("utf-8")
    assert not [kind.__name__ for kind in KINDS.values() if f"`{kind.__name__}" not in text]


def test_statistics_are_all_explained() -> None:
    text = (DOCS / "reference" / "statistics.md").read_text("utf-8")
    assert not [need.value for need in Need if f"`{need.value}`" not in text]


def test_example_on_plain_pytorch(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    load_script(ROOT / "examples" / "plain_pytorch.py", monkeypatch).main()
    assert "bit for bit" in capsys.readouterr().out


def test_example_that_speaks(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["demo.py", str(workplace / "smaller"), "--prompt", "A matrix", "--tokens", "3"])
    load_script(ROOT / "examples" / "demo.py", monkeypatch).main()
    spoken = re.findall(r"^(original|compressed) +\(.*\): A matrix", capsys.readouterr().out, re.M)
    assert spoken == ["original", "compressed"]


def test_make_has_what_is_promised() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    promised = {name for page in PAGES for name in re.findall(r"\bmake (\w+)`", page.read_text("utf-8"))}
    assert promised <= set(re.findall(r"^(\w+):", makefile, re.M))
