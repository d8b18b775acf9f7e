"""Rules for the code that runs on the device, and how it is packed."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

from device_agents import agent
from device_agents.packing import agent_bytes, pack_agent

FOLDER = Path(agent.__file__).parent
SOURCES = sorted(FOLDER.rglob("*.py"))
RUNTIMES = {"numpy", "onnxruntime"}  # LiteRT and its kin are imported by computed name


def names(tree: ast.AST) -> set[str]:
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(str(node.module).split(".")[0])
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_agent_is_python_3_9_and_imports_nothing_of_ours(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 9))
    allowed = set(sys.stdlib_module_names)
    if path.parent.name == "runtimes":
        allowed |= RUNTIMES
    assert names(tree) <= allowed - {"pickle", "marshal", "tomllib"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_nothing_that_arrives_is_executed(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    called = {
        node.func.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert not called & {"exec", "eval", "compile", "__import__"}
    assert "shell=True" not in path.read_text(encoding="utf-8")


def test_packing_gives_the_same_bytes_twice(tmp_path: Path) -> None:
    first, second = pack_agent(tmp_path / "one"), pack_agent(tmp_path / "two")
    assert first.path.read_bytes() == second.path.read_bytes() == agent_bytes()
    assert first.file_name == f"edgewright-agent-{first.sha256[:12]}.pyz"
    assert [path.name for path in first.path.parent.iterdir()] == [first.file_name]


def test_damaged_cache_is_written_again(tmp_path: Path) -> None:
    packed = pack_agent(tmp_path)
    packed.path.write_bytes(b"")
    assert pack_agent(tmp_path).path.read_bytes() == agent_bytes()
