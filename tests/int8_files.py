"""int8 files of one network that was calibrated, for tests of what its codes mean."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from models.lower import lower
from models.model import Model, random_model
from models.spec import ArchSpec
from pipeline.compress.passes.ptq import calibrate
from pipeline.formats import create

if TYPE_CHECKING:
    from pathlib import Path

_LINE = (
    "24x24x3:same:conv_k3_s2_o16_hardswish:mb_k3_s1_m48_o16_se6-relu-hardsigmoid_skip:"
    "ds_k3_s2_o32_relu:conv_k1_s1_o48_relu:fc12"
)


@cache
def _model() -> tuple[Model, np.ndarray]:  # type: ignore[type-arg]
    graph = lower(ArchSpec.parse(_LINE))
    rng = np.random.default_rng(5)
    images = rng.random((24, 3, 24, 24), np.float32)
    return calibrate(random_model(graph, rng), images), images


def int8_file(folder: Path, format_: str) -> Path:
    """Write the network as a `tflite` or `onnx` file; return its path."""
    path = folder / f"net-int8.{format_}"
    path.write_bytes(create(format_).write(_model()[0]))
    return path


def samples_file(folder: Path) -> Path:
    """Write what it was calibrated on as an .npz; return its path."""
    path = folder / "samples.npz"
    np.savez(path, input=_model()[1])
    return path
