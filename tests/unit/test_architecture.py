"""The rules of the house that no import contract can say, read from the sources."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
PACKAGES = ("pipeline", "models", "profiles", "device_agents")
FILES = sorted(file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))
TORCH = {
    *("models.blocks", "models.build", "models.execute", "models.fake_quantized"),
    *("models.graph_module", "models.network", "models.straight_through", "models.supernet"),
    "models.torch_forms",
}
"""What of models/ may import torch: these and what is in them."""

CONTRACTS = {
    "device_agents/agent/jobs": "contract/test_agent_jobs.py",
    "device_agents/agent/runtimes": "contract/test_runtimes.py",
    "device_agents/transports": "contract/test_transport_contract.py",
    "pipeline/compress/passes": "contract/test_passes.py",
    "pipeline/data/sets": "contract/test_datasets.py",
    "pipeline/data/tasks": "contract/test_tasks.py",
    "pipeline/formats": "contract/test_formats.py",
    "pipeline/search/estimate": "contract/test_estimators.py",
    "pipeline/search/gradient": "contract/test_gradients.py",
    "pipeline/search/objective": "contract/test_objectives.py",
    "pipeline/search/recorded": "contract/test_recorded.py",
    "pipeline/search/space": "contract/test_spaces.py",
    "pipeline/search/strategy": "contract/test_strategies.py",
    "profiles/devices": "contract/test_profiles.py",
}
"""The tests that hold what all files of a folder promise."""


@cache
def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def module_of(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(file): file for file in FILES}


def room(module: str) -> str:
    """Return the room that a module is in: a folder of pipeline/ or device_agents/, or models/."""
    first, *rest = module.split(".")
    return f"{first}.{rest[0]}" if first in ("pipeline", "device_agents") and rest else first


def imported(node: ast.AST, file: Path) -> Iterator[str]:
    """Yield the dotted names that an import statement brings in, relative ones made absolute."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        package = module_of(file if file.name == "__init__.py" else file.parent / "__init__.py")
        above = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
        source = ".".join([*above, *filter(None, [node.module])])
        yield from (f"{source}.{alias.name}" for alias in node.names)


def at_import(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield the statements that importing a module runs, but for those only type checkers see."""
    for node in body:
        yield node
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from at_import(node.orelse)
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for part in ("body", "orelse", "finalbody"):
                yield from at_import(getattr(node, part, []))


def known(name: str) -> str | None:
    """Return the module of ours that a dotted name is, or is in."""
    return name if name in MODULES else name.rpartition(".")[0] if "." in name else None


@cache
def needs_torch(module: str) -> tuple[str, ...]:
    """Return by which modules importing one comes to import torch; empty if it does not."""
    waiting, seen = [(module,)], {module}
    while waiting:
        way = waiting.pop()
        file = MODULES[way[-1]]
        names = [n for node in at_import(parsed(file).body) for n in imported(node, file)]
        if any(name.split(".")[0] == "torch" for name in names):
            return way
        ours = {part for name in names for part in with_packages(known(name))}
        waiting += [(*way, name) for name in ours - seen]
        seen |= ours
    return ()


def with_packages(module: str | None) -> list[str]:
    """Return a module and the packages that importing it imports."""
    parts = (module or "").split(".")
    every = [".".join(parts[: end + 1]) for end in range(len(parts))]
    return [name for name in every if name in MODULES]


def test_no_file_of_the_pipeline_is_outside_its_rooms() -> None:
    loose = {path.name for path in (ROOT / "pipeline").iterdir() if path.is_file()}
    assert loose == {"__init__.py", "py.typed"}


def test_no_module_imports_what_is_private_to_another_room() -> None:
    found = []
    for file in FILES:
        for node in ast.walk(parsed(file)):
            for name in imported(node, file):
                parts = name.split(".")
                private = [at for at, part in enumerate(parts) if re.match("_(?!_)", part)]
                if private and room(".".join(parts[: private[0]])) != room(module_of(file)):
                    found.append(f"{file.relative_to(ROOT)}:{node.lineno}: {name}")
    assert not found


@pytest.mark.parametrize("module", [name for name in MODULES if name.split(".")[0] == "models"])
def test_what_a_network_is_can_be_said_without_torch(module: str) -> None:
    allowed = any(module == name or module.startswith(f"{name}.") for name in TORCH)
    assert bool(needs_torch(module)) <= allowed, " -> ".join(needs_torch(module))


def listed_folders() -> set[str]:
    """Return the folders whose files the program finds by listing, as its sources say."""
    found = set()
    for file in FILES:
        for node in ast.walk(parsed(file)):
            if not isinstance(node, ast.Call):
                continue
            what = ast.unparse(node.func).rpartition(".")[2]
            if what == "PluginFolder":
                found.add(ast.literal_eval(node.args[0]).replace(".", "/"))
            elif what == "iter_modules" and ast.unparse(node.args[0]) == "__path__":
                found.add(str(file.parent.relative_to(ROOT)))
    return found


def test_every_listed_folder_is_documented_and_has_a_contract() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    table = page.partition("## Adding something")[2].partition("## ")[0]
    folders = listed_folders()
    assert len(folders) > 8
    for folder in folders:
        assert f"`{folder}/`" in table, f"docs/architecture.md does not say how to add to {folder}"
        assert folder in CONTRACTS, f"{folder} has no contract tests"
    for folder, suite in CONTRACTS.items():
        assert (ROOT / folder).is_dir(), folder
        assert (ROOT / "tests" / suite).is_file(), suite
