"""The page docs/bring_your_own_model.md, whose commands are run as a reader would type them.

Its reader has a device `pi4`, a trained module, files of other programs and a folder of pictures.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = Path(__file__).parents[1] / "docs" / "bring_your_own_model.md"
_BLOCK = re.compile(r"^```(sh|python|toml)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"^# (\S+)\n")


def blocks(kind: str) -> list[str]:
    return [text for found, text in _BLOCK.findall(PAGE.read_text()) if found == kind]


def commands() -> list[list[str]]:
    """Return the words of every command of the page, in order."""
    lines = "\n".join(blocks("sh")).replace("\\\n", " ").splitlines()
    return [shlex.split(line) for line in lines if line.strip()]


def write_files(place: Path) -> None:
    """Write what the page shows as files, and what its reader is said to have."""
    for text in (*blocks("python"), *blocks("toml")):
        named = _FILE.match(text)
        assert named is not None
        (place / named[1]).write_text(text)
    for part, each in (("train", 20), ("val", 6), ("test", 6)):
        for number, (name, pixels) in enumerate(_paintings(part, each)):
            path = place / "pictures" / part / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)


def _paintings(part: str, each: int) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    rng = np.random.default_rng(len(part))
    for channel, name in enumerate(("a-red", "b-green", "c-blue")):
        for _ in range(each):
            pixels = rng.integers(0, 160, (32, 24, 3), np.uint8)
            pixels[..., channel] += 80
            yield name, pixels


def train(place: Path) -> Any:
    """Train the page's module until it tells the colours; return it."""
    import runpy

    import torch

    torch.manual_seed(0)
    net = runpy.run_path(str(place / "net.py"))["build"]()
    pairs = list(_paintings("train", 20))
    images = torch.from_numpy(np.stack([pixels for _, pixels in pairs])).permute(0, 3, 1, 2) / 255
    labels = torch.from_numpy(np.unique([name for name, _ in pairs], return_inverse=True)[1])
    optimizer = torch.optim.Adam(net.parameters(), 0.05)
    for _ in range(60):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(images), labels).backward()
        optimizer.step()
    net.eval()
    assert (net(images).argmax(1) == labels).float().mean() > 0.95
    return net


def save_keras(place: Path) -> None:
    """Save a small network of Keras; its weights are random."""
    import keras

    inputs = keras.Input((32, 24, 3), batch_size=1)
    x = keras.layers.Conv2D(8, 3, padding="same", activation="relu")(inputs)
    x = keras.layers.GlobalAveragePooling2D()(x)
    with warnings.catch_warnings(action="ignore"):  # Keras's own, of numpy
        keras.Model(inputs, keras.layers.Dense(3)(x)).save(place / "net.keras")


def walk(place: Path) -> dict[str, str]:
    """Run all commands of the page in an empty folder whose `config` has the device.

    Returns what each printed, by its first two words.
    """
    write_files(place)
    import torch

    net = train(place)
    torch.save(net.state_dict(), place / "net.pt")
    program = torch.export.export(net, (torch.zeros(1, 3, 32, 24),))
    torch.export.save(program, place / "net.pt2")
    save_keras(place)
    # The other files that a reader has come from other programs; here they come from the module.
    build = ("net.py:build", "--weights", "net.pt", "--input-shape", "1x3x32x24")
    for suffix in ("onnx", "tflite"):
        _edgewright(place, "export", *build, "--format", suffix, "-o", "theirs")
        (place / "theirs" / f"build-float32.{suffix}").rename(place / f"net.{suffix}")
    said = {}
    for name, *words in commands():
        assert name == "edgewright"
        said[" ".join(words[:2])] = _edgewright(place, *words)
    assert len(said) >= 10
    for made in ("build", "net"):
        assert (place / "made" / f"{made}-float32.tflite").is_file()
    float_file, int8 = (place / "made" / n for n in ("build-float32.tflite", "net-int8.tflite"))
    assert int8.stat().st_size < float_file.stat().st_size
    assert "is in use" in said["run own.toml"]
    fed = ("--data", "pictures", "--mean", "0", "--scale", "0.00392157", "--json")
    scores = json.loads(_edgewright(place, "verify", str(float_file), str(int8), *fed))["scores"]
    assert scores["second"] >= scores["first"] - 0.1 > 0.7
    return said


def _edgewright(place: Path, *words: str) -> str:
    environment = {
        **os.environ,
        "EDGEWRIGHT_CONFIG": str(place / "config"),
        "XDG_STATE_HOME": str(place / "state"),
        "PYTHONPATH": str(PAGE.parents[1]),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.cli.main", *words],
        cwd=place,
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
    return done.stdout
