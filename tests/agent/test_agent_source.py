"""Rules for the code that runs on the device, and how it is packed."""

from __future__ import annotations

import ast
import functools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from device_agents import agent
from device_agents.api import BenchProtocol, Measurement
from device_agents.packing import agent_bytes, pack_agent
from device_agents.runner import Device

if TYPE_CHECKING:
    from collections.abc import Callable

    from profiles.schema import DeviceProfile

FOLDER = Path(agent.__file__).parent
SOURCES = sorted(FOLDER.rglob("*.py"))
PYTHONS = ("3.9", "3.10", "3.11", "3.12", "3.13")
# LiteRT and its kin are imported by computed name.
BEYOND = {"runtimes": {"numpy", "onnxruntime"}, "packed": {"numpy"}}


def names(tree: ast.AST) -> set[str]:
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(str(node.module).split(".")[0])
    return found


def test_the_agent_starts_without_what_only_models_need() -> None:
    code = (
        "import sys; sys.modules.update(dict.fromkeys(sys.argv[1:]))\n"
        "from device_agents.agent import jobs, main; import pkgutil, importlib\n"
        "for job in pkgutil.iter_modules(jobs.__path__):\n"
        "    importlib.import_module(jobs.__name__ + '.' + job.name)"
    )
    subprocess.run(
        [sys.executable, "-c", code, "numpy", "onnxruntime"], cwd=FOLDER.parents[1], check=True
    )


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_agent_is_python_3_9_and_imports_nothing_of_ours(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 9))
    allowed = set(sys.stdlib_module_names) | BEYOND.get(path.parent.name, set())
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


@functools.cache
def interpreter(version: str) -> str:
    """Return a Python of this version that starts; empty when none is installed."""
    kept = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    found = [shutil.which(f"python{version}"), *kept.glob(f"{version}.*/bin/python{version}")]
    for path in filter(None, found):
        # A name on PATH may be a launcher of a version that is not chosen.
        done = subprocess.run([path, "-c", ""], capture_output=True, timeout=30, check=False)
        if done.returncode == 0:
            return str(path)
    return ""


@pytest.mark.parametrize("version", [version for version in PYTHONS if interpreter(version)])
def test_agent_runs_under(
    version: str, local: Callable[..., DeviceProfile], tmp_path: Path
) -> None:
    python = interpreter(version)
    model = tmp_path / "null.json"
    model.write_text(json.dumps({"edgewright_null": 1, "latency_ms": 1.0}))
    with Device.open(local(python=python, runtime="null")) as device:
        assert device.hello["python"].startswith(version + ".")
        found = device.measure(model, BenchProtocol.quick(), reference=model)
        crash = tmp_path / "crash.json"
        crash.write_text(json.dumps({"edgewright_null": 1, "crash_at": 3}))
        crashed = device.measure(crash, BenchProtocol.quick())
        assert device.sensors().uptime_s
        # As over a link that may be lost: the job is detached, under a supervisor.
        args = {"sha256": device._session.push(model), "runtime": "null", "invokes": 3}
        detached = {"id": "a" * 32, "rejoin_s": 5.0, "deadline_s": 30.0}
        use = device._session.call("memory", timeout_s=60, **args, **detached)
        assert use["peak_bytes"] >= use["loaded_bytes"] > 0
    assert isinstance(found, Measurement), found
    assert found.median_ms >= 1.0
    assert "SIGSEGV" in str(crashed)
