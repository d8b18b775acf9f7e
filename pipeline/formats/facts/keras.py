"""Facts of Keras files (.keras, .h5), from their configuration and their arrays; no TensorFlow.

They are read in a process of its own: a damaged file can end the HDF5 library with SIGSEGV.
"""

from __future__ import annotations

import io
import json
import sys
import tempfile
import zipfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from device_agents import bounded
from device_agents.errors import ConfigError
from device_agents.model_files import Tensor
from pipeline.formats.child import ask, serve
from pipeline.formats.facts.values import Facts, Weights, shorten, sort_counts

if TYPE_CHECKING:
    from collections.abc import Iterator

_JSON_BYTES = 16 << 20
_TIMEOUT_S = 60.0
_OPTIMIZER = "optimizer"


def keras_facts(path: Path) -> Facts:
    """Return the facts of a file.

    Raises:
        ConfigError: it is no Keras file, or damaged; h5py is not installed.
    """
    with tempfile.TemporaryDirectory(prefix="edgewright-keras-") as folder:
        request = {"path": str(path.resolve())}
        try:
            found = ask(__name__, request, Path(folder), subject=str(path), timeout_s=_TIMEOUT_S)
        except ConfigError as error:
            raise _refused(path, error) from error
    try:
        return _facts(found, path.stat().st_size)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise _refused(path, error) from error


def _refused(path: Path, error: Exception) -> ConfigError:
    said = shorten(str(error)) or type(error).__name__
    return ConfigError(
        f"{path} is no Keras model, or it is damaged ({said}); save it again with model.save()"
    )


def _answer(request: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Read a file: in a process of its own, which damaged HDF5 may end."""
    del folder
    try:
        import h5py
    except ModuleNotFoundError as error:
        raise ConfigError("the Python package h5py is needed: pip install h5py") from error
    content = bounded.read_bytes(Path(request["path"]))
    try:
        zipped = content[:2] == b"PK"
        config, producer, arrays = _archive(content) if zipped else (None, "", content)
        with h5py.File(io.BytesIO(arrays), "r") as file:
            if config is None:
                config, producer = _attributes(file)
            weights = _weights(file)
    except Exception as error:  # of a file that may hold anything
        raise ConfigError(shorten(str(error)) or type(error).__name__) from error
    version = "3, .keras" if zipped else "HDF5"
    return {
        "config": config,
        "producer": producer,
        "version": version,
        "params": weights.params,
        "weight_bytes": dict(weights.weight_bytes),
    }


def _facts(found: dict[str, Any], size_bytes: int) -> Facts:
    config = found["config"]
    layers = list(_layers(config))
    return Facts(
        format="Keras",
        version=found["version"],
        producer=found["producer"],
        size_bytes=size_bytes,
        inputs=tuple(_inputs(config, layers)),
        outputs=tuple(Tensor(name, "float32", None) for name in _ends(config, "output_layers")),
        ops=sort_counts(Counter(str(layer["class_name"]) for layer in layers)),
        params=found["params"],
        weight_bytes=sort_counts(found["weight_bytes"]),
        uncounted="a Keras file does not hold the shapes between its layers",
        metadata={"name": shorten(str(config.get("config", {}).get("name", "")))},
        remarks=_remarks(layers),
    )


def _archive(content: bytes) -> tuple[dict[str, Any], str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        bounded.refuse_expansion(len(content), sum(info.file_size for info in archive.infolist()))
        config = _config(archive.read("config.json"))
        meta = json.loads(archive.read("metadata.json"))
        producer = f"keras {meta.get('keras_version', '')}"
        return config, shorten(producer), archive.read("model.weights.h5")


def _attributes(file: Any) -> tuple[dict[str, Any], str]:
    if "model_config" not in file.attrs:
        raise ValueError("it holds weights and no model")
    producer = f"keras {file.attrs.get('keras_version', '')} {file.attrs.get('backend', '')}"
    return _config(file.attrs["model_config"]), shorten(producer)


def _config(text: str | bytes) -> dict[str, Any]:
    if len(text) > _JSON_BYTES:
        raise ValueError("its configuration is too large")
    config = json.loads(text)
    if not isinstance(config, dict) or "class_name" not in config:
        raise ValueError("its configuration names no model")
    return config


def _weights(file: Any) -> Weights:
    import h5py

    weights = Weights()

    def visit(name: str, item: Any) -> None:
        # A .keras file keeps those of the optimiser in a group of this name.
        if isinstance(item, h5py.Dataset) and not name.startswith(_OPTIMIZER):
            weights.add(str(item.dtype), int(item.size), int(item.nbytes))

    file.get("model_weights", file).visititems(visit)
    return weights


def _layers(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the layers of a model, those of models within it too."""
    for layer in config.get("config", {}).get("layers", ()):
        inner = layer.get("config", {})
        if isinstance(inner, dict) and "layers" in inner:
            yield from _layers(layer)
        else:
            yield layer


def _inputs(config: dict[str, Any], layers: list[dict[str, Any]]) -> Iterator[Tensor]:
    wanted = _ends(config, "input_layers")
    for layer in layers:
        given = layer.get("config", {})
        shape = given.get("batch_shape", given.get("batch_input_shape"))
        name = layer.get("name", given.get("name", ""))
        if shape is not None and (not wanted or name in wanted):
            dims = tuple("" if length is None else int(length) for length in shape)
            yield Tensor(str(name), _dtype(given.get("dtype")), dims)
            if not wanted:  # of a sequence of layers the first says what is fed
                return


def _ends(config: dict[str, Any], which: str) -> list[str]:
    """Return the names of input or output layers, as [name, node, place] or a list of such."""
    found = config.get("config", {}).get(which, [])
    if found and isinstance(found[0], str):
        found = [found]
    return [str(item[0]) for item in found]


def _dtype(given: Any) -> str:
    if isinstance(given, dict):
        given = given.get("config", {}).get("name")
    return str(given or "float32")


def _remarks(layers: list[dict[str, Any]]) -> tuple[str, ...]:
    if any(layer["class_name"] == "Lambda" for layer in layers):
        return ("it has Lambda layers, which are code: it is only read with --trust",)
    return ()


if __name__ == "__main__":
    sys.exit(serve(sys.argv[1:], _answer))
