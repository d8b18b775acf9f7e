"""Random one-op TFLite files, read and held against LiteRT; run as a program.

`python -m tests.read_draws COUNT` draws COUNT files of each op of `tests.one_op_files`, most of
types and scales that no converter writes, and each in a fork of its own, since LiteRT ends the
process on some. It prints JSON: how many computed what LiteRT computes, were refused by it or by
the reader, and what computed something else.
"""

from __future__ import annotations

import json
import os
import random
import sys
from collections import Counter
from typing import Any

import numpy as np

from models.execute import execute_all
from models.integer import integer_outputs
from models.model import Model
from models.number_format import FLOAT32
from pipeline.formats.tflite.file import FileTensor, parse
from pipeline.formats.tflite.read import read_tflite
from tests.one_op_files import KINDS, Draw
from tests.tflite_reading import run

Array = np.ndarray[Any, Any]
ENDS = ("same", "refused", "unknown", "other")
STEPS = 2.01
"""How far codes may lie apart: kernels round at several places."""
SHARE = 1e-3
# Beside codes that only some of an op's inputs are, kernels make the others codes, too.
ROUGH_SHARE = 0.05


def sample(tensor: FileTensor, rng: np.random.Generator) -> Array:
    dtype = np.dtype(tensor.dtype)
    if dtype.kind in "iu" and tensor.quantized:
        limits = np.iinfo(dtype)
        return rng.integers(limits.min, limits.max, tensor.shape, dtype)
    if dtype.kind in "iu":
        return rng.integers(0, 3, tensor.shape).astype(dtype)
    return rng.normal(0, 1, tensor.shape).astype(dtype)


def real(tensor: FileTensor, values: Array) -> Array:
    if not tensor.quantized:
        return values
    zero = tensor.zero_points[0] if tensor.zero_points.size else 0
    return ((values.astype(np.float64) - zero) * tensor.scales[0]).astype(np.float32)


def end_of(content: bytes) -> str:
    """Say how a file ends: one of `ENDS`."""
    file, rng = parse(content), np.random.default_rng(0)
    given = [sample(file.tensors[number], rng) for number in file.inputs]
    try:
        expected = run(content, given)
    except (RuntimeError, ValueError):
        return "refused"
    model = read_tflite(content)
    if not isinstance(model, Model):
        return "unknown"
    ends = zip(model.graph.inputs, file.inputs, given, strict=True)
    inputs = {end.name: real(file.tensors[number], x) for end, number, x in ends}
    static = model.number_format.is_static
    ours = integer_outputs(model, inputs) if static else execute_all(model, inputs)
    for name, number, made in zip(model.graph.outputs, file.outputs, expected, strict=True):
        alike = ours[name].shape == made.shape
        if not alike or not near(model, name, file.tensors[number], ours[name], made):
            return "other"
    return "same"


def near(model: Model, name: str, tensor: FileTensor, found: Array, made: Array) -> bool:
    wanted = real(tensor, made).astype(np.float64)
    params = None if model.quantization is None else model.quantization.tensors.get(name)
    if params is not None and tensor.quantized:
        codes = found if found.dtype.kind == "i" else params.quantize(found)
        apart = np.abs(params.dequantize(codes) - wanted).max(initial=0)
        return bool(apart <= STEPS * params.scale)
    finite = np.isfinite(wanted)
    if not np.array_equal(finite, np.isfinite(found)):
        return False
    reach = max(float(np.abs(wanted[finite]).max(initial=0)), 1e-3)
    share = SHARE if model.number_format == FLOAT32 else ROUGH_SHARE
    return bool(np.abs(found[finite] - wanted[finite]).max(initial=0) <= share * reach)


def in_a_fork(content: bytes) -> str:
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        return ENDS[code] if 0 <= code < len(ENDS) else "crashed" if code < 0 else "failed"
    code = len(ENDS)
    try:
        with np.errstate(all="ignore"):
            code = ENDS.index(end_of(content))
    finally:
        os._exit(code)
    raise AssertionError


def main(count: int) -> None:
    """Draw and compare."""
    ends: Counter[str] = Counter()
    faults = []
    for kind, make in KINDS.items():
        for seed in range(count):
            end = in_a_fork(make(Draw(random.Random(f"{kind}{seed}"))))
            ends[end] += 1
            if end in ("other", "failed"):
                faults.append(f"{kind} {seed} {end}")
    print(json.dumps({"ends": ends, "faults": faults}))


if __name__ == "__main__":
    main(int(sys.argv[1]))
