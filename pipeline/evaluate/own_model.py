"""A user's own model in a run: read once, known again by the hash of what it was read from."""

from __future__ import annotations

import hashlib
import importlib.util
import tempfile
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from device_agents import bounded
from device_agents.errors import ConfigError
from device_agents.files import write_whole
from device_agents.model_files import RUNTIME_OF, read
from models.cost import cost
from models.model import Model
from pipeline.formats.api import ReadOptions, Unsupported
from pipeline.formats.files import is_runnable
from pipeline.formats.onnx.one_file import as_one_file
from pipeline.formats.source import read_model
from pipeline.formats.subjects import ModelSubject, find_runnable
from pipeline.store.memo import StepKind

if TYPE_CHECKING:
    from models.model import Input
    from pipeline.formats.ends import FileEnds, TensorFormat
    from pipeline.formats.subjects import Subject
    from pipeline.recipe.sections import ModelSection
    from pipeline.store.memo import Memo

READ = StepKind("read-model")


@dataclass(frozen=True, slots=True)
class Original:
    """The user's file, of a format that has a runtime, kept as one file with the run.

    Attributes:
        format: tflite | onnx.
        runtime: of devices, that takes it.
    """

    path: Path
    sha256: str
    format: str
    runtime: str


@dataclass(frozen=True, slots=True)
class OwnModel:
    """A model as its user brought it.

    Attributes:
        name: of the file, or of the callable.
        sha256: of what it was read from.
        options: with which it was read.
        model: its graph; None where our graph cannot say it.
        unsupported: why not; empty if it can.
        original: itself as a file that runtimes take; None where it is none.
    """

    name: str
    sha256: str
    options: ReadOptions
    model: Model | None
    unsupported: str
    original: Original | None

    @property
    def subject(self) -> Subject:
        """What gives its outputs here: its own runtime, else the graph."""
        if self.original is not None:
            file = find_runnable(str(self.original.path), self.options)
            if file is not None:
                return file
        if self.model is None:
            raise ConfigError(f"{self.unsupported}; and no runtime here runs such a file")
        return ModelSubject(self.name, self.model)

    @property
    def facts(self) -> dict[str, Any]:
        """What it was, for the page."""
        ends = self.subject.ends
        found: dict[str, Any] = {
            "file": self.name,
            "sha256": self.sha256,
            "inputs": _shown(ends, "inputs"),
            "outputs": _shown(ends, "outputs"),
        }
        if self.model is None:
            return found
        graph = self.model.graph
        kinds = Counter(op.kind for op in graph.ops)
        found["ops"] = ", ".join(f"{n} {kind}" for kind, n in kinds.most_common())
        with suppress(ConfigError, ArithmeticError, LookupError, TypeError):
            counted = cost(graph)
            found |= {"parameters": counted.params, "MACs": counted.macs}
        found["number format"] = str(self.model.number_format)
        found["history"] = list(self.model.history)
        return found


def read_own(section: ModelSection, memo: Memo, folder: Path) -> OwnModel:
    """Read the model that a recipe names, unless that has been done.

    Args:
        section: the recipe's.
        memo: remembers it by its content.
        folder: of the run, for a copy of the file.

    Raises:
        ConfigError: it cannot be read; or our graph cannot say it, and no runtime takes it.
    """
    weights = None if section.weights is None else Path(section.weights)
    shapes = {name: tuple(shape) for name, shape in section.shapes.items()}
    options = ReadOptions(shapes, trust=section.trust, weights=weights)
    digest = hash_source(section.file, weights)
    store = memo.store

    def work() -> tuple[dict[str, Any], dict[str, str]]:
        found = read_model(section.file, options)
        if isinstance(found, Unsupported):
            return {"unsupported": found.sentence}, {}
        with tempfile.TemporaryDirectory(prefix="edgewright-") as place:
            found.save(Path(place) / "model.npz")
            return {"unsupported": ""}, {"model": store.put_file(Path(place) / "model.npz")}

    inputs = {"source": digest, "shapes": {k: list(v) for k, v in shapes.items()}}
    step = memo.once(READ, inputs, work)
    kept = step.artifacts.get("model")
    own = OwnModel(
        name=Path(section.file).name,
        sha256=digest,
        options=options,
        model=None if kept is None else Model.load(store.path(kept)),
        unsupported=step.result["unsupported"],
        original=_keep_original(Path(section.file), memo, folder),
    )
    _ = own.subject  # refuses what nothing runs
    return own


def hash_source(source: str, weights: Path | None) -> str:
    """Return the SHA-256 of all files that a model is read from.

    Raises:
        ConfigError: there are none.
    """
    sha = hashlib.sha256()
    for path in (*list_sources(source), *([] if weights is None else [weights])):
        sha.update(hashlib.sha256(bounded.read_bytes(path)).digest())
    if ":" in source and not Path(source).exists():
        sha.update(source.rpartition(":")[2].encode())
    return sha.hexdigest()


def list_sources(source: str) -> list[Path]:
    """Return the files that a model is read from.

    Raises:
        ConfigError: there are none.
    """
    path = Path(source)
    if bounded.is_folder(path):
        return sorted(inside for inside in path.rglob("*") if inside.is_file())
    if bounded.is_file(path):
        parts = read(path).parts if is_runnable(path) else ()
        return [path, *(part.path for part in parts)]
    code = source.rpartition(":")[0]
    if code.endswith(".py"):
        return [Path(code)]
    with suppress(ImportError, ValueError):
        spec = importlib.util.find_spec(code) if code else None
        if spec is not None and spec.origin is not None:
            return [Path(spec.origin)]
    raise ConfigError(
        f"no model {source!r}: there is no such file; model.file is a path, or file.py:callable"
    )


def _keep_original(path: Path, memo: Memo, folder: Path) -> Original | None:
    """Copy the user's file into the run's folder, as one file, if a runtime takes it."""
    if not is_runnable(path):
        return None
    file = read(path)
    with as_one_file(file) as whole:
        content = whole.read_bytes()
    copy = folder / f"as-it-came{path.suffix}"
    if not copy.is_file() or copy.read_bytes() != content:
        write_whole(copy, content)
    return Original(copy, memo.store.put_bytes(content), file.format, RUNTIME_OF[file.format])


def _shown(ends: FileEnds, which: str) -> list[str]:
    def shape(end: TensorFormat) -> str:
        return "x".join("?" if n < 0 else str(n) for n in end.shape or ()) or "number"

    return [f"{end.name} {end.dtype} {shape(end)}" for end in getattr(ends, which)]


def describe(own: OwnModel, labels: tuple[str, ...], feed: Input | None) -> OwnModel:
    """Return it with what data says of its only input and output, where it does not say so itself.

    Args:
        own: the model.
        labels: the names of classes; taken if it has so many units.
        feed: how pixels are fed; None where that is not known.
    """
    model = own.model
    if model is None:
        return own
    inputs, outputs = model.inputs, model.outputs
    if feed is not None and len(inputs) == 1 and not inputs[0].mean:
        fed = replace(inputs[0], mean=feed.mean, scale=feed.scale, colours=feed.colours)
        inputs = (fed,)
    units = model.graph.shape(model.graph.outputs[0])[-1]
    if len(outputs) == 1 and not outputs[0].labels and len(labels) == units:
        outputs = (replace(outputs[0], labels=labels),)
    return replace(own, model=replace(model, inputs=inputs, outputs=outputs))
