"""The facts of whatever a user names: a file of any format, a folder, a torch module."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from device_agents import bounded
from device_agents.errors import ConfigError
from device_agents.model_files import check_suffix, read, what_is

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipeline.formats.facts.values import Facts

KERAS = (".keras", ".h5", ".hdf5")
EXPORTED = ".pt2"


def find_facts(source: str, shapes: Mapping[str, tuple[int, ...]]) -> Facts:
    """Return the facts of a file or a SavedModel folder.

    Args:
        source: its path.
        shapes: of inputs that it leaves open, by name; "" for its only input.

    Raises:
        ConfigError: there is none, or it is of no known kind, or damaged.
    """
    path = Path(source)
    if bounded.is_folder(path):
        from pipeline.formats.facts.saved_model import saved_model_facts

        return saved_model_facts(path)
    kind = what_is(path).name
    if kind in ("tflite", "onnx"):
        return _runtime_facts(path, kind, shapes)
    if kind:
        raise ConfigError(
            f"{path} is {what_is(path).words}, which is not looked into; `edgewright bench` times "
            "it and `deploy` puts it on a device as it is"
        )
    if path.suffix in KERAS:
        from pipeline.formats.facts.keras import keras_facts

        return keras_facts(path)
    if path.suffix == EXPORTED:
        from pipeline.formats.facts.exported_program import exported_program_facts

        return exported_program_facts(path)
    read(path)  # refuses it, and says what it is
    raise ConfigError(f"{path} is no model file")


def _runtime_facts(path: Path, kind: str, shapes: Mapping[str, tuple[int, ...]]) -> Facts:
    file = read(path)
    check_suffix(file)
    if kind == "onnx":
        from pipeline.formats.facts.onnx import onnx_facts

        return onnx_facts(path, shapes)
    from pipeline.formats.facts.tflite import tflite_facts
    from pipeline.formats.tflite.contents import read_contents

    content = bounded.read_bytes(path)
    try:
        return tflite_facts(content, read_contents(content))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
