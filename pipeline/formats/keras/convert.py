"""The process in which TensorFlow converts a Keras file or SavedModel to TFLite, and runs it once.

It leaves the file, one random sample of each input, and what the model gives of them.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from device_agents.errors import ConfigError
from device_agents.plain_text import plain
from pipeline.formats.child import serve
from pipeline.formats.keras.code import own_classes
from pipeline.formats.keras.loadable import loadable
from pipeline.formats.keras.recurrent import Recurrent, find_recurrent
from pipeline.formats.keras.signature import pick_signature
from pipeline.formats.keras.without_optimizer import without_optimizer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

CONTENT, SAMPLES, REFERENCE = "model.tflite", "samples.npz", "reference.npz"

_ASSIGNING = ("AssignVariableOp", "AssignAddVariableOp", "AssignSubVariableOp")


@dataclass(frozen=True, slots=True)
class _Source:
    """A model in TensorFlow.

    Attributes:
        owner: what holds its variables, for them to stay.
        inputs: its specifications by name, dimensions that are open None.
        call: takes tensors by name, gives tensors by name.
        recurrent: its layers that run over a sequence; None of a SavedModel, whose layers are gone.
    """

    owner: Any
    inputs: Mapping[str, Any]
    call: Callable[[dict[str, Any]], dict[str, Any]]
    recurrent: Recurrent | None = None


def answer(request: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Convert what a request names; return the names of inputs and outputs.

    Raises:
        ConfigError: the sentence for the user.
    """
    import tensorflow as tf

    name = request["source"]
    try:
        source = _load(Path(request["path"]), trust=request["trust"])
    except Exception as error:  # TensorFlow's have no common base
        said = f"TensorFlow cannot load {name}: {_first(error)}"
        raise ConfigError(f"{said.rstrip('.')}{_own(Path(request['path']))}") from error
    if source.recurrent is not None and (kept := source.recurrent.stateful):
        raise ConfigError(
            f"{name} keeps a state from one inference to the next in its recurrent layers "
            f"({plain(', '.join(kept), limit=200)}), which the converter loses; build it with "
            "stateful=False, or with the states as inputs and outputs (initial_state=, "
            "return_state=True)"
        )
    specs = _pinned(source.inputs, request["shapes"], name)
    samples = {key: _draw(spec) for key, spec in specs.items()}
    given = {key: tf.constant(value) for key, value in samples.items()}
    try:
        # Before anything is written out, so that this is held against the model as it came.
        outputs = {key: np.asarray(value) for key, value in source.call(given).items()}
        if source.recurrent is not None:
            source.recurrent.write_out()
        (folder / CONTENT).write_bytes(_convert(source, specs))
    except Exception as error:
        raise ConfigError(f"TensorFlow cannot convert {name}: {_first(error)}") from error
    _save(folder / SAMPLES, samples)
    _save(folder / REFERENCE, outputs)
    return {"inputs": list(samples), "outputs": list(outputs)}


def _own(path: Path) -> str:
    """Return the end of a sentence on layers of the author's own in a Keras file."""
    own = own_classes(path) if path.is_file() else []
    if not own:
        return ""
    return (
        f"; it holds layers of its author's own ({plain(', '.join(own), limit=200)}), whose code "
        "is not in it: write the model as a SavedModel by model.export(folder), and give that"
    )


def _convert(source: _Source, specs: Mapping[str, Any]) -> bytes:
    """Return the TFLite file, with the variables as constants; the converter leaves them else."""
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    names: list[str] = []

    def run(*given: Any) -> list[Any]:
        found = source.call(dict(zip(specs, given, strict=True)))
        names[:] = found
        return list(found.values())

    signature = list(specs.values())
    concrete = tf.function(run, input_signature=signature).get_concrete_function()
    # One with a state keeps its variables, for the reader to name the ops that change them.
    plain_function = concrete if _assigns(concrete) else convert_variables_to_constants_v2(concrete)
    module = tf.Module()
    module.owner = source.owner
    module.run = tf.function(
        lambda *given: dict(zip(names, plain_function(*given), strict=True)),
        input_signature=signature,
    )
    function = module.run.get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], module)
    # What TFLite has no op for is named by the reader then, instead of failing here.
    sets = tf.lite.OpsSet
    converter.target_spec.supported_ops = [sets.TFLITE_BUILTINS, sets.SELECT_TF_OPS]
    content: bytes = converter.convert()
    return content


def _assigns(function: Any) -> bool:
    """Tell whether a function changes a variable."""
    graph = function.graph.as_graph_def()
    inner = [node for part in graph.library.function for node in part.node_def]
    return any(node.op in _ASSIGNING for node in (*graph.node, *inner))


def _load(path: Path, *, trust: bool) -> _Source:
    import tensorflow as tf

    if path.is_dir():
        with without_optimizer(path) as folder:
            loaded = tf.saved_model.load(str(folder))
        signature = loaded.signatures[pick_signature(loaded.signatures)]
        inputs = signature.structured_input_signature[1]
        return _Source(loaded, inputs, lambda given: _in_order(signature(**given)))
    with loadable(path) as file:
        model = tf.keras.models.load_model(file, compile=False, safe_mode=not trust)
    names = [item.name.partition(":")[0] for item in model.inputs]
    inputs = {
        name: tf.TensorSpec(item.shape, item.dtype, name)
        for name, item in zip(names, model.inputs, strict=True)
    }
    ends = list(getattr(model, "output_names", ()))

    def call(given: dict[str, Any]) -> dict[str, Any]:
        values = [given[name] for name in names]
        found = model(values[0] if len(values) == 1 else values, training=False)
        flat = tf.nest.flatten(found)
        named = ends if len(set(ends)) == len(flat) else [f"output_{n}" for n in range(len(flat))]
        return dict(zip(named, flat, strict=True))

    return _Source(model, inputs, call, find_recurrent(model))


def _in_order(outputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return outputs by their names, output_2 before output_10: a signature has no order."""
    return {name: outputs[name] for name in sorted(outputs, key=_numbered)}


def _numbered(name: str) -> list[tuple[int, str]]:
    parts = re.split(r"(\d+)", name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def _pinned(inputs: Mapping[str, Any], shapes: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return specifications without open dimensions: a batch of 1, others as the user says.

    Raises:
        ConfigError: a dimension stays open, or a shape is of no input or does not fit.
    """
    import tensorflow as tf

    if "" in shapes:
        if len(inputs) > 1:
            raise ConfigError(
                f"a shape without a name is that of an only input; {name} takes {', '.join(inputs)}"
            )
        shapes = {next(iter(inputs)): shapes[""]}
    if unknown := [key for key in shapes if key not in inputs]:
        raise ConfigError(f"{name} has no input {unknown[0]!r}; its inputs: {', '.join(inputs)}")
    pinned = {}
    for key, spec in inputs.items():
        if spec.dtype == tf.string:
            raise ConfigError(
                f"the input {key!r} of {name} takes strings, and only numbers are fed here; save "
                "the part of the model behind it"
            )
        dims = None if spec.shape.rank is None else list(spec.shape)
        wanted = shapes.get(key)
        shown = "any shape" if dims is None else "x".join(str(n or "?") for n in dims)
        if wanted is None and dims is not None:
            wanted = [1 if n is None and place == 0 else n for place, n in enumerate(dims)]
        if wanted is None or None in wanted:
            example = "1" + shown[1:].replace("?", "64") if dims else "1x224x224x3"
            raise ConfigError(
                f"{name} leaves dimensions of its input {key!r} open ({shown}); give "
                f"--input-shape {key}={example}, with its own sizes"
            )
        fits = dims is None or (
            len(dims) == len(wanted)
            and all(n in (None, size) for n, size in zip(dims, wanted, strict=True))
        )
        if not fits:
            given = "x".join(map(str, wanted))
            raise ConfigError(f"the input {key!r} of {name} is {shown}, which {given} does not fit")
        pinned[key] = tf.TensorSpec(wanted, spec.dtype, key)
    return pinned


def _draw(spec: Any) -> Any:
    """Return one random sample: normal numbers, or zeros and ones where integers are taken."""
    rng = np.random.default_rng(0)
    dtype, shape = spec.dtype.as_numpy_dtype, tuple(spec.shape)
    if np.issubdtype(dtype, np.floating):
        return rng.standard_normal(shape).astype(dtype)
    return rng.integers(0, 2, shape).astype(dtype)


def _save(path: Path, arrays: dict[str, Any]) -> None:
    # By their places: a name may be anything.
    numbered: dict[str, Any] = {str(place): value for place, value in enumerate(arrays.values())}
    np.savez(path, allow_pickle=False, **numbered)


def _first(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return plain(lines[0] if lines else type(error).__name__, limit=300)


if __name__ == "__main__":
    sys.exit(serve(sys.argv[1:], answer))
