"""Damaged model files end in a sentence, and a runtime that crashes ends alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from device_agents.errors import ConfigError
from pipeline.formats.apart import run_apart
from pipeline.formats.files import run_file
from tests.tiny_models import onnx_conv, tflite_conv, with_custom_op

if TYPE_CHECKING:
    from collections.abc import Callable

IMAGES = np.zeros((2, 3, 16, 16), np.float32)


@pytest.mark.parametrize(
    ("format_", "write", "count"), [("tflite", tflite_conv, 120), ("onnx", onnx_conv, 50)]
)
def test_of_many_damaged_files_none_ends_in_a_bug(
    tmp_path: Path, format_: str, write: Callable[[Path], Path], count: int
) -> None:
    source = write(tmp_path / f"m.{format_}")
    done = subprocess.run(
        [sys.executable, "-m", "tests.corruptions", format_, str(source), str(count)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    ends = json.loads(done.stdout)
    assert ends.get("unexpected", 0) == 0, done.stderr
    assert sum(ends.values()) == count
    # The draws do damage, and some of it only to weights, which no reader can tell.
    assert ends["refused"] > count / 3
    assert ends["ran"] > count / 10


def test_a_file_that_crashes_the_runtime_costs_one_process(tmp_path: Path) -> None:
    # An op that takes its four inputs unseen, given three of other shapes.
    name = "TFLite_Detection_PostProcess"
    path = with_custom_op(tflite_conv(tmp_path / "m.tflite"), tmp_path / "crash.tflite", name)
    with pytest.raises(ConfigError, match=r"crash.tflite: (the runtime died with SIG|LiteRT ref)"):
        run_file(path, IMAGES, apart=True)


def test_apart_gives_what_the_runtime_gives_here(tmp_path: Path) -> None:
    for path in (tflite_conv(tmp_path / "m.tflite"), onnx_conv(tmp_path / "m.onnx")):
        here, there = run_file(path, IMAGES + 1), run_file(path, IMAGES + 1, apart=True)
        np.testing.assert_array_equal(here, there)


def test_a_run_that_does_not_end_is_ended(tmp_path: Path) -> None:
    path = tflite_conv(tmp_path / "m.tflite")
    with pytest.raises(ConfigError, match=r"m.tflite did not run to its end within 0.01 s"):
        run_apart(path, "tflite", {"x": IMAGES.transpose(0, 2, 3, 1)[:, None]}, timeout_s=0.01)


def test_a_refusal_names_the_op(tmp_path: Path) -> None:
    path = with_custom_op(tflite_conv(tmp_path / "m.tflite"), tmp_path / "c.tflite", "Acme")
    with pytest.raises(ConfigError, match="refuses the file: it has the custom op Acme, which"):
        run_file(path, IMAGES, apart=True)


def test_an_open_size_is_that_of_the_images(tmp_path: Path) -> None:
    tflite = tflite_conv(tmp_path / "m.tflite", signature=(-1, -1, -1, 3))
    onnx = onnx_conv(tmp_path / "m.onnx", shape=("n", 3, "h", "w"))
    for path in (tflite, onnx):
        assert run_file(path, IMAGES).shape == (2, 5)
    with pytest.raises(ConfigError, match=r"do not fit the file, which takes \(N, 3, -1, -1\)"):
        run_file(tflite, IMAGES[:, :1])


def test_the_runtimes_usual_line_is_swallowed_and_no_other(tmp_path: Path) -> None:
    path = tflite_conv(tmp_path / "m.tflite")
    code = (
        "import os, sys, numpy as np\n"
        "from pathlib import Path\n"
        "from pipeline.formats.tflite.quiet import without_noise\n"
        "from pipeline.formats.files import run_file\n"
        f"run_file(Path({str(path)!r}), np.zeros((1, 3, 16, 16), np.float32))\n"
        "with without_noise():\n"
        "    os.write(2, b'INFO: Created something\\nERROR: real\\nno newline')\n"
        "print('after', file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert done.stderr == "ERROR: real\nno newlineafter\n"
