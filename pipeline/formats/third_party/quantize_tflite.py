"""Quantises a TFLite file by ai-edge-quantizer: a script, run in that library's environment.

Arguments: file, inputs.npz (arrays "0", "1", … in the order of the file's inputs, (N, *shape)), the
file to write, number format (static8, dynamic8, float16 or static16x8).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

RECIPES = {
    "static8": "static_wi8_ai8",
    "static16x8": "static_wi8_ai16",
    "dynamic8": "dynamic_wi8_afp32",
}


def main(argv: list[str]) -> None:
    """Write the quantised file."""
    from ai_edge_quantizer import quantizer, recipe

    source, inputs, target, number_format = Path(argv[0]), argv[1], Path(argv[2]), argv[3]
    content = _with_signature(source.read_bytes())
    maker = quantizer.Quantizer(content)
    if number_format == "float16":
        maker.load_quantization_recipe(_float16())
    else:
        maker.load_quantization_recipe(getattr(recipe, RECIPES[number_format])())
    found = None
    if maker.need_calibration:
        found = _ranges(maker, content, inputs)
    maker.quantize(found).export_model(str(target), overwrite=True)


def _ranges(maker: Any, content: bytes, inputs: str) -> Any:
    """Return each tensor's least and largest value over all samples.

    The library's own choice, a moving average of batch extremes, costs 15 dB.
    """
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter
    from ai_edge_quantizer import calibrator
    from ai_edge_quantizer.utils import qsv_utils

    interpreter = Interpreter(model_content=content)
    key = next(iter(interpreter.get_signature_list()))
    named = interpreter.get_signature_runner(key).get_input_details()
    by_index = {details["index"]: name for name, details in named.items()}
    order = [by_index[details["index"]] for details in interpreter.get_input_details()]
    with np.load(inputs, allow_pickle=False) as file:
        arrays = [file[str(place)] for place in range(len(order))]
    samples = [
        {name: values[at] for name, values in zip(order, arrays, strict=True)}
        for at in range(len(arrays[0]))
    ]
    seen = calibrator.Calibrator(content, qsv_update_func=qsv_utils.min_max_update)
    seen.calibrate({key: samples}, maker._recipe_manager)  # noqa: SLF001  # no other way to it
    return seen.get_model_qsvs()


def _with_signature(content: bytes) -> bytes:
    """Return the file with a signature, without which the library cannot calibrate."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    if model.signatureDefs:
        return content
    graph, signature = model.subgraphs[0], schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = "serving_default", 0
    signature.inputs, signature.outputs = [], []
    for ends, maps in ((graph.inputs, signature.inputs), (graph.outputs, signature.outputs)):
        for index in ends:
            entry = schema.TensorMapT()
            entry.name, entry.tensorIndex = graph.tensors[index].name, int(index)
            maps.append(entry)
    model.signatureDefs = [signature]
    builder = flatbuffers.Builder(len(content) + 4096)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def _float16() -> list[dict[str, Any]]:
    """Return the recipe of weights as halves, which the library has no function for."""
    weights = {"num_bits": 16, "dtype": "FLOAT", "symmetric": True, "granularity": "TENSORWISE"}
    return [
        {
            "regex": ".*",
            "operation": "*",
            "algorithm_key": "float_casting",
            "op_config": {
                "weight_tensor_config": weights,
                "compute_precision": "FLOAT",
                "explicit_dequantize": True,
                "skip_checks": False,
                "min_weight_elements": 0,
            },
        }
    ]


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except Exception as error:
        said = " ".join(str(error).split()) or type(error).__name__
        print(json.dumps({"error": said}))  # noqa: T201  # the parent reads it
        raise SystemExit(1) from error
