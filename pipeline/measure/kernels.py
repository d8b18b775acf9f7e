"""Which form of a format a device's kernels compute right: asked of the device, once a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from device_agents.golden import Golden
from models.number_format import STATIC8
from pipeline.formats import create
from pipeline.store.memo import StepKind

if TYPE_CHECKING:
    from pipeline.formats.api import Format
    from pipeline.measure.bench import DeviceBench
    from pipeline.measure.form import Form


ONNX_KERNELS = StepKind("onnx-kernels")


def choose_format(bench: DeviceBench, form: Form) -> Format:
    """Return the format of a form as a device needs it.

    int8 ONNX files have signed weights, which is faster, where the golden model shows that the
    device's onnxruntime is exact with them (ARM, x86 with VNNI), and unsigned ones where it is
    not, or where the device cannot tell.

    Raises:
        ConfigError: no such format; lists the known ones.
    """
    if (form.runtime, form.number_format) != ("onnx", STATIC8):
        return create(form.runtime)
    from pipeline.formats.onnx import ONNX

    def work() -> tuple[dict[str, Any], dict[str, str]]:
        found = bench.device.golden(runtime="onnx", threads=bench.profile.threads)
        if isinstance(found, Golden):
            return {"exact": found.right and not found.saturates, "words": found.sentence}, {}
        return {"exact": False, "words": found.reason if found else "no golden model"}, {}

    inputs = {"device": bench.digest, "threads": bench.profile.threads, "run": bench.run_id}
    step = bench.memo.once(ONNX_KERNELS, inputs, work)
    return ONNX("int8" if step.result["exact"] else "uint8")
