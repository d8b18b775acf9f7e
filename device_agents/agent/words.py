"""What the runtimes say of a model that they refuse, as one sentence: the op, and what to do.

Imported by the host too, whose own runtimes say the same. A text that no rule here knows is passed
on, without the paths and colours of the runtime's log.
"""

import re
from typing import List, Tuple

_MOST_CHARS = 300

_COLOUR = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
# What a runtime says on stderr although nothing is wrong.
NOISE = re.compile(r"^(?:INFO: |I0000 |WARNING: All log messages before absl::).*\n?", re.MULTILINE)

_NEWER = "update the runtime on the device, or %s"
_RULES: Tuple[Tuple[str, str], ...] = (
    # TFLite
    (
        r"unresolved custom op: ([\w:]+)",
        (
            "it has the custom op {0}, which this runtime does not know; convert the model without "
            "that op"
        ),
    ),
    (
        r"Select TensorFlow op\(s\).*?\((Flex\w+)\)",
        (
            "its op {0} is one of TensorFlow's own (Flex), which this runtime lacks; convert the "
            "model with TFLite's built-in ops alone"
        ),
    ),
    (
        r"Select TensorFlow op\(s\)",
        (
            "it has ops of TensorFlow's own (Flex), which this runtime lacks; convert the model "
            "with TFLite's built-in ops alone"
        ),
    ),
    (
        r"Didn't find op for builtin opcode '(\w+)' version '(\d+)'",
        "its op {0} in version {1} is newer than this runtime; "
        + _NEWER % "convert the model for an older one",
    ),
    (
        r"builtin_code out of range: (-?\d+)",
        "it has op number {0}, which this runtime does not know; "
        + _NEWER % "copy the file again if it may be damaged",
    ),
    (
        r"Tensor (\d+) is invalidly specified in schema",
        (
            "its tensor {0} does not hold the bytes that its shape asks for; the file is damaged: "
            "copy or convert it again"
        ),
    ),
    (
        r"(?:\S+\.(?:cc|h):\d+ )?([^\n]*?)\s*Node number (\d+) \((\w+)\) failed to (\w+)",
        "its op {2} (number {1}) failed to {3}: {0}; convert the model again, and not by hand",
    ),
    (
        r"not a valid Flatbuffer|has model identifier|Could not open|could not be loaded",
        "it is no TFLite file, or a damaged one; copy or convert it again",
    ),
    # onnxruntime
    (
        r"Could not find an implementation for (\w+)\((\d+)\) node with name '([^']*)'",
        (
            "its op {0} (version {1}, node {2!r}) is not implemented for its types on the CPU; "
            "export the model with other types, float32 for instance"
        ),
    ),
    (
        r"Fatal error: ([\w.:]+)\(-?\d+\) is not a registered function/op",
        "it has the custom op {0}, which this runtime does not know; export the model without it",
    ),
    (
        r"No Op registered for (\w+) with domain_version of (\d+)",
        (
            "its op {0} is not one of opset {1}; export the model without it, or with the opset "
            "that has it"
        ),
    ),
    (
        r"Opset (\d+) is under development.*?till opset (\d+)",
        "it is of opset {0}, and this runtime knows them up to {1}; "
        + _NEWER % "export the model with an older opset",
    ),
    (
        r"Unsupported model IR version: (\d+), max supported IR version: (\d+)",
        "it is of IR version {0}, and this runtime knows them up to {1}; "
        + _NEWER % "save the model with an older one",
    ),
    (
        r"Type '([^']*)' of input parameter \(([^)]*)\) of operator \((\w+)\)",
        "its op {2} does not take {0}, which is what {1!r} is; export the model with another type",
    ),
    (
        r"Node \(([^)]*)\) Op \((\w+)\) \[ShapeInferenceError\] ([^\n]*)",
        "its op {1} (node {0!r}) does not fit its inputs: {2}; export the model again",
    ),
    (
        r"External data path does not exist: \"?(?:[^\"\n]*/)?([^\"/\n]*)",
        "the file {0} with weights of it is missing; copy it beside the model",
    ),
    (
        r"External initializer: (\S+) offset.*?(?:out of bounds|in full)",
        "the file with the weights {0} is too short; copy it again",
    ),
    (
        r"running (\w+) node\. Name:'([^']*)' Status Message: (?:\S+:\d+ )?([^\n]*)",
        "its op {0} (node {1!r}) failed: {2}",
    ),
    (
        r"Protobuf parsing failed|No graph was found",
        "it is cut short, or no ONNX file; copy or export it again",
    ),
    (
        r"bad_alloc|Failed to allocate memory|tried to allocate",
        "there is too little memory for it; take a smaller model or input",
    ),
)
_COMPILED = [(re.compile(pattern, re.DOTALL), sentence) for pattern, sentence in _RULES]
_PREFIXES = (
    re.compile(r"\[ONNXRuntimeError\] : \d+ : \w+ : "),
    re.compile(r"Load model from .*? failed:"),
    re.compile(r"Exception during initialization: "),
    # A place in the runtime's source, and the C++ function there.
    re.compile(r"/?[\w./-]+\.(?:cc|h|cpp):\d+ (?:[\w:<>&*~, ]+\([^()]*\)(?: const)? )?"),
)


def reason(said: str) -> str:
    """Return why a runtime refuses a model, in one sentence, of what it said."""
    text = _COLOUR.sub("", said)
    for pattern, sentence in _COMPILED:
        found = pattern.search(text)
        if found:
            return cut(sentence.format(*map(cut, found.groups(""))))
    for prefix in _PREFIXES:
        text = prefix.sub("", text)
    return cut(text) or "it does not say why"


def cut(text: str) -> str:
    """Return a text on one line, bounded."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= _MOST_CHARS else line[:_MOST_CHARS] + "…"


def worth_telling(said: str) -> str:
    """Return what was said on stderr without colours and without what is always said."""
    lines: List[str] = NOISE.sub("", _COLOUR.sub("", said)).splitlines()
    return "\n".join(line for line in lines if line.strip())
