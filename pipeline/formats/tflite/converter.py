"""TensorFlow's TFLiteConverter in a process of its own.

It is the reference for the native writer and the way for Keras files and SavedModels that users
bring. TensorFlow takes ten seconds to import and up to 1.8 GB, so it never enters this process;
arrays travel as .npz files, never as pickles.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from models.model import Model
from pipeline.formats.api import ExportError
from pipeline.formats.child import environment

if TYPE_CHECKING:
    from collections.abc import Sequence


TIMEOUT_S = 900.0

RANDOM_SAMPLES = 32
"""How many random inputs a user's model and its file are run on."""

_MODEL, _REQUEST, _REPLY = "model.npz", "request.npz", "reply.tflite"
_REFERENCE, _OUTPUTS = "reference.npz", "outputs.npz"

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
    with tempfile.TemporaryDirectory(prefix="edgewright-convert-") as folder:
        model.save(Path(folder) / _MODEL)
        return _in_child({}, images, "the network", timeout_s, Path(folder))


@dataclass(frozen=True, slots=True)
class Converted:
    """A file that TFLiteConverter made, and what there is to judge it by.

    Attributes:
        content: the file's.
        reference: outputs of the model it was made of, in TensorFlow, by name: (N, …) float32.
        outputs: those of the file in LiteRT, on the same inputs.
    """

    content: bytes
    reference: dict[str, Images]
    outputs: dict[str, Images]


def convert_saved_model(
    path: Path,
    calibration: Images | None = None,
    images: Images | None = None,
    *,
    timeout_s: float = TIMEOUT_S,
) -> Converted:
    """Convert a SavedModel folder, a .keras or a .h5 file to TFLite, and run both.

    Args:
        path: of the model.
        calibration: (N, C, H, W) float32: static int8, calibrated on them; float32 without.
        images: (N, C, H, W) float32 that both are run on; random inputs without. With either of
            the two the model must have one input.
        timeout_s: deadline of the process.

    Raises:
        ExportError: there is no such model, the converter failed or did not end in time, or model
            or file do not run.
    """
    folder = path.is_dir() and (path / "saved_model.pb").is_file()
    if not folder and not (path.is_file() and path.suffix in (".keras", ".h5")):
        raise ExportError(
            f"{path} is not a model that TFLiteConverter reads; known: a SavedModel folder (with "
            "saved_model.pb), a .keras file, a .h5 file"
        )
    arrays: dict[str, Any] = {"path": np.array(str(path.resolve()))}
    if images is not None:
        arrays["run_on"] = np.asarray(images, np.float32)
    with tempfile.TemporaryDirectory(prefix="edgewright-convert-") as place:
        content = _in_child(arrays, calibration, str(path), timeout_s, Path(place))
        reference, outputs = (_load(Path(place) / name) for name in (_REFERENCE, _OUTPUTS))
    return Converted(content, reference, outputs)


def _in_child(
    arrays: dict[str, Any], images: Images | None, subject: str, timeout_s: float, folder: Path
) -> bytes:
    """Have a request answered in a process of its own, files in `folder`; return the model file."""
    if images is not None:
        arrays["images"] = np.asarray(images, np.float32)
    np.savez(folder / _REQUEST, allow_pickle=False, **arrays)
    argv = [sys.executable, "-m", "pipeline.formats.tflite.converter", str(folder)]
    try:
        done = subprocess.run(
            argv, env=environment(), capture_output=True, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired:
        raise ExportError(
            f"TFLiteConverter did not convert {subject} within {timeout_s:g} s"
        ) from None
    if done.returncode or not (folder / _REPLY).is_file():
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        reason = lines[-1][:500] if lines else f"exit code {done.returncode}"
        raise ExportError(f"TFLiteConverter cannot convert {subject}: {reason}")
    return (folder / _REPLY).read_bytes()


def _answer_saved_model(arrays: dict[str, Any], folder: Path) -> bytes:
    """Convert a user's model, and keep what it and its file compute. The child's side."""
    from pipeline.formats.keras.without_optimizer import without_optimizer
    from pipeline.formats.tflite import saved_model
    from pipeline.formats.tflite.run import run_named

    path = Path(str(arrays["path"]))
    with without_optimizer(path) if path.is_dir() else nullcontext(path) as loadable:
        source = saved_model.load_source(loadable)
        content = saved_model.convert(source, arrays.get("images"))
    run_on = arrays.get("run_on")
    try:
        if run_on is None:
            samples = saved_model.draw_samples(source, RANDOM_SAMPLES)
        else:
            samples = saved_model.image_samples(source, run_on)
        reference = saved_model.compute(source, samples)
        outputs = run_named(content, samples)
    except Exception as error:  # TensorFlow's have no common base
        what = "random inputs" if run_on is None else "the recipe's images"
        said = " ".join(str(error).split())[:300]
        advice = "; give --data RECIPE, whose images it takes" if run_on is None else ""
        raise SystemExit(f"its file cannot be verified on {what}: {said}{advice}") from error
    _save(folder / _REFERENCE, reference)
    _save(folder / _OUTPUTS, outputs)
    return content


def _save(path: Path, outputs: dict[str, Images]) -> None:
    # Under names that are no argument of savez, whatever the model calls its outputs.
    named: dict[str, Any] = {f":{name}": value for name, value in outputs.items()}
    np.savez(path, allow_pickle=False, **named)


def _load(path: Path) -> dict[str, Images]:
    with np.load(path, allow_pickle=False) as file:
        return {name.removeprefix(":"): file[name] for name in file.files}


def main(argv: Sequence[str]) -> int:
    """Answer one request: `argv` is the folder of request and reply. The child's side."""
    folder = Path(argv[0])
    with np.load(folder / _REQUEST, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    images = arrays.get("images")
    if "path" in arrays:
        content = _answer_saved_model(arrays, folder)
    else:
        from pipeline.formats.tflite import oracle

        content = oracle.convert(Model.load(folder / _MODEL), images)
    (folder / _REPLY).write_bytes(content)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
