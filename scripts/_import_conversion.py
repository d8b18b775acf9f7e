"""MobileNetV2 at 224 from ONNX to TFLite: ours beside onnx2tf, which pip chose for this Python.

The ONNX file is what torch exports, with random weights. Seconds are of the processor, of
conversion alone and warm: both have converted the file once in the same process before. onnx2tf
lives in an environment of its own, because it pins what conflicts with ours.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from scripts._import_latency import Ratio, compare_latencies, count_partitions
from scripts._import_runs import run_program
from scripts.lab import images

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NET = "mobilenet-v2"
SIZE = 224
LEFT_OUT = "left out"
"""Instead of onnx2tf's version, where it was not asked for."""

_PEER = "onnx2tf"
_BUILD_S = 1800.0
# Without it every 3-channel input makes onnx2tf ask a server for pictures to calibrate on.
_SAMPLES = "calibration_image_sample_data_20x128x128x3_float32.npy"
_PEER_CODE = """
import json, resource, sys, time
import numpy as np
np.save({samples!r}, np.zeros((20, 128, 128, 3), np.float32))
import onnx2tf
from importlib.metadata import version

def spent():
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)

taken = []
for _ in range({times}):
    start = spent()
    onnx2tf.convert(
        input_onnx_file_path={source!r}, output_folder_path="out", non_verbose=True
    )
    taken.append(spent() - start)
print("RESULT " + json.dumps([version("onnx2tf"), taken]))
"""


@dataclass(frozen=True, slots=True)
class Conversion:
    """What converting took, and how the two files compare.

    Attributes:
        ours_s: processor seconds of each of our conversions, warm.
        peer_s: of each of onnx2tf's, warm; empty where it did not run.
        peer: its version, `LEFT_OUT`, or why it did not run.
        ratio: of the latencies, ours to its; None where there is no file of it.
        partitions: of our file and of its.
    """

    ours_s: tuple[float, ...]
    peer_s: tuple[float, ...]
    peer: str
    ratio: Ratio | None
    partitions: tuple[int, int | None]


def export_onnx(path: Path) -> Path:
    """Write the network's ONNX file as torch exports it."""
    from models import zoo
    from models.build import build

    return export_module(build(zoo.get(NET).with_input(SIZE, SIZE, 3)), path)


def export_module(module: Any, path: Path) -> Path:
    """Write a torch module of one image of `SIZE` as ONNX."""
    import torch

    with warnings.catch_warnings():
        # It is the exporter that most files come from, and says of itself that it is the old one.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(),
            (torch.zeros(1, 3, SIZE, SIZE),),
            str(path),
            dynamo=False,
            opset_version=17,
            input_names=["input"],
            output_names=["logits"],
        )
    return path


def compare_conversions(
    folder: Path, *, times: int, rounds: int, with_peer: bool = True
) -> Conversion:
    """Convert by both ways and compare the files."""
    source = export_onnx(folder / "net.onnx")
    ours, target = _convert_ours(source, folder, times)
    version, taken, theirs = LEFT_OUT, list[float](), None
    if with_peer:
        version, taken, theirs = _convert_peer(source, folder, max(times // 5, 2))
    ratio = None if theirs is None else compare_latencies(target, theirs, rounds=rounds)
    partitions = count_partitions(target), None if theirs is None else count_partitions(theirs)
    return Conversion(tuple(ours), tuple(taken), version, ratio, partitions)


def _convert_ours(source: Path, folder: Path, times: int) -> tuple[list[float], Path]:
    from models.model import Model
    from pipeline.formats import create
    from pipeline.formats.api import ReadOptions
    from pipeline.formats.source import read_model

    target = folder / "ours.tflite"

    def convert() -> None:
        model = read_model(str(source), ReadOptions())
        if not isinstance(model, Model):
            raise SystemExit(model.sentence)
        target.write_bytes(create("tflite").write(model))

    convert()
    return [_spent(convert) for _ in range(times)], target


def _spent(work: Callable[[], None]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def _convert_peer(source: Path, folder: Path, times: int) -> tuple[str, list[float], Path | None]:
    """Return onnx2tf's version, its warm seconds and its file, or why there is none."""
    try:
        python = _environment() / "bin" / "python"
    except images.LabError as error:
        return str(error), [], None
    work = folder / "peer"
    work.mkdir()
    code = _PEER_CODE.format(samples=_SAMPLES, times=times, source=str(source))
    path = f"{python.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    argv = ["env", f"PATH={path}", "PYTHONPATH=", "TF_CPP_MIN_LOG_LEVEL=3", str(python), "-c", code]
    done = run_program(argv, folder=work, timeout_s=_BUILD_S)
    told = [line for line in done.out.splitlines() if line.startswith("RESULT ")]
    files = sorted((work / "out").glob("*float32.tflite"))
    if done.code or not told or not files:
        return f"failed: {done.said[:200]}", [], None
    version, taken = json.loads(told[0].removeprefix("RESULT "))
    return version, taken[1:], files[0]


def find_peer() -> Path | None:
    """Return the folder of onnx2tf's programs; None where it has not been installed yet."""
    folder = images.find_built(_PEER, _content())
    return None if folder is None else folder / "bin"


def _environment() -> Path:
    """Return the folder of an environment with onnx2tf; raises LabError."""
    return images.built(_PEER, _content(), _install)


def _content() -> dict[str, str]:
    return {"package": _PEER, "python": f"{sys.version_info.major}.{sys.version_info.minor}"}


def _install(folder: Path) -> None:
    for argv in (
        [sys.executable, "-m", "venv", str(folder)],
        [str(folder / "bin" / "python"), "-m", "pip", "install", "-q", _PEER],
    ):
        try:
            done = subprocess.run(
                argv, capture_output=True, text=True, timeout=_BUILD_S, check=False
            )
        except subprocess.TimeoutExpired:
            raise images.LabError(f"{_PEER} was not installed in {_BUILD_S:g} s") from None
        if done.returncode:
            raise images.LabError(f"{_PEER} cannot be installed: {done.stderr.strip()[-300:]}")
    # The folder is moved to its place afterwards: programs find their Python by name.
    for program in (folder / "bin").iterdir():
        head = f"#!{folder}/bin/".encode()
        if program.is_file() and not program.is_symlink():
            content = program.read_bytes()
            if content.startswith(head):
                rest = content.partition(b"\n")[2]
                program.write_bytes(b"#!/usr/bin/env python\n" + rest)


def median(values: tuple[float, ...]) -> float | None:
    """Return the median; None of nothing."""
    return statistics.median(values) if values else None
