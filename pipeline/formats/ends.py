"""What goes into a model file and what comes out, and how real numbers meet the file's own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from device_agents.api import TensorValue
from device_agents.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from device_agents.model_files import Tensor
    from pipeline.data.pictures.values import Values

FloatArray = npt.NDArray[np.float32]
Array = npt.NDArray[Any]
Arrays = Mapping[str, Array]
"""Values of inputs or outputs by name."""


class InputsRefused(ConfigError):
    """A runtime has taken a file and cannot run it on the inputs that it is given."""


@dataclass(frozen=True, slots=True)
class TensorFormat:
    """One input or output of a file: real = scale * (value - zero_point) where it is integer.

    Attributes:
        name: in the file; no two inputs have one, and no two outputs.
        dtype: numpy's name, such as float32 or int8.
        shape: whole, a batch dimension of 1 included; -1 for a dimension that the file leaves
            open, None where it does not even say how many there are.
        scale: None for real numbers, and for integers that are no codes.
        zero_point: likewise.
        values: how pixels are fed to it, where the file says so.
    """

    name: str
    dtype: str
    shape: tuple[int, ...] | None
    scale: float | None = None
    zero_point: int | None = None
    values: Values | None = None

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Tell whether one sample may have this shape."""
        if self.shape is None:
            return True
        same_rank = len(self.shape) == len(shape)
        return same_rank and all(a in (b, -1) for a, b in zip(self.shape, shape, strict=True))

    def encode(self, values: Array) -> Array:
        """Return values as the file's own numbers, contiguous: nearest codes, saturated."""
        wanted = np.dtype(self.dtype)
        if self.scale is None or self.zero_point is None:
            return np.ascontiguousarray(values, wanted)
        limits = np.iinfo(wanted)
        codes = np.rint(values / np.float32(self.scale)) + self.zero_point
        return np.ascontiguousarray(np.clip(codes, limits.min, limits.max), wanted)

    def decode(self, raw: Array) -> Array:
        """Return codes and floats of any size as float32; integers and booleans as they are."""
        if self.scale is not None and self.zero_point is not None:
            return (raw.astype(np.float32) - self.zero_point) * np.float32(self.scale)
        return raw.astype(np.float32) if raw.dtype.kind == "f" else raw


@dataclass(frozen=True, slots=True)
class FileEnds:
    """What a file takes and gives, read from the file itself.

    `layout` is NHWC or NCHW, of images as its format takes them; images of the product are
    (N, C, H, W) float32.
    """

    layout: str
    inputs: tuple[TensorFormat, ...]
    outputs: tuple[TensorFormat, ...]

    def encode(self, inputs: Arrays) -> dict[str, Array]:
        """Return samples (N, *shape) of every input in the file's own numbers.

        Raises:
            ConfigError: an input is missing, unknown or of another shape, or they have unequal
                numbers of samples.
        """
        count_samples(inputs, [item.name for item in self.inputs])
        for item in self.inputs:
            if not item.fits(inputs[item.name].shape[1:]):
                shown = "x".join("?" if n == -1 else str(n) for n in item.shape or ())
                raise ConfigError(
                    f"the input {item.name!r} is given samples of shape "
                    f"{inputs[item.name].shape[1:]}; the file takes {shown or 'single numbers'}"
                )
        return {item.name: item.encode(inputs[item.name]) for item in self.inputs}

    def to_device(self, inputs: Arrays) -> list[TensorValue]:
        """Return samples (N, *shape) of every input as a device takes them, in the file's order.

        Raises:
            ConfigError: see `encode`.
        """
        encoded = self.encode(inputs)
        given = [encoded[item.name] for item in self.inputs]
        return [TensorValue(values.dtype.name, values.shape, values.tobytes()) for values in given]

    def decode(self, outputs: Arrays) -> dict[str, Array]:
        """Return every output (N, *shape) in real numbers: float32, integers where it is such."""
        return {item.name: item.decode(outputs[item.name]) for item in self.outputs}

    @property
    def input(self) -> TensorFormat:
        """The only input. Raises ConfigError if there are several."""
        if len(self.inputs) != 1:
            names = ", ".join(item.name for item in self.inputs) or "none"
            raise ConfigError(
                f"the file has {len(self.inputs)} inputs ({names}); a network of images has one"
            )
        return self.inputs[0]

    @property
    def output(self) -> TensorFormat:
        """The output that is a network of images' logits: the first."""
        return self.outputs[0]

    def pack(self, images: FloatArray) -> Array:
        """Return images (N, C, H, W) float32 as the file's samples, (N, …) contiguous.

        Raises:
            ConfigError: images of another shape than the file takes, or no file of images.
        """
        array = images.transpose(0, 2, 3, 1) if self.layout == "NHWC" else images
        shape = self.input.shape
        if shape is None or len(shape) != array.ndim:
            raise ConfigError(f"the file takes an input of shape {shape}, which is no image")
        if not self.input.fits((shape[0], *array.shape[1:])):
            height, width, channels = self._image_shape(shape)
            raise ConfigError(
                f"images of shape {images.shape} do not fit the file, which takes "
                f"(N, {channels}, {height}, {width})"
            )
        return self.input.encode(array)

    def unpack(self, raw: Array | bytes) -> FloatArray:
        """Return the file's first output, an array or its bytes, as logits (N, classes) float32."""
        array = np.frombuffer(raw, self.output.dtype) if isinstance(raw, bytes) else raw
        told = self.output.shape[-1] if self.output.shape else -1
        classes = told if told > 0 else (array.shape or (0,))[-1]
        if not classes or array.size % classes:
            raise ConfigError(
                f"the file gave outputs of shape {array.shape}, where it says {self.output.shape}"
            )
        logits: FloatArray = self.output.decode(array.reshape(-1, classes)).astype(np.float32)
        return logits

    def _image_shape(self, shape: tuple[int, ...]) -> tuple[int, int, int]:
        if self.layout == "NHWC":
            _, height, width, channels = shape
        else:
            _, channels, height, width = shape
        return height, width, channels


def count_samples(inputs: Arrays, names: Sequence[str]) -> int:
    """Return how many samples each input is given; 1 of a file that takes none.

    Raises:
        ConfigError: an input is missing or unknown, or their numbers of samples differ.
    """
    unknown = [name for name in inputs if name not in names]
    missing = [name for name in names if name not in inputs]
    if unknown or missing:
        wrong = f"has no input {unknown[0]!r}" if unknown else f"needs the input {missing[0]!r} too"
        raise ConfigError(f"the file {wrong}; its inputs: {', '.join(names) or 'none'}")
    counts = {name: len(values) if values.ndim else 0 for name, values in inputs.items()}
    if len(set(counts.values())) > 1 or 0 in counts.values():
        shown = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise ConfigError(f"every input needs as many samples, at least one; given: {shown}")
    return next(iter(counts.values()), 1)


def stack(name: str, values: Sequence[Any]) -> Array:
    """Return an output's values of N samples as (N, *shape).

    Raises:
        ConfigError: they are no numbers, or samples give other shapes.
    """
    # A runtime may give a single number as no array.
    values = [np.asarray(value) if isinstance(value, np.generic) else value for value in values]
    if not all(isinstance(value, np.ndarray) and value.dtype.kind in "fiub" for value in values):
        raise ConfigError(f"the output {name!r} is no tensor of numbers")
    shapes = sorted({value.shape for value in values})
    if len(shapes) != 1:
        raise ConfigError(
            f"the output {name!r} has other shapes for other samples ({shapes[0]}, {shapes[-1]}); "
            "compare one sample at a time"
        )
    return np.stack(values)


def tell_apart(names: Sequence[str]) -> list[str]:
    """Return names of inputs, or of outputs, that tell them apart: `x`, `x:1` where two are `x`."""
    seen: Counter[str] = Counter()
    found = []
    for name in names:
        found.append(f"{name}:{seen[name]}" if seen[name] else name)
        seen[name] += 1
    return found


def to_file_ends(layout: str, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> FileEnds:
    """Return what a file with these inputs and outputs takes and gives.

    Raises:
        ConfigError: it has no output, or an input or output that is no tensor of numbers.
    """
    if not outputs:
        raise ConfigError("the file has no output; a network has one at least")
    return FileEnds(layout, _formats(inputs), _formats(outputs))


def _formats(tensors: Sequence[Tensor]) -> tuple[TensorFormat, ...]:
    names = tell_apart([tensor.name for tensor in tensors])
    return tuple(map(_format, names, tensors))


def _format(name: str, tensor: Tensor) -> TensorFormat:
    try:
        numeric = np.dtype(tensor.dtype).kind in "fiub"
    except TypeError:
        numeric = False
    if not numeric:
        raise ConfigError(
            f"{name!r} of the file is {tensor.dtype}, and only numbers are given and taken here"
        )
    shape = tensor.dims
    whole = None if shape is None else tuple(n if isinstance(n, int) else -1 for n in shape)
    return TensorFormat(name, tensor.dtype, whole, tensor.scale, tensor.zero_point)
