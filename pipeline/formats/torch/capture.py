"""The process that a module of torch is read in: it runs the user's code, and may die of it.

It replies with the ops that are not known, or leaves a model.
"""

from __future__ import annotations

import os
import sys
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from device_agents.errors import ConfigError
from pipeline.formats.child import serve
from pipeline.formats.decibels import NOTHING

if TYPE_CHECKING:
    from models.model import Model
    from pipeline.formats.api import Unsupported
    from pipeline.formats.torch.program import Captured

MODEL = "model.npz"
PROGRAM, INPUTS, OUTPUTS = "program.pt2", "inputs.npz", "outputs.npz"

_TOLERANCE = 1e-3
"""Largest difference to the module's outputs, as a share of their range."""

_HALF_TOLERANCE = 2e-2
"""The same of a module that computes in half precision somewhere, by autocast for one."""


def answer(request: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Read what a request names and write it as a model into a folder; return the reply.

    Raises:
        ConfigError: the sentence for the user.
    """
    from pipeline.formats.api import Unsupported

    if not request["trust"]:
        # torch falls back to unpickling where it cannot read weights alone; not here.
        os.environ.pop("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", None)
        os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"
    warnings.simplefilter("ignore")
    if request["keep"]:
        return _keep(request, folder)
    found = _read(request)
    if isinstance(found, Unsupported):
        return {"unknown": [asdict(op) for op in found.ops]}
    found.save(folder / MODEL)
    return {}


def _keep(request: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Leave the program, the inputs that it was captured with and what the module gives of them."""
    import numpy as np
    import torch

    captured = _capture(request)
    torch.export.save(captured.program, folder / PROGRAM)
    for name, tensors in ((INPUTS, captured.inputs), (OUTPUTS, captured.outputs)):
        arrays: dict[str, Any] = {str(n): tensor.numpy() for n, tensor in enumerate(tensors)}
        np.savez(folder / name, allow_pickle=False, **arrays)
    return {}


def _read(request: dict[str, Any]) -> Model | Unsupported:
    from models.layout import settle
    from pipeline.formats.api import Unsupported
    from pipeline.formats.torch.translate import translate

    name, captured = request["source"], _capture(request)
    network = translate(captured.program, name)
    if isinstance(network, Unsupported):
        return network
    network = settle(network)
    _verify(network, captured, name)
    return network


def _capture(request: dict[str, Any]) -> Captured:
    from pipeline.formats.torch.program import capture, recapture
    from pipeline.formats.torch.user_code import load_module, unpickle

    name, weights = request["source"], request["weights"]
    shapes = {key: tuple(shape) for key, shape in request["shapes"].items()}
    path = Path(name)
    if path.suffix == ".pt2":
        return recapture(_load_program(path), shapes, name)
    if path.suffix in (".pt", ".pth"):
        return capture(unpickle(path), shapes, name)
    module = load_module(name, None if weights is None else Path(weights))
    return capture(module, shapes, name)


def _load_program(path: Path) -> Any:
    import torch

    from device_agents.plain_text import plain

    try:
        return torch.export.load(path)
    except Exception as error:
        raise ConfigError(
            f"torch.export cannot load {path}: {plain(error, limit=300)}; save it again by "
            "torch.export.save of this torch"
        ) from error


def _verify(network: Model, captured: Captured, name: str) -> None:
    """Hold what was read against the module, on the inputs that it was captured with.

    Raises:
        ConfigError: they differ.
    """
    import numpy as np

    from models.axes import to_graph, to_user
    from models.execute import execute_all

    tolerance = _HALF_TOLERANCE if captured.has_halves else _TOLERANCE
    graph = network.graph
    given = {
        tensor.name: to_graph(end.layout, value.numpy())
        for tensor, end, value in zip(graph.inputs, network.inputs, captured.inputs, strict=True)
    }
    found = execute_all(network, given)
    for output, end, value in zip(graph.outputs, network.outputs, captured.outputs, strict=True):
        ours, theirs = to_user(end.layout, found[output]), value.numpy()
        same = ours.shape == theirs.shape
        if same and theirs.dtype.kind == "f":
            extent = float(np.ptp(theirs)) or 1.0
            close = max(tolerance * extent, NOTHING)
            same = bool(np.allclose(ours, theirs, 0, close, equal_nan=True))
        if not same:
            raise ConfigError(
                f"{name} was read wrongly: its output {end.name!r} is another than the module's, "
                "which is a fault of edgewright; please report it with the module"
            )


if __name__ == "__main__":
    sys.exit(serve(sys.argv[1:], answer))
