"""Packing and unpacking files that users name: read with bounds, refused in one sentence."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from device_agents import bounded, model_files
from device_agents.agent.packed import MAGIC, SUFFIX, container
from device_agents.agent.packed.cursor import Damaged, Newer
from device_agents.errors import ConfigError
from device_agents.model_files.flatbuffer import DamagedError
from device_agents.model_files.weights import find_weights
from pipeline.coding.container import pack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import IO

    from device_agents.agent.packed.container import Header
    from pipeline.coding.container import Packed


def pack_file(path: Path, tell: Callable[[str], object]) -> tuple[bytes, Packed]:
    """Return a file's content and what it is packed.

    The tensors of a TFLite or ONNX file are coded each for itself; any other file is one text.

    Raises:
        ConfigError: it cannot be read, is empty, packed already or damaged, or keeps weights
            elsewhere.
        VerificationError: it does not unpack to what it was, which is a fault of ours.
    """
    content = bounded.read_bytes(path)
    if not content:
        raise ConfigError(f"{path} is empty; give a model file")
    if container.is_packed(content):
        raise ConfigError(f"{path} is packed already; `edgewright unpack` makes the file of it")
    format_ = model_files.what_is(path).name
    if format_ and model_files.read(path).parts:
        raise ConfigError(
            f"{path} keeps weights in files beside it, and one file is packed; save the model with "
            "its weights inside"
        )
    try:
        weights = find_weights(content, format_)
    except DamagedError as error:
        raise ConfigError(f"{path} is damaged: {error}; copy or download it again") from error
    return content, pack(content, weights, tell=tell)


def unpack_file(path: Path, target: IO[bytes]) -> Header:
    """Unpack a file into an open, empty one; what is there after an error is worthless.

    Raises:
        ConfigError: it is no packed file, of a later version, or damaged.
    """
    with _opened(path) as source:
        return container.unpack(source, os.fstat(source.fileno()).st_size, target)


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    with bounded.open_file(path, limit_bytes=bounded.MODEL_BYTES) as source:
        if not container.is_packed(source.read(len(MAGIC))):
            raise ConfigError(
                f"{path} is no packed file ({SUFFIX}); `edgewright pack` makes one of a model file"
            )
        source.seek(0)
        try:
            yield source
        except Newer as error:
            raise ConfigError(f"{path} cannot be unpacked: {error}; update edgewright") from error
        except Damaged as error:
            raise ConfigError(
                f"{path} is cut short or damaged: {error}; copy or download it again"
            ) from error
