"""A model as users bring it, whatever it is: a file of any format, a folder, a module's name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from device_agents import bounded
from device_agents.errors import ConfigError
from device_agents.model_files import what_is
from models import recorded
from pipeline.formats import READERS
from pipeline.formats.api import Unsupported

if TYPE_CHECKING:
    from models.model import Model
    from pipeline.formats.api import Reader, ReadOptions

_OWN_SUFFIX = ".npz"


def find_reader(source: str) -> Reader | None:
    """Return what reads a source; None for a file of edgewright's own.

    Raises:
        ConfigError: nothing does; says what is read.
    """
    path = Path(source)
    if path.suffix == _OWN_SUFFIX:
        return None
    readers: list[Reader] = [READERS.load(name)() for name in READERS.names()]
    for reader in readers:
        if path.suffix in reader.suffixes:
            return reader
    for reader in readers:
        if reader.reads(source):
            return reader
    known = ", ".join(suffix for reader in readers for suffix in reader.suffixes)
    if bounded.is_folder(path):
        raise ConfigError(f"{source} is a folder without a saved_model.pb, so it is no SavedModel")
    if bounded.is_file(path):
        kind = what_is(path)
        raise ConfigError(
            f"{source} has no suffix of a model; known: {known}, {_OWN_SUFFIX}; it is {kind.words}"
        )
    raise ConfigError(
        f"no model {source!r}: there is no such file; give one ({known}, {_OWN_SUFFIX}), a "
        "SavedModel folder, or FILE.py:CALLABLE for a torch module"
    )


def read_model(source: str, options: ReadOptions) -> Model | Unsupported:
    """Read a model of any format into our graph.

    Args:
        source: a path, or what a reader takes (`Reader.reads`).
        options: what is said beside it.

    Returns:
        The model, or what of it our graph cannot say.

    Raises:
        ConfigError: there is none, or it is damaged, or leaves a dimension open.
    """
    reader = find_reader(source)
    if reader is None:
        return _own(Path(source))
    found = reader.read(source, options)
    path = Path(source)
    if isinstance(found, Unsupported) or not bounded.is_file(path):
        return found
    return recorded.apply(found, recorded.find(bounded.read_bytes(path)))


def _own(path: Path) -> Model:
    """Return the model of a file that edgewright keeps: a model, or a trained network."""
    from models.model import Model

    try:
        return Model.load(path)
    except ConfigError as error:
        from models.weights_file import check_network

        try:
            check_network(path)
        except ConfigError:
            raise error from None
    from models.network import Network

    return Network.load(path).model()
