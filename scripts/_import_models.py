"""One model of other people after another, through the commands that take it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scripts._import_runs import DEVICE, Done, add_device, run
from scripts.other_models import Unavailable, fetch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MOST_DEVIATION = 1e-3
"""Of a float file from its source, relative to an output's range."""

_UNKNOWN = "ops that are not known here"
_TOLD_BY_GRAPH = "inspect --graph tells whether that works"
_UNTOUCHED = "it left every weight as it was"
_DIFFERS = 5  # exit code of a file that does not compute what its source computes
_VERIFIED = (0, _DIFFERS)
_BENCHED = (0, 3)  # 3: the figure is there, and not valid, as on a computer that others use
_CALIBRATION = 16

MAX_DROP = 5
"""Points that an int8 file may lose where the plain one is refused: 13 dB of its worst output."""

SHAPES = {
    "basic-pitch.onnx": ("1x43844x1",),
    "ocr-det.onnx": ("1x3x192x256",),
    "ocr-rec.onnx": ("1x3x48x320",),
    "ocr-cls.onnx": ("1x3x48x192",),
    "silero.onnx": ("input=1x512", "state=2x1x128"),
    "silero-half.onnx": ("input=1x512", "state=2x1x128"),
    "silero-16k.onnx": ("input=1x512", "state=2x1x128"),
    "silero-16k-sequence.onnx": ("input=1x576", "h=1x1x128", "c=1x1x128"),
    "silero-ifless.onnx": ("input=1x512", "state=2x1x128"),
    "silero-openvino.onnx": ("input=1x576", "state=2x1x128"),
}
"""What models leave open."""

VALUES = {"sr": 16000}
"""Inputs that mean something: silero-vad runs at sampling rates of 8 and 16 kHz alone."""


@dataclass(slots=True)
class Row:
    """What came of a model: a word or figure for each step, and what went wrong.

    Attributes:
        model: its name among `scripts.other_models.MODELS`.
        cells: step -> outcome in words.
        figures: step -> what it printed or took, for the JSON.
        faults: what is not as it must be.
    """

    model: str
    cells: dict[str, str] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def note(self, step: str, done: Done, word: str, *, fault: bool) -> None:
        """Record a step."""
        self.cells[step] = word
        self.figures[step] = {
            "code": done.code,
            "said": done.said[:1000],
            "wall_s": round(done.wall_s, 3),
            "processor_s": round(done.processor_s, 3),
            "peak_mb": round(done.peak_bytes / 1e6),
        }
        if fault:
            self.faults.append(f"{step}: {done.said[:300] or f'exit status {done.code}'}")


STEPS = ("inspect", "graph", "convert", "quantize", "verify", "bench", "deploy")


def try_model(name: str, folder: Path) -> Row:
    """Put a model through every command."""
    row = Row(name)
    try:
        source = fetch(name)
    except Unavailable as error:
        row.cells["inspect"] = f"not there: {error}"
        row.faults.append(str(error))
        return row
    shapes = [word for shape in SHAPES.get(name, ()) for word in ("--input-shape", shape)]
    facts = _inspect(row, source, shapes)
    if facts is None:
        return row
    target = "onnx" if facts["format"] == "TFLite" else "tflite"
    codes = any(item["scale"] is not None for item in facts["inputs"])
    scheme = [] if codes else ["--scheme", "float32"]
    samples = folder / f"{name}-samples.npz"
    _write_samples(samples, facts, shapes)
    given = [*shapes, "--data", str(samples)]
    converted = _convert(row, source, [*shapes, *scheme], folder, target)
    if codes:
        row.cells["quantize"] = "is int8"
    else:
        _quantize(row, source, given, folder)
    if converted is not None:
        _verify(row, source, given, converted)
    runs = source if source.suffix in (".tflite", ".onnx") else converted
    if runs is None:
        row.cells["bench"] = row.cells["deploy"] = "no file"
        row.faults.append("bench: there is no file of it that a runtime takes")
        return row
    config = add_device(folder)
    _bench(row, runs, given, config)
    _deploy(row, runs, given, config)
    return row


def _inspect(row: Row, source: Path, shapes: Sequence[str]) -> dict[str, Any] | None:
    done = run("inspect", source, "--json", *shapes)
    if done.code:
        row.note("inspect", done, "refused", fault=True)
        return None
    facts: dict[str, Any] = done.json
    parts = facts["partitions"]
    row.note("inspect", done, f"{done.processor_s:.1f} s", fault=False)
    if parts is not None:
        _hold_partitions(row, source, parts)
    if _TOLD_BY_GRAPH in " ".join(facts["can"]):
        told = run("inspect", source, "--json", "--graph", *shapes)
        facts = facts if told.code else told.json
    known = any("known as a graph" in sentence for sentence in facts["can"])
    refused = [sentence for sentence in facts["cannot"] if _UNKNOWN in sentence]
    row.cells["graph"] = "known" if known else "named ops" if refused else "refused"
    if not known and not refused:
        why = [*facts["cannot"], "it was not read, and nothing says why"][0]
        row.faults.append(f"graph: {why[:300]}")
    return facts


def _hold_partitions(row: Row, source: Path, expected: Mapping[str, Any]) -> None:
    """Hold the expected partitions against those that LiteRT makes."""
    from scripts._import_latency import count_partitions

    found = count_partitions(source)
    row.cells["inspect"] += f", {expected['count']} part."
    row.figures["partitions"] = {"expected": expected["count"], "found": found}
    if expected["count"] != found:
        row.faults.append(f"partitions: {expected['count']} expected, LiteRT makes {found}")


def _convert(
    row: Row, source: Path, shapes: Sequence[str], folder: Path, target: str
) -> Path | None:
    where = folder / f"{row.model}-converted"
    done = run("export", source, "-o", where, "--format", target, *shapes)
    if done.code == 0:
        row.note("convert", done, f"{target} {done.processor_s:.1f} s", fault=False)
        return Path(done.out.split("\n")[0])
    left = [path for path in where.rglob("*") if path.is_file()] if where.exists() else []
    named = _UNKNOWN in done.said
    row.note("convert", done, "refused by name" if named else "refused", fault=not named)
    if left:
        row.faults.append(f"convert: left {left[0].name} behind a refusal")
    return None


def _quantize(row: Row, source: Path, given: Sequence[str], folder: Path) -> None:
    """Quantise it; what a library makes of unknown ops may be refused: it loses what it loses."""
    where = folder / f"{row.model}-int8"
    where.mkdir()
    done = run("quantize", source, "-o", where, *given)
    word = "int8"
    if row.cells["graph"] == "named ops" and done.code:
        lost = done.code == _DIFFERS or _UNTOUCHED in done.said
        row.note("quantize", done, "refused by name" if lost else "refused", fault=not lost)
        return
    if done.code == _DIFFERS:
        done = run("quantize", source, "-o", where, "--max-drop", str(MAX_DROP), *given)
        word = f"--max-drop {MAX_DROP}"
    row.note("quantize", done, "refused" if done.code else word, fault=bool(done.code))


def _write_samples(path: Path, facts: Mapping[str, Any], shapes: Sequence[str]) -> None:
    """Write samples of every input, as an .npz that commands take as data.

    Normal ones of real numbers, those of `VALUES` or 1 of integers.
    """
    given = dict(word.rpartition("=")[::2] for word in shapes if word[0].isalnum())
    rng = np.random.default_rng(0)
    arrays = {}
    for item in facts["inputs"]:
        told = given.get(item["name"], given.get("", ""))
        dims = [int(n) for n in told.split("x")] if told else item["dims"] or []
        shape = tuple(n if isinstance(n, int) else 1 for n in dims)
        sample = shape[1:] if shape[:1] == (1,) else shape  # samples take the place of a batch of 1
        values = rng.standard_normal((_CALIBRATION, *sample), np.float32)
        exact = np.full(values.shape, VALUES.get(item["name"], 1))
        real = item["dtype"].startswith("float") or item["scale"] is not None
        arrays[item["name"]] = values if real else exact
    np.savez(path, allow_pickle=False, **arrays)


def _verify(row: Row, source: Path, given: Sequence[str], converted: Path) -> None:
    done = run("verify", source, converted, "--json", *given)
    if done.code not in _VERIFIED or not done.out:
        row.note("verify", done, "refused", fault=True)
        return
    outputs = done.json["outputs"]
    worst = max(map(error_share, outputs), default=0.0)
    exact = "integers" not in done.json["numbers"]
    far = exact and not worst <= MOST_DEVIATION
    row.note("verify", done, f"{worst:.1e}", fault=far or bool(done.code))
    row.figures["verify"]["outputs"] = outputs


def error_share(output: Mapping[str, Any]) -> float:
    """Return the largest difference of an output of `verify --json` as a share of its range.

    It is infinite where there is no such number, which JSON says as null.
    """
    error, spread = output["max_abs_error"], output["value_range"]
    if error == 0:
        return 0.0
    return float(error / spread) if error is not None and spread else math.inf


def _bench(row: Row, path: Path, given: Sequence[str], config: Path) -> None:
    asked = ("--device", DEVICE, "--protocol", "quick", "--json")
    done = run("bench", path, *asked, *given, config=config)
    if done.code not in _BENCHED or not done.out:
        row.note("bench", done, "refused", fault=True)
        return
    row.note("bench", done, f"{done.json['median_ms']:.3g} ms", fault=False)


def _deploy(row: Row, path: Path, given: Sequence[str], config: Path) -> None:
    """Put it in use on this computer; what its outputs could not be held against is a fault."""
    name = "".join(c if c.isalnum() else "-" for c in row.model)
    asked = ("--device", DEVICE, "--name", name, "--version", "1")
    done = run("deploy", path, *asked, *given, config=config)
    held = "outputs agree" in done.said or "outputs equal" in done.said
    word = "refused" if done.code else "in use" if held else "not compared"
    row.note("deploy", done, word, fault=bool(done.code) or not held)
