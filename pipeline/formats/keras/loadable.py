"""A Keras file as the Keras of today loads it, to compute in float32.

Files of Keras 2 name arguments that Keras 3 has dropped; those that say no more than that nothing
is out of the ordinary are left away. A mixed precision is a way of training: the variables are
float32, and so is what is computed here, as on devices.
"""

from __future__ import annotations

import io
import json
import tempfile
import zipfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

_CONFIG = "config.json"
_MIXED = ("mixed_float16", "mixed_bfloat16")
_DROPPED: dict[str, dict[str, Any]] = {
    "DepthwiseConv2D": {"groups": 1},
    "DepthwiseConv1D": {"groups": 1},
    "SeparableConv2D": {"groups": 1},
    "SeparableConv1D": {"groups": 1},
    "Conv2DTranspose": {"groups": 1},
    "Conv1DTranspose": {"groups": 1},
    **{name: {"time_major": False} for name in ("LSTM", "GRU", "SimpleRNN", "RNN")},
}
"""Class -> arguments of Keras 2 that Keras 3 does not know, with the value that means nothing."""


@contextmanager
def loadable(path: Path) -> Iterator[Path]:
    """Yield a Keras file that can be loaded: `path` itself where nothing is in the way.

    Raises:
        OSError, KeyError, ValueError, zipfile.BadZipFile: it is damaged.
    """
    content = path.read_bytes()
    zipped = content[:2] == b"PK"
    made = _archive(content) if zipped else _hdf5(content)
    if made is None:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="edgewright-keras-") as name:
        file = Path(name) / f"model{'.keras' if zipped else '.h5'}"
        file.write_bytes(made)
        yield file


def modernise(config: Any) -> Any:
    """Return a configuration as Keras 3 takes it, all layers in float32."""
    if isinstance(config, list):
        return [modernise(each) for each in config]
    if not isinstance(config, dict):
        return "float32" if config in _MIXED else config
    found: dict[str, Any] = {key: modernise(value) for key, value in config.items()}
    inner = found.get("config")
    dropped: dict[str, Any] = _DROPPED.get(str(found.get("class_name")), {})
    if isinstance(inner, dict):
        for key, nothing in dropped.items():
            if inner.get(key) == nothing:
                del inner[key]
    return found


def _archive(content: bytes) -> bytes | None:
    """Return a .keras file with another configuration; None if that stays as it is."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        config = json.loads(archive.read(_CONFIG))
        changed = modernise(config)
        if changed == config:
            return None
        made = io.BytesIO()
        with zipfile.ZipFile(made, "w") as target:
            for item in archive.infolist():
                held = archive.read(item) if item.filename != _CONFIG else json.dumps(changed)
                target.writestr(item, held)
    return made.getvalue()


def _hdf5(content: bytes) -> bytes | None:
    """Return an .h5 file with another configuration; None if that stays as it is."""
    import h5py

    held = io.BytesIO(content)
    with h5py.File(held, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        changed = modernise(config)
        if changed == config:
            return None
        file.attrs["model_config"] = json.dumps(changed)
    return held.getvalue()
