"""The arrays of an .npz as samples of a model's inputs: by name, in its shapes and types."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from device_agents import bounded
from device_agents.near_names import did_you_mean
from models import npz_file
from pipeline.data.api import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pipeline.data.samples import End

Array = npt.NDArray[Any]

_LABELS = "labels"
"""The array that holds truths, unless an input is called so."""

_PLAIN = "arr_"
"""How numpy begins names of arrays that were given none."""


def read_arrays(
    path: Path, ends: Sequence[End], most: int | None
) -> tuple[dict[str, Array], Array | None]:
    """Return an array (N, …) of each end by name, and labels (N, …) if the file has them.

    Args:
        path: of the .npz.
        ends: the inputs of a model.
        most: take so many samples, evenly spread; all if there are fewer or it is None.

    Raises:
        DataError: it cannot be read, an input is missing or unknown, a shape or type does not fit,
            or a number is none.
    """
    arrays = _read(path)
    labels = None if any(_LABELS in (e.name, e.also) for e in ends) else arrays.pop(_LABELS, None)
    named = _by_name(path, arrays, ends)
    inputs = {end.name: _checked(path, end, named[end.name]) for end in ends}
    counts = {name: len(array) for name, array in inputs.items()}
    count = max(counts.values())
    for end in ends:
        if counts[end.name] not in (1, count):
            told = ", ".join(f"{name} {n}" for name, n in counts.items())
            raise DataError(f"{path}: its arrays hold different numbers of samples: {told}")
    rows = np.linspace(0, count - 1, min(count, most or count)).astype(int)
    chosen = {
        name: array[rows if len(array) == count else np.zeros(len(rows), int)]
        for name, array in inputs.items()
    }
    if labels is None:
        return chosen, None
    if labels.ndim < 1 or len(labels) != count or labels.dtype.kind not in "iufb":
        raise DataError(
            f"{path}: labels {labels.dtype}{list(labels.shape)} are not numbers for {count} samples"
        )
    wide = np.float32 if labels.dtype.kind == "f" else np.int64
    return chosen, labels[rows].astype(wide)


def _read(path: Path) -> dict[str, Array]:
    try:
        arrays = npz_file.read(path)
    except bounded.Unreadable as error:
        raise DataError(
            f"no data {str(path)!r}; give a folder of pictures or an .npz of arrays"
            if error.missing
            else str(error)
        ) from error
    except bounded.Undecodable as error:
        raise DataError(f"{path}: {error}; write it with numpy.savez(FILE, NAME=array)") from error
    if not arrays:
        raise DataError(f"{path} holds no arrays; write it with numpy.savez(FILE, NAME=array)")
    return arrays


def _by_name(path: Path, arrays: dict[str, Array], ends: Sequence[End]) -> dict[str, Array]:
    """Return an array for each end: of either of its names, or in order where none has a name.

    One array is that of the only input, whatever it is called.
    """
    have = " and ".join(f"{end.also or end.name!s}" for end in ends)
    unnamed = all(name.startswith(_PLAIN) for name in arrays)
    if len(arrays) == len(ends) and (unnamed or len(ends) == 1):
        return dict(zip((end.name for end in ends), arrays.values(), strict=True))
    names = {name: end.name for end in ends for name in (end.also, end.name) if name}
    found: dict[str, Array] = {}
    for name, array in arrays.items():
        if name not in names:
            raise DataError(
                f"{path} has an array {name!r}, and the model no such input; "
                f"{did_you_mean(name, list(names))}its inputs are {have}"
            )
        found[names[name]] = array
    if missing := [end for end in ends if end.name not in found]:
        raise DataError(
            f"{path} has no array for the input {(missing[0].also or missing[0].name)!r}; its "
            f"inputs are {have}"
        )
    return found


def _checked(path: Path, end: End, array: Array) -> Array:
    """Return an array as samples of an end. Raises DataError: another shape or type, or NaN."""
    name = end.also or end.name
    array = _typed(path, name, end, array)
    wanted = end.sample_shape
    for candidate in (array, array[None]):
        if not candidate.ndim or not len(candidate):
            continue
        if (
            wanted != end.shape
            and candidate.shape[1:2] == (1,)
            and _fits(candidate.shape[2:], wanted)
        ):
            return np.ascontiguousarray(candidate[:, 0])
        if _fits(candidate.shape[1:], wanted):
            return np.ascontiguousarray(candidate)
        if end.layout and len(wanted) == 3 and candidate.ndim == 4:
            order = (0, 2, 3, 1) if end.layout == "NHWC" else (0, 3, 1, 2)
            moved = candidate.transpose(order)
            if _fits(moved.shape[1:], wanted):
                return np.ascontiguousarray(moved)
    shown = ", ".join(("N", *(str(n) if n >= 0 else "any" for n in wanted)))
    raise DataError(
        f"{path}: the array {name!r} has the shape {list(array.shape)}; the model needs ({shown})"
    )


def _fits(shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    return len(shape) == len(wanted) and all(
        n in (length, -1) for n, length in zip(wanted, shape, strict=True)
    )


def _typed(path: Path, name: str, end: End, array: Array) -> Array:
    dtype = np.dtype(end.dtype)
    if array.dtype.kind not in "iufb":
        raise DataError(
            f"{path}: the array {name!r} is of the type {array.dtype}; the model needs {dtype}"
        )
    if array.dtype.kind == "f":
        bad = ~np.isfinite(array)
        if bad.any():
            first = "" if not array.ndim else f", first in sample {int(np.argwhere(bad)[0][0])}"
            raise DataError(
                f"{path}: the array {name!r} holds {int(bad.sum())} numbers that are NaN or "
                f"infinite{first}"
            )
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        whole = array.dtype.kind != "f" or bool((array == np.rint(array)).all())
        outside = prod(array.shape) and (array.min() < limits.min or array.max() > limits.max)
        if not whole or outside:
            raise DataError(
                f"{path}: the array {name!r} holds numbers that are no {dtype}, which the model "
                "needs"
            )
    return array.astype(dtype)
