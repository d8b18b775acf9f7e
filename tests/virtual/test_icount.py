"""On a clock that counts instructions a latency repeats exactly, and fewer instructions are faster.

The models are the product's own: one network and a thinner one, each as float and int8.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from device_agents.api import Failure
from device_agents.runner import Device
from device_agents.values import BenchProtocol
from models import zoo
from models.lower import lower
from models.model import random_model
from models.number_format import FLOAT32, STATIC8
from pipeline.formats.tflite.write import write_tflite
from scripts.lab import icount
from tests.device_lab import started

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

WIDTHS = {"unpruned": 0.5, "pruned": 0.25}
RANKING = ["pruned int8", "pruned float", "unpruned int8", "unpruned float"]
# Wall time passes much faster than the guest's: what bounds it in guest time stays small.
PROTOCOL = replace(BenchProtocol.quick(), deadline_s=300.0, budget_s=60.0, max_samples=40)


def write_models(folder: Path) -> dict[str, Path]:
    """Write each variant as a TFLite file; the same bytes in every call."""
    files = {}
    for variant, width in WIDTHS.items():
        graph = lower(zoo.get("mobilenet-v1", width=width).with_input(32, 32, 3))
        for scheme, number_format in (("float", FLOAT32), ("int8", STATIC8)):
            model = random_model(graph, np.random.default_rng(0), number_format)
            files[f"{variant} {scheme}"] = folder / f"{variant}_{scheme}.tflite"
            files[f"{variant} {scheme}"].write_bytes(write_tflite(model))
    return files


def medians_of_one_boot(folder: Path, files: dict[str, Path]) -> dict[str, float]:
    """Boot a guest and measure every file on it over SSH; milliseconds."""
    found = {}
    folder.mkdir()
    with started(icount.running(folder)) as guest, Device.open(guest.profile()) as device:
        for name, file in files.items():
            measured = device.measure(file, PROTOCOL)
            assert not isinstance(measured, Failure), measured.detail
            found[name] = measured.median_ms
    return found


def test_a_latency_repeats_across_boots_and_ranks_the_variants(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = write_models(tmp_path)
    first = medians_of_one_boot(tmp_path / "first", files)
    second = medians_of_one_boot(tmp_path / "second", files)
    for name in files:
        change = abs(second[name] / first[name] - 1)
        with capsys.disabled():
            told = f"{first[name]:.6f} ms, {second[name]:.6f} ms, {change:.4%} apart"
            print(f"\n{name} on the instruction-counting kernel, two boots: {told}")
        assert change <= 0.001
    for boot in (first, second):
        assert sorted(files, key=boot.__getitem__) == RANKING
