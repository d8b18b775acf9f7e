"""Reads Keras files (.keras, .h5) and SavedModel folders: TensorFlow converts, our reader reads.

TensorFlow takes ten seconds to import and up to 1.8 GB, so it never enters this process. What was
read is held against the model in TensorFlow, on random inputs.
"""

from __future__ import annotations

import importlib.util
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from device_agents import bounded
from device_agents.errors import ConfigError
from pipeline.formats.api import Unsupported
from pipeline.formats.child import ask
from pipeline.formats.keras import code
from pipeline.formats.keras.convert import CONTENT, REFERENCE, SAMPLES
from pipeline.formats.tflite.read import read_tflite

if TYPE_CHECKING:
    from models.model import Model
    from pipeline.formats.api import ReadOptions

TIMEOUT_S = 900.0
SUFFIXES = (".keras", ".h5", ".hdf5")

_CHILD = "pipeline.formats.keras.convert"
_TOLERANCE = 1e-3
"""Largest difference to TensorFlow's outputs, as a share of their range."""


def is_saved_model(path: Path) -> bool:
    """Tell whether a path is a folder with a SavedModel."""
    return bounded.is_folder(path) and bounded.is_file(path / "saved_model.pb")


def read(source: str, options: ReadOptions, *, timeout_s: float = TIMEOUT_S) -> Model | Unsupported:
    """Read a model into our graph; what was read has been held against it.

    Args:
        source: path of a .keras or .h5 file, or of a SavedModel folder.
        options: the shapes are of inputs that leave more open than the batch; code in the file
            (Lambda layers) runs only if it is trusted.
        timeout_s: deadline of TensorFlow's process.

    Returns:
        The network, or the ops that our graph cannot say.

    Raises:
        ConfigError: TensorFlow is not installed; no such model, or a damaged one; one that holds
            code and is not trusted; a dimension is open; TensorFlow cannot convert it.
    """
    path = Path(source)
    if not is_saved_model(path) and not bounded.is_file(path):
        raise ConfigError(f"no Keras file or SavedModel folder {path}")
    if importlib.util.find_spec("tensorflow") is None:
        raise ConfigError(
            f"{path} is read by TensorFlow, which is not installed: pip install edgewright[keras]"
        )
    if not options.trust and bounded.is_file(path):
        code.check(path)
    request = {
        "path": str(path.resolve()),
        "source": source,
        "shapes": {key: list(shape) for key, shape in options.shapes.items()},
        "trust": options.trust,
    }
    with tempfile.TemporaryDirectory(prefix="edgewright-keras-") as place:
        folder = Path(place)
        reply = ask(_CHILD, request, folder, subject=source, timeout_s=timeout_s)
        found = read_tflite((folder / CONTENT).read_bytes())
        if isinstance(found, Unsupported):
            return Unsupported(source, found.ops)
        network = _named(_in_order(found, reply["inputs"]), reply["outputs"], source)
        network = replace(network, history=(_read_from(path),))
        _verify(network, source, reply, folder)
    return network


def _read_from(path: Path) -> str:
    return f"read from {path.name}, converted by TensorFlow"


def _in_order(network: Model, names: list[str]) -> Model:
    """Return the network with its inputs in the model's order, which the converter does not keep.

    A model may have inputs that it does not read; those it has no longer.
    """
    ends = [end.name for end in network.inputs]
    order = sorted(range(len(ends)), key=lambda at: (*names, *ends).index(ends[at]))
    graph = replace(network.graph, inputs=tuple(network.graph.inputs[at] for at in order))
    return replace(network, graph=graph, inputs=tuple(network.inputs[at] for at in order))


def _named(network: Model, names: list[str], source: str) -> Model:
    """Return the network with its outputs in the model's order and under its names.

    Raises:
        ConfigError: the converter gave outputs other names, so that none says which is which.
    """
    if len(names) == 1:
        return replace(network, outputs=(replace(network.outputs[0], name=names[0]),))
    ends = [end.name for end in network.outputs]
    if unknown := [end for end in ends if end not in names]:
        raise ConfigError(
            f"{source} cannot be read: TensorFlow's converter made an output {unknown[0]!r} of it, "
            f"and the model has {', '.join(names)}; give its outputs names of their own, or "
            "export one model for each"
        )
    order = [ends.index(name) for name in names if name in ends]
    graph = replace(network.graph, outputs=tuple(network.graph.outputs[at] for at in order))
    return replace(network, graph=graph, outputs=tuple(network.outputs[at] for at in order))


def _verify(network: Model, source: str, reply: dict[str, Any], folder: Path) -> None:
    """Hold what was read against what TensorFlow computed. Raises ConfigError if it differs."""
    from models.execute import execute_all

    graph = network.graph
    samples = _arrays(folder / SAMPLES, reply["inputs"])
    reference = _arrays(folder / REFERENCE, reply["outputs"])
    given = {
        tensor.name: samples[end.name]
        for tensor, end in zip(graph.inputs, network.inputs, strict=True)
    }
    found = execute_all(network, given)
    for name, end in zip(graph.outputs, network.outputs, strict=True):
        ours, theirs = found[name], reference[end.name]
        extent = float(np.ptp(theirs.astype(np.float64))) or 1.0
        if ours.shape != theirs.shape or not np.allclose(
            ours, theirs, rtol=0, atol=_TOLERANCE * extent, equal_nan=True
        ):
            raise ConfigError(
                f"{source} was read wrongly: its output {end.name!r} is another than in "
                "TensorFlow, which is a fault of edgewright or of TensorFlow's converter; please "
                "report it with the model"
            )


def _arrays(path: Path, names: list[str]) -> dict[str, npt.NDArray[Any]]:
    with np.load(path, allow_pickle=False) as file:
        return {name: file[str(place)] for place, name in enumerate(names)}
