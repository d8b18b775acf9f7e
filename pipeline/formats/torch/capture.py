"""The process that a module of torch is read in: it runs the user's code, and may die of it.

It is given a request (JSON) and leaves a model, the ops that are not known, or one sentence.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from device_agents.errors import ConfigError, EdgewrightError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from models.model import Model
    from pipeline.formats.api import Unsupported
    from pipeline.formats.torch.program import Captured

REQUEST, REPLY, MODEL = "request.json", "reply.json", "model.npz"

_TOLERANCE = 1e-3
"""Largest difference to the module's outputs, as a share of their range."""


def answer(request: dict[str, Any], model_file: Path) -> dict[str, Any]:
    """Read what a request names, write it as a model; return the reply.

    Raises:
        ConfigError: the sentence for the user.
    """
    from pipeline.formats.api import Unsupported

    found = _read(request)
    if isinstance(found, Unsupported):
        return {"unknown": [asdict(op) for op in found.ops]}
    found.save(model_file)
    return {"model": True}


def _read(request: dict[str, Any]) -> Model | Unsupported:
    from models.layout import settle
    from pipeline.formats.api import Unsupported
    from pipeline.formats.torch.program import capture, recapture
    from pipeline.formats.torch.translate import translate
    from pipeline.formats.torch.user_code import load_module, unpickle

    name, weights = request["source"], request["weights"]
    shapes = {key: tuple(shape) for key, shape in request["shapes"].items()}
    path = Path(name)
    if path.suffix == ".pt2":
        captured = recapture(_load_program(path), shapes, name)
    elif path.suffix in (".pt", ".pth"):
        captured = capture(unpickle(path), shapes, name)
    else:
        module = load_module(name, None if weights is None else Path(weights))
        captured = capture(module, shapes, name)
    network = translate(captured.program, name)
    if isinstance(network, Unsupported):
        return network
    network = settle(network)
    _verify(network, captured, name)
    return network


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
            same = bool(np.allclose(ours, theirs, 0, _TOLERANCE * extent, equal_nan=True))
        if not same:
            raise ConfigError(
                f"{name} was read wrongly: its output {end.name!r} is another than the module's, "
                "which is a fault of edgewright; please report it with the module"
            )


def main(argv: Sequence[str]) -> int:
    """Answer one request: `argv` is the folder of request and reply."""
    folder = Path(argv[0])
    request = json.loads((folder / REQUEST).read_text())
    limit = request["limit_bytes"]
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if not request["trust"]:
        # torch falls back to unpickling where it cannot read weights alone; not here.
        os.environ.pop("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", None)
        os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"
    warnings.simplefilter("ignore")
    try:
        reply = answer(request, folder / MODEL)
    except EdgewrightError as error:
        reply = {"error": str(error)}
    except MemoryError:
        reply = {"error": f"{request['source']} needs more than {limit >> 30} GiB to be read"}
    (folder / REPLY).write_text(json.dumps(reply))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
