"""Run a model, a release or what is staged on given inputs, one sample after the other."""

import base64
from pathlib import Path
from typing import Any, Callable, Dict, List

from .. import clock, inputs, model_job
from ..arguments import Argument, check
from ..resources import Resources
from ..wire import Refused

ARGUMENTS = {
    # One of these three: what is pushed, or {"name", "version"} of what is deployed or staged,
    # which runs from where it lies, checked first.
    "sha256": Argument("text", default=None),
    "release": Argument("object", default=None),
    "staged": Argument("object", default=None),
    **model_job.ARGUMENTS,
}
_RELEASE = {"name": Argument("text"), "version": Argument("text")}


def answer(args: Dict[str, Any], resources: Resources) -> Dict[str, Any]:
    """Return outputs of every sample; without inputs only the model's metadata."""
    order = {"path": str(_subject(args, resources))}
    return model_job.run("run", order, args, resources)


def _subject(args: Dict[str, Any], resources: Resources) -> Path:
    given = [name for name in ("sha256", "release", "staged") if args[name] is not None]
    if not given:
        sentence = "none of sha256, release and staged is given; give one of them"
        raise Refused("bad_request", sentence)
    if len(given) > 1:
        raise Refused("bad_request", "%s are given; give one of them" % " and ".join(given))
    if given == ["sha256"]:
        return resources.store.path(args["sha256"])
    wanted = check(given[0], args[given[0]], _RELEASE)
    find = resources.releases.path if given == ["release"] else resources.releases.staged_path
    return find(wanted["name"], wanted["version"])


def work(order: Dict[str, Any], stage: Callable[[str], None]) -> Dict[str, Any]:
    """Load the model and run it."""
    model_job.pin(order["cpus"])
    model, _ = model_job.load(order, order["path"], "the model", stage)
    told: Dict[str, Any] = {
        "inputs": model.inputs(),
        "outputs": model.outputs(),
        "package": model.package,
        "version": model.version,
        "partitions": model.partitions(),
        "ops": model.ops(),
    }
    if not order["inputs"]:
        return told
    stage("reading the inputs")
    arrays, samples = inputs.read(order["inputs"], told["inputs"])
    stage("running")
    with model_job.blame_runtime():
        told.update(_loop(model, arrays, samples))
    return told


def _loop(model: Any, arrays: List[bytes], samples: int) -> Dict[str, Any]:
    views = [memoryview(raw) for raw in arrays]
    steps = [len(raw) // samples for raw in arrays]
    outputs = [bytearray() for _ in model.outputs()]
    sizes: List[int] = []
    invoke_ns = 0
    for sample in range(samples):
        model.set_inputs([bytes(v[sample * n : (sample + 1) * n]) for v, n in zip(views, steps)])
        start = clock.current().now_ns()
        model.invoke()
        invoke_ns += clock.current().now_ns() - start
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
    data = [base64.b64encode(bytes(output)).decode() for output in outputs]
    # What the file leaves open of an output is known now.
    known = {"outputs": model.outputs(), "data": data}
    return dict(known, samples=samples, invoke_ns=invoke_ns)
