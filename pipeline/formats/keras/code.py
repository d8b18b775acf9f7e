"""Whether a Keras file holds code of its author: Lambda layers, and functions without a name.

Keras's own `safe_mode` does not look at .h5 files. No TensorFlow.
"""

from __future__ import annotations

import io
import json
import zipfile
from typing import TYPE_CHECKING, Any

from device_agents import bounded
from device_agents.errors import ConfigError
from device_agents.plain_text import plain

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_CODE = ("Lambda", "__lambda__", "__typespec_lambda__")


def check(path: Path) -> None:
    """Refuse a .keras or .h5 file that holds code.

    Raises:
        ConfigError: it does, or it is no such file.
    """
    for kind, name in _code(_config(path)):
        what = f"the Lambda layer {name!r}" if name and kind == "Lambda" else "a Lambda"
        raise ConfigError(
            f"{path} holds {what}, which is code of its author that runs when the file is read; if "
            "you trust whoever made it, give --trust, else write the layer without Lambda and "
            "save the model again"
        )


def own_classes(path: Path) -> list[str]:
    """Return the names of classes in a Keras file that are not Keras's, each once."""
    try:
        found = _classes(_config(path))
    except ConfigError:
        return []
    return list(dict.fromkeys(found))


def _classes(value: Any) -> Iterator[str]:
    """Yield the names of classes that their author registered, or did not."""
    if isinstance(value, dict):
        name, module = value.get("registered_name"), value.get("module")
        if isinstance(name, str) and not str(module or "").startswith("keras"):
            yield name.rpartition(">")[2]
        for each in value.values():
            yield from _classes(each)
    elif isinstance(value, list):
        for each in value:
            yield from _classes(each)


def _config(path: Path) -> Any:
    content = bounded.read_bytes(path)
    try:
        if content[:4] == b"PK\x03\x04":
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                size = archive.getinfo("config.json").file_size
                bounded.refuse_expansion(len(content), size)
                return json.loads(archive.read("config.json"))
        import h5py

        with h5py.File(io.BytesIO(content), "r") as file:
            return json.loads(file.attrs["model_config"])
    except (OSError, KeyError, ValueError, RecursionError, zipfile.BadZipFile) as error:
        raise ConfigError(
            f"{path} is no Keras model, or it is damaged ({plain(error, limit=200)}); save it "
            "again by model.save()"
        ) from error


def _code(value: Any) -> Iterator[tuple[str, str]]:
    """Yield (class, name) of all that is code in a configuration."""
    if isinstance(value, dict):
        kind = str(value.get("class_name", "")).rpartition(">")[2]
        if kind in _CODE:
            inner = value.get("config")
            name = inner.get("name", "") if isinstance(inner, dict) else ""
            yield kind, str(name or value.get("name", ""))
        for each in value.values():
            yield from _code(each)
    elif isinstance(value, list):
        for each in value:
            yield from _code(each)
