"""The models that benchmark_model runs: TFLite files, with the shape of every input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from device_agents.errors import ConfigError
from device_agents.leased import find_model
from device_agents.model_files import input_shapes, is_open, read

if TYPE_CHECKING:
    from pathlib import Path

    from device_agents.api import Shapes


@dataclass(frozen=True, slots=True)
class ToolModel:
    """A model file with the shape of every input; `layers` are those that the tool must be told."""

    path: Path
    shapes: dict[str, tuple[int, ...]]
    layers: dict[str, tuple[int, ...]]


def read_model(artifact: str | Path, given: Shapes | None) -> ToolModel:
    """Return a TFLite file with its input shapes; raises ConfigError.

    The tool itself runs an open dimension as 1 and says nothing, so the file is read here.
    """
    file = read(find_model(artifact))
    if file.format != "tflite":
        raise ConfigError(f"{file.path} is no TFLite model, and benchmark_model takes no other")
    shapes = input_shapes(file, given or {})
    return ToolModel(file.path, shapes, shapes if is_open(file) else {})
