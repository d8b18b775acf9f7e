"""What `edgewright inspect` finds: the facts, partitions, and what can be done with a model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from device_agents import bounded
from device_agents.errors import ConfigError
from device_agents.model_files import RUNTIME_OF, input_shapes, read

if TYPE_CHECKING:
    from collections.abc import Mapping

    from models.model import Model
    from pipeline.formats.facts.values import Facts
    from pipeline.formats.tflite.partitions import Partitions

_AT_ONCE = ("tflite", "onnx")
_SLOWLY = {"Keras": "TensorFlow", "SavedModel": "TensorFlow", "exported program of torch": "torch"}


@dataclass(frozen=True, slots=True)
class Inspection:
    """What was found of a model.

    Attributes:
        facts: of the file.
        partitions: of a TFLite file; None of others.
        can: what can be done with it, a sentence each.
        cannot: what cannot, with the reason.
        number_format: of the whole, by the name that commands take; empty where it is no graph.
    """

    facts: Facts
    partitions: Partitions | None
    can: tuple[str, ...]
    cannot: tuple[str, ...]
    number_format: str = ""


def inspect_model(
    source: str, shapes: Mapping[str, tuple[int, ...]], *, as_graph: bool
) -> Inspection:
    """Look into a model.

    Args:
        source: path of a file or folder, or FILE.py:CALLABLE.
        shapes: of inputs that it leaves open.
        as_graph: read it as a graph too where that takes torch or TensorFlow.

    Raises:
        ConfigError: there is none, it is of no known kind, or damaged; or `shapes` do not fit it.
    """
    path = Path(source)
    if not bounded.is_folder(path) and (path.suffix == ".npz" or _is_module(path)):
        model = _read(source, shapes)
        if isinstance(model, str):
            raise ConfigError(model)
        return _of_model(path, model)
    from pipeline.formats.facts.find import find_facts

    facts = find_facts(source, shapes)
    format_ = facts.format.lower()
    can, cannot = _running(path, format_), list[str]()
    number_format = ""
    if format_ in _AT_ONCE or as_graph:
        found = _read(source, shapes)
        if isinstance(found, str):
            if shapes and format_ in _AT_ONCE:
                input_shapes(read(path), shapes)  # refuses what the file is not to blame for
            cannot.append(found)
        else:
            can += _changing(found)
            facts, number_format = _counted(facts, found), str(found.number_format)
    else:
        needs = _SLOWLY[facts.format]
        can.append(
            f"`edgewright export` reads it as a graph by {needs}; inspect --graph tells whether "
            "that works"
        )
    parts = _partitions(path, format_)
    return Inspection(facts, parts, tuple(can), tuple(cannot), number_format)


def _is_module(path: Path) -> bool:
    return ":" in path.name and not bounded.is_file(path)


def _read(source: str, shapes: Mapping[str, tuple[int, ...]]) -> Model | str:
    """Return the model in our graph, or the sentence that says why it is none."""
    from models.model import Model
    from pipeline.formats.api import ReadOptions
    from pipeline.formats.source import read_model

    try:
        found = read_model(source, ReadOptions(shapes))
    except ConfigError as error:
        return str(error)
    return found if isinstance(found, Model) else found.sentence


def _of_model(path: Path, model: Model) -> Inspection:
    from pipeline.formats.facts.graph import model_facts

    own = path.suffix == ".npz"
    size_bytes = path.stat().st_size if own else 0
    format_ = "edgewright" if own else "torch module"
    facts = model_facts(model, format_=format_, size_bytes=size_bytes)
    return Inspection(facts, None, tuple(_changing(model)), (), str(model.number_format))


def _counted(facts: Facts, model: Model) -> Facts:
    """Return facts with what the file does not tell counted on the graph."""
    if facts.macs is not None and facts.peak_activation_bytes is not None:
        return facts
    from pipeline.formats.facts.graph import model_facts

    counted = model_facts(model, format_="", size_bytes=0)
    params = counted.params if facts.params is None else facts.params
    macs = counted.macs if facts.macs is None else facts.macs
    peak = facts.peak_activation_bytes
    peak = counted.peak_activation_bytes if peak is None else peak
    return replace(facts, params=params, macs=macs, peak_activation_bytes=peak, uncounted="")


def _running(path: Path, format_: str) -> list[str]:
    """Say where a file runs as it is."""
    runtime = RUNTIME_OF.get(format_)
    if runtime is None:
        return []
    from profiles.registry import list_devices

    names = [
        profile.name
        for profile in list_devices().profiles
        if not profile.is_template and profile.runtime == runtime
    ]
    where = f", such as {', '.join(names)}" if names else ""
    shape = " with --input-shape" if _needs_shapes(path) else ""
    return [f"bench, verify and deploy it{shape}: on devices with the runtime {runtime}{where}"]


def _needs_shapes(path: Path) -> bool:
    """Tell whether the file runs at given shapes only; an open batch is 1 without any."""
    try:
        input_shapes(read(path), {})
    except ConfigError:
        return True
    return False


def _changing(model: Model) -> list[str]:
    """Say what can be made of a model in our graph."""
    from pipeline.compress.passes import PASSES
    from pipeline.formats import FORMATS, create

    formats = [
        f"{name} ({', '.join(map(str, create(name).number_formats))})" for name in FORMATS.names()
    ]
    floats = not model.number_format.is_static
    passes = f"; passes: {', '.join(PASSES.names())}" if floats else ""
    return [f"it is known as a graph: export it to {', '.join(formats)}{passes}"]


def _partitions(path: Path, format_: str) -> Partitions | None:
    if format_ != "tflite":
        return None
    from pipeline.formats.tflite.contents import read_contents
    from pipeline.formats.tflite.partitions import predict

    return predict(read_contents(bounded.read_bytes(path)))
