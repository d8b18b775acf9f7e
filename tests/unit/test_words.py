"""What runtimes say, as they said it, becomes one sentence with the op and what to do."""

from __future__ import annotations

import pytest

from device_agents.agent.words import cut, reason, worth_telling

SAID = {
    "Encountered unresolved custom op: MyOp.\nSee instructions: https://www.tensorflow.org/lite/"
    "guide/ops_custom Node number 0 (MyOp) failed to prepare.": (
        "it has the custom op MyOp, which this runtime does not know; convert the model without "
        "that op"
    ),
    "Select TensorFlow op(s), included in the given model, is(are) not supported by this "
    "interpreter. Make sure you apply/link the Flex delegate before inference. See instructions: "
    "https://www.tensorflow.org/lite/guide/ops_selectNode number 0 (FlexErf) failed to prepare.": (
        "its op FlexErf is one of TensorFlow's own (Flex), which this runtime lacks; convert the "
        "model with TFLite's built-in ops alone"
    ),
    "Didn't find op for builtin opcode 'CONV_2D' version '99'. An older version of this builtin "
    "might be supported. Are you using an old TFLite binary with a newer model?\n"
    "Registration failed.\n": (
        "its op CONV_2D in version 99 is newer than this runtime; update the runtime on the "
        "device, or convert the model for an older one"
    ),
    "tflite/kernels/fully_connected.cc:477 NumDimensions(filter) != 2 (4 != 2)Node number 2 "
    "(FULLY_CONNECTED) failed to prepare.": (
        "its op FULLY_CONNECTED (number 2) failed to prepare: NumDimensions(filter) != 2 (4 != 2); "
        "convert the model again, and not by hand"
    ),
    "[ONNXRuntimeError] : 1 : FAIL : Load model from /tmp/a b/custom.onnx failed:Fatal error: "
    "com.acme:Foo(-1) is not a registered function/op": (
        "it has the custom op com.acme:Foo, which this runtime does not know; export the model "
        "without it"
    ),
    "[ONNXRuntimeError] : 9 : NOT_IMPLEMENTED : Could not find an implementation for "
    "ConvInteger(10) node with name 'c1_quant'": (
        "its op ConvInteger (version 10, node 'c1_quant') is not implemented for its types on the "
        "CPU; export the model with other types, float32 for instance"
    ),
    "\x1b[1;31m[ONNXRuntimeError] : 1 : FAIL : Load model from /x.onnx failed:"
    "/onnxruntime_src/onnxruntime/core/graph/model.cc:256 onnxruntime::Model::Model(onnx::"
    "ModelProto&&, const logging::Logger&) Unsupported model IR version: 99, max supported IR "
    "version: 14\n\x1b[m": (
        "it is of IR version 99, and this runtime knows them up to 14; update the runtime on the "
        "device, or save the model with an older one"
    ),
    "[ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned while running Reshape node. "
    "Name:'rs' Status Message: /o/reshape_helper.h:91 The input tensor cannot be reshaped\n": (
        "its op Reshape (node 'rs') failed: The input tensor cannot be reshaped"
    ),
    '[ONNXRuntimeError] : 1 : FAIL : External data path does not exist: "/models/net/w.bin"': (
        "the file w.bin with weights of it is missing; copy it beside the model"
    ),
    # No rule: passed on without what only the runtime's authors read.
    "[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : Load model from m.onnx failed:\x1b[1mOdd\x1b[m\n"
    "thing {0}": "Odd thing {0}",
    "": "it does not say why",
}


@pytest.mark.parametrize("said", SAID)
def test_one_sentence(said: str) -> None:
    assert reason(said) == SAID[said]


def test_a_reason_is_bounded_and_plain() -> None:
    found = reason("\x1b]0;title\x07" + "x\n" * 5000)
    assert len(found) <= 301
    assert found.isprintable()
    assert cut("a\tb\n c") == "a b c"


def test_of_stderr_only_what_is_not_always_said() -> None:
    said = (
        "INFO: Created TensorFlow Lite XNNPACK delegate for CPU.\n"
        "\x1b[1;31mError in conv\x1b[m\n\nINFO: Initialized TensorFlow Lite runtime.\n"
    )
    assert worth_telling(said) == "Error in conv"
