"""Samples of --data for a model of any format, as its file or graph takes them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, Any

from device_agents.errors import ConfigError
from device_agents.plural import number_of
from pipeline.cli.options import echo
from pipeline.compress.passes.ptq import spread_rows
from pipeline.data.samples import samples
from pipeline.formats.api import ReadOptions
from pipeline.formats.pairing import move_inputs
from pipeline.formats.samples import sample_ends
from pipeline.formats.subjects import find_runnable

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from device_agents.api import TensorValue
    from pipeline.data.pictures.values import Values
    from pipeline.data.samples import Part, Samples
    from pipeline.formats.ends import Array, Arrays, FileEnds

_FED_SAMPLES = 4
LEARNT_BYTES = 2**30
"""Samples to learn from take no more memory, as float32."""

_LEARNT_LEAST = 4
_SHARED_LEAST = 32
"""Samples of an .npz from which on some calibrate and the others judge."""


def read_samples(
    data: Path,
    ends: FileEnds,
    values: Values | None,
    *,
    most: int,
    part: Part = "validation",
    again: bool = False,
) -> tuple[dict[str, Array], Any]:
    """Read samples; say what was guessed and what was left out.

    Args:
        data: what --data names (`pipeline.data.samples`).
        ends: of the model; every dimension known.
        values: what pixels are to it, if that is said.
        most: take so many at most, evenly spread.
        part: of pictures that are split.
        again: whether it has been said already what was guessed.

    Returns:
        Every input by name, (N, *shape) in real numbers, and labels (None without any).

    Raises:
        ConfigError: one sentence.
    """
    read, inputs = _read(data, ends, values, most=most, part=part, again=again)
    return inputs, read.labels


def _read(
    data: Path,
    ends: FileEnds,
    values: Values | None,
    *,
    most: int,
    part: Part,
    again: bool = False,
) -> tuple[Samples, dict[str, Array]]:
    """Return samples as they were read, and their inputs (N, *shape) by name."""
    wanted = sample_ends(ends, {end.name: end.shape or () for end in ends.inputs})
    if values is not None:
        wanted = tuple(replace(end, values=values) for end in wanted)
    read = samples(data, wanted, most=most, part=part)
    if read.guessed and values is None and not again:
        echo(
            "edgewright: pixels are fed as (p - 127.5) / 127.5, since the file does not say how; "
            "--mean and --scale do",
            err=True,
        )
    if read.words:
        echo(f"edgewright: {read.words}", err=True)
    inputs = {
        end.name: read.inputs[end.name].reshape(len(read), *(end.shape or ()))
        for end in ends.inputs
    }
    return read, inputs


def divide_samples(
    data: Path,
    ends: FileEnds,
    values: Values | None,
    *,
    calibrating: int,
    judging: int,
    apart: bool,
) -> tuple[dict[str, Array], dict[str, Array], Any]:
    """Read samples that calibrate and others that judge, where there are others.

    Of pictures those of train/ calibrate, where they are split; of an .npz of 32 samples or more
    every other one.

    Args:
        data: what --data names.
        ends: of the model; every dimension known.
        values: what pixels are to it, if that is said.
        calibrating: so many calibrate at most.
        judging: so many judge at most.
        apart: judge by others without labels too; else those that calibrate judge then.

    Returns:
        Inputs that calibrate, inputs that judge, and labels of the latter (None without any).

    Raises:
        ConfigError: one sentence.
    """
    if data.suffix.lower() == ".npz":
        inputs, labels = read_samples(data, ends, values, most=calibrating + judging)
        if labels is None and not apart:
            inputs, _ = read_samples(data, ends, values, most=calibrating)
            return inputs, inputs, None
        if len(next(iter(inputs.values()))) < _SHARED_LEAST:
            return inputs, inputs, labels
        first = {name: array[::2] for name, array in inputs.items()}
        second = {name: array[1::2] for name, array in inputs.items()}
        return first, second, None if labels is None else labels[1::2]
    calibration, labels = read_samples(data, ends, values, most=calibrating, part="train")
    if labels is None and not apart:
        return calibration, calibration, None
    judged, truths = read_samples(data, ends, values, most=judging, again=True)
    return calibration, judged, truths


@dataclass(frozen=True, slots=True)
class Shared:
    """Samples to learn from, and others to judge by, each with their truths if there are any."""

    learnt: dict[str, Array]
    truths: Any
    judged: dict[str, Array]
    labels: Any


def share_samples(data: Path, ends: FileEnds, values: Values | None, *, judging: int) -> Shared:
    """Read samples to learn from, and others to judge by.

    Those of train/ are learnt from and the others judge, where they are told apart; else every
    other one is learnt from. What would take more memory than `LEARNT_BYTES` is left out, evenly
    spread, and that is said.

    Args:
        data: what --data names.
        ends: of the model; every dimension known.
        values: what pixels are to it, if that is said.
        judging: so many judge at most.

    Raises:
        ConfigError: one sentence; also if there are too few to be shared.
    """
    sample_bytes = sum(4 * prod(end.shape or ()) for end in ends.inputs)
    most = max(LEARNT_BYTES // max(sample_bytes, 1), _SHARED_LEAST)
    read, inputs = _read(data, ends, values, most=most, part="train")
    if len(read) == most:
        echo(
            f"edgewright: {most} samples are taken to learn from, evenly spread, which is what "
            f"{LEARNT_BYTES >> 20} MiB hold",
            err=True,
        )
    if read.parted:
        judged, labels = read_samples(data, ends, values, most=judging, again=True)
        return Shared(inputs, read.labels, judged, labels)
    if len(read) < _LEARNT_LEAST:
        raise ConfigError(
            f"{data} holds {number_of(len(read), 'sample')}, which cannot be shared between "
            f"learning and judging; give {_LEARNT_LEAST} or more, and some hundreds to gain by it"
        )
    rows = 1 + 2 * spread_rows(len(read) // 2, judging)
    return Shared(
        {name: array[::2] for name, array in inputs.items()},
        None if read.labels is None else read.labels[::2],
        {name: array[rows] for name, array in inputs.items()},
        None if read.labels is None else read.labels[rows],
    )


@dataclass(frozen=True, slots=True)
class Fed:
    """Samples that model files are fed where they run as they are deployed.

    Attributes:
        ends: of the file that they are read for.
        inputs: every input by name, (N, *shape) in real numbers.
    """

    ends: FileEnds
    inputs: Arrays

    @property
    def arrays(self) -> list[Array]:
        """Every input (N, *shape) in the file's own numbers and order."""
        encoded = self.ends.encode(self.inputs)
        return [encoded[end.name] for end in self.ends.inputs]

    @property
    def values(self) -> list[TensorValue]:
        """The first sample as a device takes it: a file is timed on no other."""
        return self.ends.to_device(self._first)

    def of(self, other: Path, shapes: Mapping[str, tuple[int, ...]]) -> list[TensorValue]:
        """Return it as another file of the same inputs takes it. Raises ConfigError."""
        ends = _ends(other, shapes)
        return ends.to_device(move_inputs(self.ends, ends, self._first))

    @property
    def _first(self) -> dict[str, Array]:
        return {name: array[:1] for name, array in self.inputs.items()}


def read_fed(
    data: Path,
    file: Path,
    shapes: Mapping[str, tuple[int, ...]],
    values: Values | None,
    *,
    again: bool = False,
) -> Fed:
    """Read a few samples for a model file, the first first; see `read_samples`.

    Args:
        data: what --data names.
        file: a model file of a format that has a runtime here.
        shapes: of what it leaves open.
        values: what pixels are to it, if that is said.
        again: whether it has been said already what was guessed.

    Raises:
        ConfigError: one sentence.
    """
    ends = _ends(file, shapes)
    inputs, _ = read_samples(data, ends, values, most=_FED_SAMPLES, again=again)
    return Fed(ends, inputs)


def _ends(file: Path, shapes: Mapping[str, tuple[int, ...]]) -> FileEnds:
    found = find_runnable(str(file), ReadOptions(dict(shapes)))
    if found is None:
        raise ConfigError(
            f"--data feeds .tflite and .onnx files, which {file} is none of; leave it out"
        )
    return found.ends
