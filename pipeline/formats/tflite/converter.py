"""TensorFlow's TFLiteConverter in a process of its own.

It is the reference for the native writer and the way for Keras files and SavedModels that users
bring. TensorFlow takes ten seconds to import and up to 1.8 GB, so it never enters this process;
arrays travel as .npz files, never as pickles.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from models.graph_json import graph_from_json, graph_to_json
from models.model import Model
from pipeline.formats.api import ExportError

if TYPE_CHECKING:
    from collections.abc import Sequence


TIMEOUT_S = 900.0

Images = npt.NDArray[np.float32]


def convert(model: Model, images: Images | None = None, *, timeout_s: float = TIMEOUT_S) -> bytes:
    """Return TFLiteConverter's file of a model.

    Args:
        model: its ops and weights; its own scales are not looked at.
        images: (N, C, H, W) float32: static int8 with int8 input and output, calibrated on
            them; float32 without.
        timeout_s: deadline of the process.

    Raises:
        ExportError: the converter failed or did not end in time.
    """
    arrays: dict[str, Any] = {"graph": np.array(json.dumps(graph_to_json(model.graph)))}
    for name, values in model.weights.items():
        arrays |= {f"{number}:{name}": value for number, value in enumerate(values)}
    return _in_child(arrays, images, "the network", timeout_s)


def convert_saved_model(
    path: Path, images: Images | None = None, *, timeout_s: float = TIMEOUT_S
) -> bytes:
    """Return the TFLite file of a SavedModel folder, a .keras or a .h5 file.

    `images` as in `convert`; the model must then have one input.

    Raises:
        ExportError: there is no such model, or the converter failed or did not end in time.
    """
    folder = path.is_dir() and (path / "saved_model.pb").is_file()
    if not folder and not (path.is_file() and path.suffix in (".keras", ".h5")):
        raise ExportError(
            f"{path} is not a model that TFLiteConverter reads; known: a SavedModel folder (with "
            "saved_model.pb), a .keras file, a .h5 file"
        )
    return _in_child({"path": np.array(str(path.resolve()))}, images, str(path), timeout_s)


def environment() -> dict[str, str]:
    """Return the environment of a Python process that imports what this one can import."""
    paths = os.pathsep.join(entry or os.getcwd() for entry in sys.path)  # noqa: PTH109
    return {**os.environ, "PYTHONPATH": paths, "TF_CPP_MIN_LOG_LEVEL": "3"}


def _in_child(
    arrays: dict[str, Any], images: Images | None, subject: str, timeout_s: float
) -> bytes:
    if images is not None:
        arrays["images"] = np.asarray(images, np.float32)
    with tempfile.TemporaryDirectory(prefix="edgewright-convert-") as name:
        request, reply = Path(name) / "request.npz", Path(name) / "reply.tflite"
        np.savez(request, allow_pickle=False, **arrays)
        argv = [sys.executable, "-m", "pipeline.formats.tflite.converter", str(request), str(reply)]
        try:
            done = subprocess.run(
                argv, env=environment(), capture_output=True, timeout=timeout_s, check=False
            )
        except subprocess.TimeoutExpired:
            raise ExportError(
                f"TFLiteConverter did not convert {subject} within {timeout_s:g} s"
            ) from None
        if done.returncode or not reply.is_file():
            lines = done.stderr.decode(errors="replace").strip().splitlines()
            reason = lines[-1][:500] if lines else f"exit code {done.returncode}"
            raise ExportError(f"TFLiteConverter cannot convert {subject}: {reason}")
        return reply.read_bytes()


def main(argv: Sequence[str]) -> int:
    """Answer one request: `argv` is (request.npz, reply.tflite). The child's side."""
    from pipeline.formats.tflite import oracle

    with np.load(argv[0], allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    images = arrays.get("images")
    if "path" in arrays:
        content = oracle.convert_saved_model(Path(str(arrays["path"])), images)
    else:
        graph = graph_from_json(json.loads(str(arrays["graph"])))
        weights: dict[str, tuple[Any, ...]] = {
            op.name: (arrays[f"0:{op.name}"], arrays[f"1:{op.name}"])
            for op in graph.ops
            if op.has_weights
        }
        weights |= {tensor.name: (arrays[f"0:{tensor.name}"],) for tensor in graph.constants}
        content = oracle.convert(Model(graph, weights), images)
    Path(argv[1]).write_bytes(content)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
