"""Files of any format: what they take and give, and how they run on this computer."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from device_agents import bounded
from device_agents.errors import ConfigError
from device_agents.model_files import RUNTIME_OF, check_suffix, read
from pipeline.formats import FORMATS, create
from pipeline.formats.apart import run_apart
from pipeline.formats.api import to_file_ends

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.formats.api import FileEnds, FloatArray, Format


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
    """Read how a file takes images and gives logits.

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
        return ends()
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def run_file(path: Path, images: FloatArray, *, apart: bool = False) -> FloatArray:
    """Run images (N, C, H, W) through a file in its own runtime; return logits (N, classes).

    `apart` is for a file that was not written by this process: it is run in one of its own, with
    the settings of a device.
    """
    format_, io = find_format(path), describe_file(path)
    samples = io.pack(images)
    raw = run_apart(path, format_.name, samples) if apart else format_.run(path, samples)
    return io.unpack(raw)


def run_content(
    format_: Format, content: bytes, images: FloatArray, *, as_deployed: bool = False
) -> FloatArray:
    """Do what `run_file` does with a file's content; `as_deployed` is of `Format.run`."""
    io = format_.describe(content)
    return io.unpack(format_.run(content, io.pack(images), as_deployed=as_deployed))
