"""Model files on the host: what a file is, whether it is whole, what goes in, what belongs to it.

Standard library only, so that a command can refuse a file before it connects to anything.
"""

from __future__ import annotations

import mmap
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from device_agents import bounded
from device_agents.agent import shapes as open_shapes
from device_agents.agent.wire import Refused
from device_agents.errors import ConfigError
from device_agents.model_files import onnx, tflite
from device_agents.model_files.flatbuffer import DamagedError
from device_agents.model_files.kinds import NETWORK, ONNX, TFLITE, Kind, kind_of
from device_agents.model_files.values import ModelFile, Part, Tensor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from device_agents.api import Shapes

__all__ = [
    "NETWORK",
    "RUNTIME_OF",
    "Kind",
    "ModelFile",
    "Part",
    "Tensor",
    "check_runtime",
    "check_suffix",
    "input_shapes",
    "inputs_outputs",
    "is_open",
    "open_input",
    "parts_of",
    "read",
    "what_is",
]

RUNTIME_OF = {"tflite": "tflite", "onnx": "onnx", "ort": "onnx", "null": "null"}
"""Format of a file -> the runtime that takes it."""

_READERS = {"tflite": tflite.inputs_outputs, "onnx": onnx.inputs_outputs}
_TAKES = {
    "tflite": ("tflite",),
    "onnx": ("onnx", "ort"),
    "null": ("null",),
    "benchmark_model": ("tflite",),
}
_AGAIN = "copy or download it again"


def what_is(path: Path) -> Kind:
    """Return what a file is. Raises ConfigError when it cannot be read."""
    with _content(path) as content:
        return kind_of(content)


def read(path: Path) -> ModelFile:
    """Read a model file that some runtime takes.

    Raises:
        ConfigError: it is something else, or damaged, or a part of it is missing; one sentence
            that says what it is and what to do.
    """
    with _content(path) as content:
        kind = kind_of(content)
        if not kind.name:
            raise ConfigError(f"{path} is no model file: it is {kind.words}; {kind.advice}")
        if kind.name not in _READERS:
            return ModelFile(path, kind.name)
        try:
            inputs, outputs = _READERS[kind.name](content)
            named = onnx.locations(content) if kind.name == "onnx" else ()
        except DamagedError as error:
            raise ConfigError(
                f"{path} is {kind.words} that is cut short or damaged: {error}; {_AGAIN}"
            ) from error
    return ModelFile(path, kind.name, inputs, outputs, tuple(_part(path, name) for name in named))


def inputs_outputs(content: Any, format_: str) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Return inputs and outputs of a file's content; raises ConfigError if it is not `format_`."""
    kind = kind_of(content)
    if kind.name != format_:
        wanted = {"tflite": TFLITE, "onnx": ONNX}[format_]
        raise ConfigError(f"the file is not {wanted.words}: it is {kind.words}")
    try:
        return _READERS[format_](content)
    except DamagedError as error:
        raise ConfigError(
            f"the file is {kind.words} that is cut short or damaged: {error}; {_AGAIN}"
        ) from error


def check_suffix(file: ModelFile) -> None:
    """Refuse a file whose suffix names another format than it has; raises ConfigError."""
    named = file.path.suffix.removeprefix(".").lower()
    if named in _READERS and named != file.format:
        raise ConfigError(
            f"{file.path} is {what_is(file.path).words}, although its name ends in .{named}; "
            f"rename it to .{file.format}"
        )


def check_runtime(file: ModelFile, runtime: str) -> None:
    """Refuse a file for a runtime that takes others; raises ConfigError."""
    wanted = _TAKES.get(runtime)
    if wanted is not None and file.format not in wanted:
        raise ConfigError(
            f"{file.path} is {what_is(file.path).words}, which the runtime {runtime} does not "
            f"take; it runs with --runtime {RUNTIME_OF[file.format]}, on a device that has that"
        )


def is_open(file: ModelFile) -> bool:
    """Tell whether the file leaves the shape of some input open."""
    return any(open_input(file, item.name) for item in file.inputs or ())


def open_input(file: ModelFile, name: str) -> Tensor | None:
    """Return the input of that name ("": the only one) if the file leaves its shape open."""
    for item in file.inputs or ():
        named = item.name == name or (not name and len(file.inputs or ()) == 1)
        if named and (item.dims is None or any(isinstance(dim, str) for dim in item.dims)):
            return item
    return None


def parts_of(path: Path) -> tuple[Part, ...]:
    """Return the files that belong to a model file; none of a file that is no whole ONNX model.

    Raises:
        ConfigError: one is missing, or does not lie beside the model.
    """
    with _content(path) as content:
        if kind_of(content).name != "onnx":
            return ()
        try:
            named = onnx.locations(content)
        except DamagedError:
            return ()  # the runtime has the words for it
    return tuple(_part(path, name) for name in named)


def input_shapes(file: ModelFile, given: Shapes) -> dict[str, tuple[int, ...]]:
    """Return the shape of every input, of open ones as given; empty when only the runtime knows.

    Raises:
        ConfigError: a dimension stays open, or a given shape does not fit.
    """
    if file.inputs is None:
        return {}
    dims = [(item.name, item.dims) for item in file.inputs]
    try:
        checked = open_shapes.check({name: list(shape) for name, shape in given.items()})
        found = open_shapes.resolve(dims, checked)
    except Refused as error:
        raise ConfigError(f"{file.path}: {error}") from error
    return {name: tuple(shape) for (name, _), shape in zip(dims, found, strict=True)}


def _part(model: Path, location: str) -> Part:
    """Return a file that an ONNX file names; it must lie beside it or below.

    A download cache keeps a model as links into one folder of its own; then the files lie beside
    each other there.
    """
    name = PurePosixPath(location)
    inside = location and not name.is_absolute() and ".." not in name.parts and "\\" not in location
    path = model.parent / location
    homes = (model.parent.resolve(), model.resolve().parent)
    if not inside or "\0" in location or not any(map(path.resolve().is_relative_to, homes)):
        raise ConfigError(
            f"{model} keeps weights in {location!r}, which is not beside it or below; such a file "
            "is not followed: save the model with its weights beside it"
        )
    if not bounded.is_file(path):
        raise ConfigError(
            f"{model} keeps weights in {location!r}, which is not there; copy that file beside it"
        )
    return Part(str(name), path)


@contextmanager
def _content(path: Path) -> Iterator[Any]:
    """Give a file's bytes without reading all of it."""
    if bounded.is_folder(path):
        raise ConfigError(f"{path} is a folder; give the model file in it")
    try:
        with bounded.open_file(path, limit_bytes=bounded.MODEL_BYTES) as file:
            if not file.seek(0, 2):
                yield b""
                return
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                yield content
    except bounded.Unreadable as error:
        if error.missing:
            raise ConfigError(f"no model file {str(path)!r}; export one first") from error
        raise
