"""Files of any format: what they take and give, and how they run on this computer."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from device_agents import bounded
from device_agents.errors import ConfigError
from device_agents.model_files import RUNTIME_OF, check_suffix, read
from models import recorded
from pipeline.data.pictures.values import Values
from pipeline.formats import FORMATS, create
from pipeline.formats.apart import run_apart
from pipeline.formats.ends import to_file_ends

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.data.api import Held
    from pipeline.formats.api import Format
    from pipeline.formats.ends import Array, Arrays, FileEnds, FloatArray


_AT_ONCE_VALUES = 8 << 20
"""Of images that are run at once: 32 MiB of floats."""


def is_runnable(path: Path) -> bool:
    """Tell whether the suffix is of a format that has a runtime on this computer."""
    return any(create(name).suffix == path.suffix for name in FORMATS.names())


def find_format(path: Path) -> Format:
    """Return the format whose files end like this one.

    Raises:
        ConfigError: no format has that suffix; lists those known.
    """
    formats = [create(name) for name in FORMATS.names()]
    for format_ in formats:
        if path.suffix == format_.suffix:
            return format_
    known = ", ".join(format_.suffix for format_ in formats)
    raise ConfigError(f"{path.name!r} has no known suffix; known: {known}")


def describe_file(path: Path) -> FileEnds:
    """Read what a file takes and gives.

    Raises:
        ConfigError: no such file, or not of the format that its suffix names.
    """
    format_ = find_format(path)
    if format_.name in RUNTIME_OF:
        file = read(path)
        check_suffix(file)
        ends = partial(to_file_ends, format_.layout, file.inputs or (), file.outputs or ())
    else:  # a format that no device's agent knows
        ends = partial(format_.describe, bounded.read_bytes(path))
    try:
        return _with_values(path, ends())
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _with_values(path: Path, ends: FileEnds) -> FileEnds:
    """Return ends that say how pixels are fed, where the file does."""
    said = recorded.read_inputs(recorded.find(bounded.read_bytes(path)))
    if len(said) != len(ends.inputs) or not any(said):
        return ends
    pairs = zip(ends.inputs, said, strict=True)
    fed = (replace(end, values=Values(**one)) if one else end for end, one in pairs)
    return replace(ends, inputs=tuple(fed))


def run_inputs(
    path: Path, inputs: Arrays, *, apart: bool = False, as_deployed: bool = True
) -> dict[str, Array]:
    """Run samples of every input through a file in its own runtime, one by one.

    Args:
        path: of the file.
        inputs: by the names in the file, N samples each: real numbers (N, *shape), where the shape
            is as the file has it, a batch dimension of 1 included.
        apart: for a file that was not written by this process: it is run in one of its own.
        as_deployed: of a run apart, see `Format.run`.

    Returns:
        Every output by its name in the file: (N, *shape), float32, or integers that are no codes.

    Raises:
        ConfigError: the file takes other inputs, or the runtime refuses it.
    """
    format_, ends = find_format(path), describe_file(path)
    try:
        given = ends.encode(inputs)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    if apart:
        return ends.decode(run_apart(path, format_.name, given, as_deployed=as_deployed))
    run = format_.run(path, given)
    return ends.decode(run)


def run_file(path: Path, images: FloatArray | Held, *, apart: bool = False) -> FloatArray:
    """Run images (N, C, H, W) through a file as `run_inputs` does; return logits (N, classes)."""
    format_, ends = find_format(path), describe_file(path)
    at_once = max(1, _AT_ONCE_VALUES // prod(images.shape[1:]))
    logits = []
    for start in range(0, len(images), at_once):
        given = {ends.input.name: ends.pack(images[start : start + at_once])[:, None]}
        raw = run_apart(path, format_.name, given) if apart else format_.run(path, given)
        logits.append(ends.unpack(raw[ends.output.name]))
    return np.concatenate(logits)


def run_content(
    format_: Format, content: bytes, images: FloatArray, *, as_deployed: bool = False
) -> FloatArray:
    """Do what `run_file` does with a file's content; `as_deployed` is of `Format.run`."""
    ends = format_.describe(content)
    given = {ends.input.name: ends.pack(images)[:, None]}
    return ends.unpack(format_.run(content, given, as_deployed=as_deployed)[ends.output.name])
