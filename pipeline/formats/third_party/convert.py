"""Converts models that our graph cannot say to TFLite, by the library made for their format.

A module of torch by litert-torch, in an environment of its own; an ONNX file by onnx2tf where the
user has installed that. What they write is run and compared as what we write is.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from device_agents.errors import ConfigError, VerificationError
from pipeline.formats.api import ReadOptions
from pipeline.formats.beside import Beside, check_files, compare_files, compare_output
from pipeline.formats.generated_inputs import generate_inputs
from pipeline.formats.placing import place_file
from pipeline.formats.subjects import FileSubject, find_runnable
from pipeline.formats.third_party.environment import Library, install, run_program, run_script

if TYPE_CHECKING:
    from collections.abc import Callable

    from pipeline.formats.ends import Array

LITERT_TORCH = Library(
    "litert-torch", (("torch==2.13.0",), ("litert-torch==0.10.0", "torch==2.13.0")), 2400
)
ONNX2TF = "onnx2tf"
_SCRIPT = Path(__file__).with_name("convert_torch.py")


def convert_by_library(
    source: str, target: Path, options: ReadOptions, tell: Callable[[str], None]
) -> Beside:
    """Write a TFLite file of a torch module or an ONNX file, and compare both.

    Args:
        source: as `pipeline.formats.source.read_model` takes it.
        target: the file to write; there is none if it fails.
        options: what is said beside the source.
        tell: is told of an installation.

    Returns:
        How the file compares with the source.

    Raises:
        ConfigError: there is no library for it, or it failed; the sentence has its reason.
        VerificationError: the file computes something else.
    """
    with tempfile.TemporaryDirectory(prefix="edgewright-library-") as name:
        folder = Path(name)
        if Path(source).suffix == ".onnx":
            made, found = _from_onnx(source, folder, options)
        else:
            made, found = _from_torch(source, folder, options, tell)
        check_files(found, ["floats", "floats"], (source, target.name))
        with place_file(target) as beside:
            shutil.copyfile(made, beside)
    return found


def _from_torch(
    source: str, folder: Path, options: ReadOptions, tell: Callable[[str], None]
) -> tuple[Path, Beside]:
    from pipeline.formats.torch.capture import INPUTS, OUTPUTS, PROGRAM
    from pipeline.formats.torch.read import keep_program

    keep_program(source, options, folder)
    install(LITERT_TORCH, tell)
    made = folder / "made.tflite"
    what = f"{LITERT_TORCH.name} cannot convert {source}"
    run_script(LITERT_TORCH, _SCRIPT, [str(folder / PROGRAM), str(made)], what=what)
    file = _file(made, what)
    inputs, outputs = (_kept(folder / name) for name in (INPUTS, OUTPUTS))
    ends = file.ends
    if (len(inputs), len(outputs)) != (len(ends.inputs), len(ends.outputs)):
        raise VerificationError(
            f"{LITERT_TORCH.name} made a file of {len(ends.inputs)} inputs and "
            f"{len(ends.outputs)} outputs of {source}, which has {len(inputs)} and {len(outputs)}"
        )
    given = {end.name: value[None] for end, value in zip(ends.inputs, inputs, strict=True)}
    found = file.run(given)
    figures = tuple(
        compare_output(end.name, end.name, value[None], found[end.name])
        for end, value in zip(ends.outputs, outputs, strict=True)
    )
    return made, Beside(1, figures)


def _from_onnx(source: str, folder: Path, options: ReadOptions) -> tuple[Path, Beside]:
    program = shutil.which(ONNX2TF)
    if program is None:
        raise ConfigError(
            f"{source} can be converted by {ONNX2TF}, which is not on the PATH: install it (pip "
            f"install {ONNX2TF}, in an environment of its own: its pins conflict with others) and "
            "put its bin folder on the PATH"
        )
    subject = find_runnable(source, options)
    if subject is None:
        raise ConfigError(f"{source} is no ONNX file")
    argv = [program, "-i", str(Path(source).resolve()), "-o", str(folder / "made")]
    for end in subject.ends.inputs:
        argv += ["-ois", f"{end.name}:{','.join(map(str, end.shape or ()))}"]
    what = f"{ONNX2TF} cannot convert {source}"
    done = run_program(argv, what=what, folder=folder)
    files = sorted((folder / "made").glob("*_float32.tflite"))
    if done.returncode or not files:
        printed = (text.decode(errors="replace").strip() for text in (done.stderr, done.stdout))
        said = next(filter(None, printed), "it wrote no file").splitlines()[-1]
        raise ConfigError(f"{what}: {said[:300]}")
    file = _file(files[0], what)
    inputs = generate_inputs(subject.ends)
    found, _, _ = compare_files((subject.ends, file.ends), inputs, subject.run, file.run)
    return files[0], found


def _file(path: Path, what: str) -> FileSubject:
    file = find_runnable(str(path), ReadOptions()) if path.is_file() else None
    if file is None:
        raise ConfigError(f"{what}: it wrote no file")
    return file


def _kept(path: Path) -> list[Array]:
    with np.load(path, allow_pickle=False) as file:
        return [file[str(place)] for place in range(len(file.files))]
