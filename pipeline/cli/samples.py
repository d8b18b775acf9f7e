"""Samples of --data for a model of any format, as its file or graph takes them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pipeline.cli.options import echo
from pipeline.data.samples import samples
from pipeline.formats.samples import sample_ends

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.data.pictures.values import Values
    from pipeline.data.samples import Part
    from pipeline.formats.ends import Array, FileEnds


def read_samples(
    data: Path, ends: FileEnds, values: Values | None, *, most: int, part: Part = "validation"
) -> tuple[dict[str, Array], Any]:
    """Read samples; say what was guessed and what was left out.

    Args:
        data: what --data names (`pipeline.data.samples`).
        ends: of the model; every dimension known.
        values: what pixels are to it, if that is said.
        most: take so many at most, evenly spread.
        part: of pictures that are split.

    Returns:
        Every input by name, (N, *shape) in real numbers, and labels (None without any).

    Raises:
        ConfigError: one sentence.
    """
    wanted = sample_ends(ends, {end.name: end.shape or () for end in ends.inputs})
    if values is not None:
        wanted = tuple(replace(end, values=values) for end in wanted)
    read = samples(data, wanted, most=most, part=part)
    if read.guessed and values is None:
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
    return inputs, read.labels
