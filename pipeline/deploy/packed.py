"""What a device is sent of a model: the file, or a packed file that holds it (pipeline/coding)."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from device_agents import bounded
from device_agents.agent.packed import MAGIC, SUFFIX
from device_agents.agent.packed.container import is_packed
from device_agents.model_files import RUNTIME_OF, what_is
from pipeline.coding.files import pack_file, unpack_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LEAST_SAVING = 0.1
"""Of the bytes to send: for less than that nothing is packed, since the device must unpack it."""


@contextmanager
def as_model(path: Path) -> Iterator[tuple[Path, Path | None]]:
    """Give the model file in a packed one, unpacked beside nobody's files, and the packed one.

    A file that is not packed is the model itself, with None.

    Raises:
        ConfigError: it cannot be read, is of a later version of the layout, cut short or damaged.
    """
    with bounded.open_file(path, limit_bytes=bounded.MODEL_BYTES) as source:
        packed = is_packed(source.read(len(MAGIC)))
    if not packed:
        yield path, None
        return
    with tempfile.TemporaryDirectory(prefix="edgewright-") as folder:
        model = Path(folder) / (path.stem if path.suffix == SUFFIX else path.name)
        with model.open("w+b") as target:
            unpack_file(path, target)
        format_ = what_is(model).name
        # A packed file may have any name; that of the model is read on the device.
        if format_ and model.suffix.removeprefix(".").lower() not in RUNTIME_OF:
            model = model.rename(model.with_name(f"{model.name}.{format_}"))
        yield model, path


@contextmanager
def packed_copy(
    path: Path, tell: Callable[[str], object] = lambda _: None
) -> Iterator[tuple[Path | None, float]]:
    """Give a packed copy of a model file, None for one that is not worth it, and the saving rate.

    Raises what `pack_file` raises.
    """
    content, packed = pack_file(path, tell)
    saving = 1.0 - len(packed.content) / len(content)
    if saving < LEAST_SAVING:
        yield None, saving
        return
    with tempfile.TemporaryDirectory(prefix="edgewright-") as folder:
        copy = Path(folder) / (path.name + SUFFIX)
        copy.write_bytes(packed.content)
        yield copy, saving
