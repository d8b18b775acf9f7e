"""Every command that README and docs show is run here, in the order of the pages.

The recipe is the real one with a smaller budget; everything else is as a reader would type it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests import own_model_page

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
OWN = {own_model_page.PAGE}
"""Pages whose commands a test of their own runs, since they need files that a reader has."""
PAGES = [ROOT / "README.md", *sorted(set((ROOT / "docs").rglob("*.md")) - OWN)]
BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
SMALLER = {
    "candidates = 48": "candidates = 6",
    "batch = 12": "batch = 3",
    "finalists = 4": "finalists = 1",
    "epochs = 16": "epochs = 5",
    "widths = [0.35, 0.5]": "widths = [0.35]",
    "latency_ratio = 0.55": "latency_ratio = 4.0",
    "accuracy_tolerance = 0.005": "accuracy_tolerance = 1.0",
}
QUICKER = {"scripts/bench_": " --quick", "lut build": " --networks 8", "lut check": " --networks 2"}
THIS_VERY_RUN = "scripts/test"


def commands() -> list[tuple[str, str]]:
    """Return (page, command) of every sh block, continued lines joined."""
    found = []
    for page in PAGES:
        for block in BLOCK.findall(page.read_text()):
            lines = block.replace("\\\n", " ").splitlines()
            found += [(page.name, line.strip()) for line in lines if line.strip()]
    return found


def workplace(folder: Path) -> None:
    """Make a checkout in which commands take seconds: this one, with a smaller recipe."""
    for name in ("scripts", "setup.cfg", "pyproject.toml", "README.md"):
        (folder / name).symlink_to(ROOT / name)
    (folder / ".venv").symlink_to(sys.prefix)
    (folder / "recipes").mkdir()
    recipe = (ROOT / "recipes" / "digits.toml").read_text()
    for usual, smaller in SMALLER.items():
        assert usual in recipe
        recipe = recipe.replace(usual, smaller)
    recipe += '\n[device]\nprotocol = "quick"\n'
    tomllib.loads(recipe)
    (folder / "recipes" / "digits.toml").write_text(recipe)


def test_every_command_of_the_pages_runs(tmp_path: Path) -> None:
    place = tmp_path / "checkout"
    place.mkdir()
    workplace(place)
    config = tmp_path / "config" / "devices"
    config.mkdir(parents=True)
    environment = {
        **os.environ,
        "EDGEWRIGHT_CONFIG": str(config.parent),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "HOME": str(tmp_path),
        "OMP_NUM_THREADS": "1",
    }
    if not (Path(sys.prefix) / "edgewright-environment").is_file():
        pytest.skip("this Python was not set up by scripts/environment")
    ran = 0
    for page, command in commands():
        if command.startswith((THIS_VERY_RUN, "git clone", "cd ")):
            continue
        quicker = next((more for known, more in QUICKER.items() if known in command), "")
        done = subprocess.run(
            ["bash", "-c", command + quicker],
            cwd=place,
            env=environment,
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        assert done.returncode == 0, f"{page}: {command}\n{done.stdout}\n{done.stderr}"
        ran += 1
    assert ran >= 10
    shutil.rmtree(place / ".edgewright")
