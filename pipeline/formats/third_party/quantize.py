"""Quantises files that our graph cannot say, by the library made for their format."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from device_agents.errors import ConfigError
from pipeline.formats.beside import check_files, compare_files
from pipeline.formats.facts.find import find_facts
from pipeline.formats.placing import place_file
from pipeline.formats.subjects import find_runnable
from pipeline.formats.third_party.environment import Library, install, run_script

if TYPE_CHECKING:
    from collections.abc import Callable

    from models.number_format import NumberFormat
    from pipeline.formats.api import ReadOptions
    from pipeline.formats.beside import Beside
    from pipeline.formats.ends import Array
    from pipeline.formats.subjects import FileSubject

AI_EDGE_QUANTIZER = Library("ai-edge-quantizer", (("ai-edge-quantizer==0.10.0",),), 320)
_SCRIPTS = Path(__file__).parent
_COMPARED = 32

_TFLITE = ("static8", "dynamic8", "float16", "static16x8")
_ONNX = ("static8", "dynamic8")
_SMALL = ("int4", "uint4", "int8", "uint8", "float16")


def quantize_file(
    source: FileSubject,
    inputs: dict[str, Array],
    target: Path,
    number_format: NumberFormat,
    options: ReadOptions,
    tell: Callable[[str], None],
) -> Beside:
    """Write a file of the same format in another number format, and compare both.

    Args:
        source: the file, in its runtime.
        inputs: by its names, (N, *shape) in real numbers: they calibrate, some are compared.
        target: the file to write; there is none if it fails.
        number_format: see `RECIPES` of the scripts.
        options: shapes of what the file leaves open.
        tell: is told of an installation.

    Returns:
        How the file compares with the source.

    Raises:
        ConfigError: there is no library for it, or it failed; the sentence has its reason.
        VerificationError: the file computes something else.
    """
    known = _ONNX if target.suffix == ".onnx" else _TFLITE
    if str(number_format) not in known:
        raise ConfigError(
            f"no library quantises {source.name} to {number_format}; have {', '.join(known)}"
        )
    library = None if target.suffix == ".onnx" else AI_EDGE_QUANTIZER
    who = "onnxruntime" if library is None else library.name
    if library is not None:
        install(library, tell)
    script = _SCRIPTS / f"quantize_{target.suffix[1:]}.py"
    encoded = source.ends.encode(inputs)
    with tempfile.TemporaryDirectory(prefix="edgewright-quantize-") as folder:
        given, made = Path(folder) / "inputs.npz", Path(folder) / target.name
        numbered: dict[str, Any] = {
            str(place): encoded[end.name] for place, end in enumerate(source.ends.inputs)
        }
        np.savez(given, allow_pickle=False, **numbered)
        arguments = [str(source.path.resolve()), str(given), str(made), str(number_format)]
        what = f"{who} cannot quantise {source.name}"
        run_script(library, script, arguments, what=what)
        file = find_runnable(str(made), options)
        if file is None or not made.is_file():
            raise ConfigError(f"{what}: it wrote no file")
        if not _grew_small(source.path, made):
            raise ConfigError(
                f"{what} to {number_format}: it left every weight as it was; it looks into no "
                "branch of an If and no body of a loop; deploy the file as it is"
            )
        few = {name: values[:_COMPARED] for name, values in inputs.items()}
        found, _, _ = compare_files((source.ends, file.ends), few, source.run, file.run)
        check_files(found, [source.numbers, file.numbers], (source.name, target.name))
        with place_file(target) as beside:
            shutil.copyfile(made, beside)
    return found


def _grew_small(source: Path, made: Path) -> bool:
    """Tell whether a file has weights of fewer bits in place of some of another's.

    Codes of one byte alone are no sign of it: zero points of activations are such.
    """
    return _real_bytes(source) == 0 or (
        _small_bytes(made) > _small_bytes(source) and _real_bytes(made) < _real_bytes(source)
    )


def real_share(source: Path, made: Path) -> float:
    """Return the share of the bytes of a file's float32 weights that another still has."""
    before = _real_bytes(source)
    return _real_bytes(made) / before if before else 0.0


def _real_bytes(path: Path) -> int:
    return find_facts(str(path), {}).weight_bytes.get("float32", 0)


def _small_bytes(path: Path) -> int:
    held = find_facts(str(path), {}).weight_bytes
    return sum(held.get(kind, 0) for kind in _SMALL)
