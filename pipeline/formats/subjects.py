"""What can be asked for outputs: a file in its runtime, or a model's graph."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from device_agents import bounded
from device_agents.errors import ConfigError
from pipeline.data.pictures.values import Values
from pipeline.formats.api import Unsupported
from pipeline.formats.ends import FileEnds, TensorFormat
from pipeline.formats.files import describe_file, find_format, is_runnable, run_inputs
from pipeline.formats.source import read_model

if TYPE_CHECKING:
    from collections.abc import Mapping

    from models.model import Model
    from pipeline.formats.api import Numbers, ReadOptions
    from pipeline.formats.ends import Arrays


class Subject(Protocol):
    """Gives outputs for inputs; `numbers` are the coarsest that it computes with."""

    @property
    def name(self) -> str:
        """As sentences call it."""

    @property
    def ends(self) -> FileEnds:
        """What it takes and gives."""

    @property
    def numbers(self) -> Numbers:
        """The coarsest numbers that it computes with."""

    def run(self, inputs: Arrays) -> Arrays:
        """Return every output (N, *shape) by name, of real inputs (N, *shape) by name.

        Raises:
            ConfigError: it cannot be run.
            DeviceError: the device cannot run it.
        """


@dataclass(frozen=True, slots=True)
class FileSubject:
    """A model file in its own runtime on this computer, in a process of its own.

    `as_deployed` is of `Format.run`.
    """

    path: Path
    ends: FileEnds
    numbers: Numbers
    as_deployed: bool = True

    @property
    def name(self) -> str:
        """The file's name."""
        return self.path.name

    def run(self, inputs: Arrays) -> Arrays:
        """Run samples one by one; see `Subject.run`."""
        return run_inputs(self.path, inputs, apart=True, as_deployed=self.as_deployed)


@dataclass(frozen=True, slots=True)
class ModelSubject:
    """A model's graph, run by this program; its ends are laid out as in the graph."""

    source: str
    model: Model

    @property
    def name(self) -> str:
        """As the user called it."""
        return self.source

    @property
    def ends(self) -> FileEnds:
        """The graph's inputs and outputs, under their names in files."""
        model, graph = self.model, self.model.graph
        inputs = [
            TensorFormat(end.name, tensor.dtype, tensor.shape, values=Values.of(end))
            for tensor, end in zip(graph.inputs, model.inputs, strict=True)
        ]
        outputs = [
            TensorFormat(end.name, graph.dtype(name), graph.shape(name))
            for name, end in zip(graph.outputs, model.outputs, strict=True)
        ]
        return FileEnds("NHWC", tuple(inputs), tuple(outputs))

    @property
    def numbers(self) -> Numbers:
        """Real ones: a graph is run in float32 whatever its number format."""
        return "floats"

    def run(self, inputs: Arrays) -> Arrays:
        """Run samples one by one; see `Subject.run`."""
        from models.execute import execute_all
        from models.side_by_side import map_side_by_side

        graph = self.model.graph
        names = [tensor.name for tensor in graph.inputs]
        ends = [end.name for end in self.model.inputs]
        count = len(next(iter(inputs.values()))) if inputs else 1
        samples = (
            {name: inputs[end][at] for name, end in zip(names, ends, strict=True)}
            for at in range(count)
        )
        rows = list(map_side_by_side(lambda one: execute_all(self.model, one), samples))
        return {
            end.name: np.stack([row[name] for row in rows])
            for name, end in zip(graph.outputs, self.model.outputs, strict=True)
        }


@dataclass(frozen=True, slots=True)
class Remembered:
    """A subject that is run once on the same inputs, however often it is asked."""

    subject: Subject
    _known: list[tuple[Arrays, Arrays]] = field(default_factory=list, init=False)

    @property
    def name(self) -> str:
        """That of the subject."""
        return self.subject.name

    @property
    def ends(self) -> FileEnds:
        """Those of the subject."""
        return self.subject.ends

    @property
    def numbers(self) -> Numbers:
        """Those of the subject."""
        return self.subject.numbers

    def run(self, inputs: Arrays) -> Arrays:
        """Do what the subject does, or say what it gave."""
        for given, outputs in self._known:
            if _equal(given, inputs):
                return outputs
        made = self.subject.run(inputs)
        self._known.append((inputs, made))
        return made


def _equal(first: Arrays, second: Arrays) -> bool:
    return first.keys() == second.keys() and all(
        values.dtype == second[name].dtype and np.array_equal(values, second[name])
        for name, values in first.items()
    )


def open_subject(source: str, options: ReadOptions) -> Subject:
    """Return what gives the outputs of a model of any format.

    Files of a format that has a runtime here are run in it; of others the graph is run.

    Args:
        source: see `pipeline.formats.source.read_model`.
        options: the same.

    Raises:
        ConfigError: it cannot be read, or holds ops that only a runtime of its own could run.
    """
    runnable = find_runnable(source, options)
    if runnable is not None:
        return runnable
    found = read_model(source, options)
    if isinstance(found, Unsupported):
        raise ConfigError(f"{found.sentence}; and no runtime here runs such a file")
    return ModelSubject(source, found)


def find_runnable(source: str, options: ReadOptions) -> FileSubject | None:
    """Return a file of a format that has a runtime here, to be run in it; None for others.

    Raises:
        ConfigError: it is damaged, or `options.shapes` do not fit it.
    """
    path = Path(source)
    return _file(path, options.shapes) if is_runnable(path) else None


def _file(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> FileSubject:
    format_, ends = find_format(path), describe_file(path)
    numbers = format_.read_numbers(bounded.read_bytes(path))
    return FileSubject(path, _pinned(path, ends, shapes), numbers)


def _pinned(path: Path, ends: FileEnds, shapes: Mapping[str, tuple[int, ...]]) -> FileEnds:
    """Return ends whose open dimensions are those given; an open batch alone is 1."""
    names = [end.name for end in ends.inputs]
    given = {
        (names[0] if name == "" and len(names) == 1 else name): shape
        for name, shape in shapes.items()
    }
    if unknown := [name for name in given if name not in names]:
        raise ConfigError(
            f"{path} has no input {unknown[0]!r}; its inputs: {', '.join(names)}; correct "
            "--input-shape"
        )
    inputs = []
    for end in ends.inputs:
        shape = given.get(end.name, end.shape)
        if shape is not None and shape[:1] == (-1,):
            shape = (1, *shape[1:])
        if end.shape is not None and shape is not None and not end.fits(shape):
            raise ConfigError(
                f"{path}: its input {end.name!r} has the shape {_shown(end.shape)}; "
                f"--input-shape says {_shown(shape)}"
            )
        inputs.append(replace(end, shape=shape))
    return replace(ends, inputs=tuple(inputs))


def _shown(shape: tuple[int, ...]) -> str:
    """Return a shape as --input-shape takes it, with ? for what is open."""
    return "x".join("?" if size < 0 else str(size) for size in shape) or "a single number"
