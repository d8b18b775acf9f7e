"""What a model file's inputs are to samples that a user gives."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from device_agents.errors import ConfigError
from pipeline.data.pictures.values import Values
from pipeline.data.samples import End
from pipeline.formats.api import NO_SHAPES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipeline.formats.ends import FileEnds, TensorFormat

_COLOURS = (1, 3)
_PICTURE_RANK = 4


def sample_ends(
    ends: FileEnds, shapes: Mapping[str, tuple[int, ...]] = NO_SHAPES
) -> tuple[End, ...]:
    """Return the inputs of a file for `pipeline.data.samples`; `shapes` pins what it leaves open.

    Raises:
        ConfigError: an input of which neither says how many dimensions it has.
    """
    return tuple(_end(item, shapes.get(item.name, item.shape), ends.layout) for item in ends.inputs)


def _end(item: TensorFormat, shape: tuple[int, ...] | None, usual: str) -> End:
    if shape is None:
        raise ConfigError(
            f"the file does not say what shape its input {item.name!r} has; pin it with "
            f"--input-shape {item.name}=1x…"
        )
    codes = item.scale is not None
    layout = _layout(shape, usual) if len(shape) == _PICTURE_RANK else ""
    dtype = "float32" if codes else item.dtype
    return End(item.name, shape, dtype, layout, values=item.values or _pixels_as_codes(item))


def _layout(shape: tuple[int, ...], usual: str) -> str:
    """Return which axis holds colours: the format's usual one unless only the other can."""
    first, last = shape[1] in _COLOURS, shape[3] in _COLOURS
    if first == last:
        return usual
    return "NCHW" if first else "NHWC"


def _pixels_as_codes(item: TensorFormat) -> Values | None:
    """Return how pixels are fed to an input of 8-bit codes: as codes, for which it was made."""
    if item.scale is None or item.zero_point is None or np.dtype(item.dtype).itemsize != 1:
        return None
    lowest = int(np.iinfo(item.dtype).min)
    return Values((float(item.zero_point - lowest),), (item.scale,), "")
