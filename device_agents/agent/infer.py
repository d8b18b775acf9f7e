"""Runs a model on given inputs, one sample after the other, in the child it is called in."""

import base64
from pathlib import Path
from typing import Any, Callable, Dict, List

from . import bench, clock
from .wire import Refused

_SIZES = {
    "bool": 1,
    "int8": 1,
    "uint8": 1,
    "int16": 2,
    "uint16": 2,
    "float16": 2,
    "int32": 4,
    "uint32": 4,
    "float32": 4,
    "int64": 8,
    "uint64": 8,
    "float64": 8,
}


def infer(args: Dict[str, Any], stage: Callable[[str], None]) -> Dict[str, Any]:
    """Return outputs (or argmax) of every sample; without inputs only the model's metadata.

    `args["inputs"]` are {"dtype", "shape": [samples, …], and "data" (base64) or "path"}.
    """
    bench.pin(args["cpus"])
    model, _ = bench.load(args, args["path"], "the model", stage)
    answer: Dict[str, Any] = {
        "inputs": model.inputs(),
        "outputs": model.outputs(),
        "package": model.package,
        "version": model.version,
        "partitions": model.partitions(),
        "ops": model.ops(),
    }
    if not args["inputs"]:
        return answer
    stage("reading the inputs")
    arrays = [_raw(item) for item in args["inputs"]]
    samples = _samples(args["inputs"], arrays, answer["inputs"])
    stage("running")
    with bench.running():
        answer.update(_loop(model, arrays, samples, argmax=args["argmax"]))
    return answer


def _raw(item: Dict[str, Any]) -> bytes:
    if item.get("path"):
        return Path(item["path"]).read_bytes()
    return base64.b64decode(item["data"], validate=True)


def _samples(given: List[Dict[str, Any]], arrays: List[bytes], wanted: List[Dict[str, Any]]) -> int:
    """Return how many samples there are; Refused when an input does not fit the model."""
    if len(given) != len(wanted):
        sentence = "the model takes %d inputs, got %d" % (len(wanted), len(given))
        raise Refused("bad_request", sentence)
    counts = set()
    for item, raw, info in zip(given, arrays, wanted):
        if info["dtype"] not in _SIZES:
            sentence = "input %s is of the type %s, which cannot be given"
            raise Refused("bad_request", sentence % (info["name"], info["dtype"]))
        bytes_each = _SIZES[info["dtype"]]
        for length in info["shape"]:
            bytes_each *= length
        count = item["shape"][0] if item["shape"] else 0
        if item["dtype"] != info["dtype"] or count < 1 or len(raw) != count * bytes_each:
            raise Refused(
                "bad_request",
                "input %s is %s of shape (samples, %s); got %s of shape %s in %d bytes"
                % (
                    info["name"],
                    info["dtype"],
                    ", ".join(map(str, info["shape"])),
                    item["dtype"],
                    item["shape"],
                    len(raw),
                ),
            )
        counts.add(count)
    if len(counts) != 1:
        raise Refused("bad_request", "the inputs hold different numbers of samples")
    return int(counts.pop())


def _loop(model: Any, arrays: List[bytes], samples: int, *, argmax: bool) -> Dict[str, Any]:
    views = [memoryview(raw) for raw in arrays]
    steps = [len(raw) // samples for raw in arrays]
    classes: List[int] = []
    outputs = [bytearray() for _ in model.outputs()]
    sizes: List[int] = []
    invoke_ns = 0
    for sample in range(samples):
        model.set_inputs([bytes(v[sample * n : (sample + 1) * n]) for v, n in zip(views, steps)])
        start = clock.current().now_ns()
        model.invoke()
        invoke_ns += clock.current().now_ns() - start
        if argmax:
            classes.append(model.argmax())
        else:
            raws = model.read()
            sizes = sizes or [len(raw) for raw in raws]
            if sizes != [len(raw) for raw in raws]:
                raise Refused(
                    "bad_request",
                    "the model's outputs have another size for sample %d than for the first, so "
                    "they do not fit one array; give one sample at a time" % sample,
                )
            for output, raw in zip(outputs, raws):
                output.extend(raw)
    if argmax:
        return {"samples": samples, "invoke_ns": invoke_ns, "argmax": classes}
    data = [base64.b64encode(bytes(output)).decode() for output in outputs]
    # What the file leaves open of an output is known now.
    known = {"outputs": model.outputs(), "data": data}
    return dict(known, samples=samples, invoke_ns=invoke_ns)
