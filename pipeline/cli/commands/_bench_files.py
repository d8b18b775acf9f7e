"""The files that `edgewright bench` runs, with the shapes and the inputs that they are run on."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from device_agents.errors import ConfigError
from device_agents.model_files import check_runtime, input_shapes, open_input, read
from pipeline.cli.options import echo, parse_shapes, to_values

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from device_agents.api import TensorValue
    from device_agents.model_files import ModelFile
    from pipeline.formats.ends import Array

TOOL = "benchmark_model"
"""The runtime of devices without the agent; it takes no inputs."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A model file to run.

    Attributes:
        path: of it.
        shapes: given for what it leaves open.
        inputs: what it is run on, (samples, …) of each input; seeded values without any.
        arrays: the same as arrays.
    """

    path: Path
    shapes: dict[str, tuple[int, ...]]
    inputs: Sequence[TensorValue] = ()
    arrays: list[Array] = field(default_factory=list)


def find_subjects(file: ModelFile, options: dict[str, Any], runtime: str) -> list[Subject]:
    """Return the model and, if there is one, the reference; raises ConfigError.

    A shape is of both, where both leave an input of that name open.
    """
    given = parse_shapes(options["shapes"])
    if options["reference"] is None:
        input_shapes(file, given)
        return [Subject(file.path, given)]
    reference = read(options["reference"])
    check_runtime(reference, runtime)
    others = {
        name: shape for name, shape in given.items() if open_input(reference, name) is not None
    }
    own = {
        name: shape
        for name, shape in given.items()
        if name not in others or open_input(file, name) is not None
    }
    input_shapes(file, own)
    input_shapes(reference, others)
    return [Subject(file.path, own), Subject(reference.path, others)]


def feed(subjects: list[Subject], options: dict[str, Any], runtime: str) -> list[Subject]:
    """Return the files with what --data gives to run them on; raises ConfigError.

    A reference may be any other model; one of other inputs is run on seeded values.
    """
    data = options["data"]
    if data is None:
        return subjects
    from pipeline.cli.samples import read_fed

    if runtime == TOOL:
        raise ConfigError(
            f"{TOOL} makes up what it runs a model on; take another --runtime for --data"
        )
    values = to_values(options["mean"], options["scale"], options["colours"])
    model, *others = subjects
    given = read_fed(data, model.path, model.shapes, values)
    fed = [replace(model, inputs=given.values, arrays=given.arrays)]
    for other in others:
        try:
            fed.append(replace(other, inputs=given.of(other.path, other.shapes)))
        except ConfigError as error:
            echo(
                f"edgewright: {other.path} is run on generated inputs, since {data} does not fit "
                f"it: {error}",
                err=True,
            )
            fed.append(other)
    return fed
