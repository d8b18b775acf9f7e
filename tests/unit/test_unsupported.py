"""What a reader says of a file that the graph cannot say."""

from __future__ import annotations

from pipeline.formats.api import UnknownOp, Unsupported


def test_every_unknown_op_is_named_with_its_place() -> None:
    found = Unsupported(
        "vad.onnx",
        (
            UnknownOp("LSTM", "lstm_1"),
            UnknownOp("If", "branch"),
            UnknownOp("LSTM", "lstm_2"),
            UnknownOp("Slice", "flip", "it reads backwards"),
        ),
    )
    assert found.sentence == (
        "vad.onnx has ops that are not known here: LSTM at 'lstm_1', 'lstm_2'; If at 'branch'; "
        "Slice at 'flip' (it reads backwards)"
    )


def test_a_great_many_unknown_ops_are_counted() -> None:
    found = Unsupported("m.tflite", tuple(UnknownOp("CALL_ONCE", f"op{n}") for n in range(50)))
    assert found.sentence.endswith("'op19'; and 30 more")
    assert "op20" not in found.sentence
