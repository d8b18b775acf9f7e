"""Quantises an ONNX file by onnxruntime: a script, run in a process of its own.

Arguments: file, inputs.npz (arrays "0", "1", … in the order of the file's inputs, (N, *shape)), the
file to write, number format (static8 or dynamic8).
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any


class Samples:
    """Feeds samples one by one, as the library asks for them."""

    def __init__(self, names: list[str], arrays: list[Any]) -> None:
        self.names, self.arrays, self.at = names, arrays, 0

    def get_next(self) -> dict[str, Any] | None:
        """Return the next sample by input, None after the last."""
        if self.at >= len(self.arrays[0]):
            return None
        at, self.at = self.at, self.at + 1
        # A slice of length one, for indexing a scalar's samples gives no array.
        return {
            name: values[at : at + 1].reshape(values.shape[1:])
            for name, values in zip(self.names, self.arrays, strict=True)
        }


def main(argv: list[str]) -> None:
    """Write the quantised file."""
    import numpy as np
    import onnxruntime
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    source, inputs, target, number_format = argv
    with tempfile.TemporaryDirectory(prefix="edgewright-quantize-") as folder:
        prepared = str(Path(folder) / "prepared.onnx")
        try:
            quant_pre_process(source, prepared, skip_symbolic_shape=True)
        except Exception:  # noqa: BLE001  # it is advice, and fails on control flow
            prepared = source
        if number_format == "dynamic8":
            quantization.quantize_dynamic(prepared, target, per_channel=True)
            return
        session = onnxruntime.InferenceSession(prepared, providers=["CPUExecutionProvider"])
        names = [item.name for item in session.get_inputs()]
        with np.load(inputs, allow_pickle=False) as file:
            arrays = [file[str(place)] for place in range(len(names))]
        # Unsigned by signed saturates on x86 without VNNI: unsigned weights are right everywhere.
        quantization.quantize_static(
            prepared,
            target,
            Samples(names, arrays),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QUInt8,
            calibrate_method=quantization.CalibrationMethod.MinMax,
        )


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except Exception as error:
        said = " ".join(str(error).split()) or type(error).__name__
        print(json.dumps({"error": said}))  # noqa: T201  # the parent reads it
        raise SystemExit(1) from error
