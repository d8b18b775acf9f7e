"""What is read from a model file on the host."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

MOST_DIMS = 8
"""Of a constant: more are not read, since nothing has so many and a file may claim any number."""

NAME_BYTES = 256
"""Of a constant: a longer name is cut."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or output of a model file.

    Attributes:
        dtype: numpy's name, or what numpy does not have, such as string.
        dims: lengths, and names of open dimensions (empty: it has none); None when the file does
            not even say how many there are.
        scale: of an integer tensor: real = scale * (value - zero_point); None for real numbers.
    """

    name: str
    dtype: str
    dims: tuple[int | str, ...] | None
    scale: float | None = None
    zero_point: int | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """A file beside a model file that holds weights of it; `location` is as the model names it."""

    location: str
    path: Path


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A model file as it lies on the host.

    Attributes:
        format: `tflite`, `onnx`, `ort` or `null`.
        inputs: None when only the runtime can tell.
        parts: files that belong to it.
    """

    path: Path
    format: str
    inputs: tuple[Tensor, ...] | None = None
    outputs: tuple[Tensor, ...] | None = None
    parts: tuple[Part, ...] = ()
