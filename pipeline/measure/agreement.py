"""How far outputs of two runs of one file agree, and the inputs that they are asked with.

No image and no class is known here: a user's file may be anything.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from device_agents.agent.runtimes import random_array
from pipeline.formats.beside import INT8_EQUAL_SHARE
from pipeline.formats.decibels import to_decibels

if TYPE_CHECKING:
    from device_agents.api import Inference, TensorInfo

Samples = list[npt.NDArray[Any]]

_CODES = 2.0  # of an integer output: so far apart are right kernels, however small the output
_FEW = 32  # values of an output that are too few for a share
_SAMPLES = 4
_SEED = 7
_SENT_BYTES = 8 * 2**20
_LARGEST_BYTES = 64 * 2**20


class Incomparable(Exception):
    """The outputs cannot be held against this computer's; says why, in a clause."""


def generate_inputs(about: Inference) -> Samples:
    """Return seeded inputs like those of `bench`, one array (samples, …) for each input.

    Raises:
        Incomparable: there are none, or they or the outputs would be too large to send.
    """
    if not about.inputs_info:
        raise Incomparable("it has no inputs")
    ends = (*about.inputs_info, *about.outputs_info)
    largest = sum(math.prod(info.shape) * np.dtype(info.dtype).itemsize for info in ends)
    if largest > _LARGEST_BYTES:
        raise Incomparable(f"its inputs and outputs are {largest / 1e6:.0f} MB")
    count = max(1, min(_SAMPLES, _SENT_BYTES // max(1, largest)))
    return [
        np.stack(
            [random_array(_SEED + place + 97 * n, info.dtype, info.shape) for n in range(count)]
        )
        for place, info in enumerate(about.inputs_info)
    ]


def compare_outputs(here: Inference, there: Inference, limit_db: float) -> tuple[float, bool]:
    """Return the SQNR of the worst output in dB, and whether all outputs are close enough.

    Raises:
        Incomparable: nothing comes out that could be told apart.
    """
    shapes = [[(v.dtype, v.shape) for v in found.outputs] for found in (here, there)]
    if shapes[0] != shapes[1]:
        return -math.inf, False
    worst_db, close, judged = math.inf, True, False
    for (wanted, info), (got, _) in zip(arrays_of(here), arrays_of(there), strict=True):
        if info.scale is None and np.dtype(info.dtype).kind in "iub":
            # Classes and counts: one step apart is as wrong as many, and near ties turn over.
            judged = judged or wanted.size >= _FEW
            equal_share = float(np.mean(wanted == got))
            close = close and (wanted.size < _FEW or equal_share >= INT8_EQUAL_SHARE)
            continue
        judged = True
        signal, noise = (
            np.square(part).reshape(len(part), -1).sum(axis=1) for part in (wanted, got - wanted)
        )
        each = [to_decibels(s, n) for s, n in zip(signal.tolist(), noise.tolist(), strict=True)]
        db = float(np.median(each))
        codes = math.sqrt(float(np.mean(np.square(got - wanted)))) / (info.scale or math.inf)
        # Written so that NaN, which compares false with everything, fails.
        close = close and (db >= limit_db or (info.scale is not None and codes <= _CODES))
        worst_db = min(worst_db, -math.inf if math.isnan(db) else db)
    if not judged:
        raise Incomparable("it gives class numbers only")
    return worst_db, close


def arrays_of(found: Inference) -> list[tuple[npt.NDArray[np.float64], TensorInfo]]:
    """Return the outputs as real numbers; raises Incomparable for texts and complex numbers."""
    arrays = []
    for value, info in zip(found.outputs, found.outputs_info, strict=True):
        if np.dtype(value.dtype).kind not in "fiub":
            raise Incomparable(f"its output {info.name!r} is of the type {value.dtype}")
        array = np.frombuffer(value.data, value.dtype).reshape(value.shape).astype(np.float64)
        if info.scale is not None and info.zero_point is not None:
            array = (array - info.zero_point) * info.scale
        arrays.append((array, info))
    return arrays


def nudge(array: npt.NDArray[Any], share: float) -> npt.NDArray[Any]:
    """Return an input moved a little: floats by a share, codes by one step at most."""
    rng = np.random.default_rng(_SEED)
    if array.dtype.kind == "f":
        moved = array * (1 + share * rng.standard_normal(array.shape))
        return np.ascontiguousarray(moved, array.dtype)
    if array.dtype.itemsize > 1:
        return array
    limits = np.iinfo(array.dtype)
    steps = rng.integers(-1, 1, array.shape, endpoint=True)
    moved = np.clip(array.astype(np.int64) + steps, limits.min, limits.max)
    return np.ascontiguousarray(moved, array.dtype)
