"""Any model in: models of other people through every command, and figures beside peers and bars.

    models      inspected (with the partitions that LiteRT makes), read as a graph or refused by
                name, written in the other format, quantised, verified, benched
    conversion  MobileNetV2 at 224 from ONNX to TFLite, warm, beside onnx2tf in its own environment
    inspection  seconds of a file of 20 MB from a cold start
    int8        ResNet-8 and DS-CNN beside the int8 files that MLPerf Tiny ships
    PTQ         MobileNetV2 at 224 on 256 images, and the memory that an ONNX file of 100 MB takes

Each command runs in a process of its own: one that ends by a signal is a fault of its model and no
more. onnx2tf is installed on the first run, which takes minutes; --without-peer leaves it out.
"""

from __future__ import annotations

import sys
import tempfile
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from scripts._import_conversion import (
    LEFT_OUT,
    Conversion,
    compare_conversions,
    export_onnx,
    median,
)
from scripts._import_int8 import CIFAR, Beside, compare_ds_cnn, compare_resnet8, time_ptq, weigh_ptq
from scripts._import_models import STEPS, Row, try_model
from scripts._import_runs import Done, run
from scripts.figures import Figure, describe, finish, need, parser
from scripts.other_models import MODELS, Unavailable, fetch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

CONVERSION_BAR_S = 0.25
PEER_BAR = 10.0
LATENCY_BAR = 1.03
INSPECT_BAR_S = 2.0
PTQ_BAR_S = 60.0
PEAK_BAR_BYTES = int(1.5 * 2**30)
PARTS = ("models", "conversion", "inspection", "int8", "ptq")
QUICK_MODELS = ("basic-pitch.tflite", "face-mesh.tflite", "nabu.tflite", "resnet8.tflite")
_LARGE = "ocr-rec.onnx"


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much work a run does."""

    models: tuple[str, ...]
    conversions: int
    rounds: int
    test_images: int


FULL = Sizes(tuple(MODELS), conversions=20, rounds=60, test_images=10_000)
QUICK = Sizes(QUICK_MODELS, conversions=5, rounds=20, test_images=500)


def main(argv: list[str] | None = None) -> int:
    """Run, print the tables; returns 1 with --check if a figure misses its bar."""
    options_of = parser(__doc__, data="CIFAR-10 as JPEG in it, for ResNet-8")
    options_of.add_argument("--only", choices=PARTS, action="append", help="this part only")
    options_of.add_argument("--model", choices=MODELS, action="append", help="this model only")
    options_of.add_argument("--without-peer", action="store_true", help="leave onnx2tf out")
    options = options_of.parse_args(argv)
    sizes, parts = QUICK if options.quick else FULL, options.only or PARTS
    conditions = describe()
    figures: list[Figure] = []
    rows: list[Row] = []
    with working_folder() as folder:
        if "models" in parts:
            rows = [tell(try_model(name, folder)) for name in options.model or sizes.models]
            figures += [model_figure(row) for row in rows]
        if "conversion" in parts:
            found = compare_conversions(
                folder,
                times=sizes.conversions,
                rounds=sizes.rounds,
                with_peer=not options.without_peer,
            )
            figures += conversion_figures(found)
        if "inspection" in parts:
            figures.append(inspection_figure())
        if "int8" in parts:
            need(options.data / CIFAR / "test.zip", "CIFAR-10 as JPEG")
            images, rounds = sizes.test_images, sizes.rounds
            resnet = compare_resnet8(options.data, folder, images=images, rounds=rounds)
            figures += int8_figures("ResNet-8", resnet)
            figures += int8_figures("DS-CNN", compare_ds_cnn(folder, rounds=rounds))
        if "ptq" in parts:
            figures += ptq_figures(folder)
    show_models(rows)
    return finish(options, figures, conditions, models=[asdict(row) for row in rows])


@contextmanager
def working_folder() -> Iterator[Path]:
    """Give a folder for the files of a run."""
    with tempfile.TemporaryDirectory(prefix="edgewright-import-") as folder:
        yield Path(folder)


def tell(row: Row) -> Row:
    """Say that a model is done, since one takes a while."""
    print(f"{row.model}: {'; '.join(row.faults) or 'ok'}", file=sys.stderr, flush=True)
    return row


def model_figure(row: Row) -> Figure:
    """Return whether a model came through."""
    told = ", ".join(f"{step} {row.cells.get(step, '-')}" for step in STEPS[1:])
    return Figure(row.model, told, bar="every step, or refused by name", met=not row.faults)


def conversion_figures(found: Conversion) -> list[Figure]:
    """Return the figures of conversion."""
    ours, peer = median(found.ours_s), median(found.peer_s)
    named = f"onnx2tf {found.peer}"
    figures = [
        Figure(
            "ONNX to TFLite, MobileNetV2 at 224, processor s",
            f"{ours:.3f}",
            "" if peer is None else f"{named}: {peer:.1f}",
            f"<= {CONVERSION_BAR_S}",
            met=ours is not None and ours <= CONVERSION_BAR_S,
            value=ours,
        )
    ]
    if ours is None or peer is None or found.ratio is None:
        beside = Figure("beside onnx2tf", "-", found.peer)
        if found.peer != LEFT_OUT:
            beside = replace(beside, bar="it runs", met=False)
        return [*figures, beside]
    ratio, (mine, other) = found.ratio, found.partitions
    return [
        *figures,
        Figure(
            "onnx2tf to ours, processor time",
            f"{peer / ours:.0f}x",
            named,
            f">= {PEER_BAR:g}x",
            met=peer / ours >= PEER_BAR,
            value=peer / ours,
        ),
        Figure(
            "latency of the files, ours to onnx2tf's",
            f"x{ratio.ratio:.3f} ({ratio.low:.3f} to {ratio.high:.3f})",
            f"{ratio.first_ms:.2f} and {ratio.second_ms:.2f} ms",
            f"upper end <= {LATENCY_BAR}",
            met=ratio.high <= LATENCY_BAR,
            value=ratio.ratio,
        ),
        Figure(
            "partitions of the files",
            str(mine),
            str(other),
            "no more",
            met=other is not None and mine <= other,
            value=mine,
        ),
    ]


def inspection_figure() -> Figure:
    """Return what looking into a file of 20 MB takes."""
    what = "inspect, file of 20 MB, cold start, s"
    try:
        source = fetch(_LARGE)
    except Unavailable as error:
        return Figure(what, "-", str(error), f"<= {INSPECT_BAR_S:g}", met=False)
    done = min((run("inspect", source) for _ in range(3)), key=lambda each: each.wall_s)
    bar = f"<= {INSPECT_BAR_S:g}"
    met = not done.code and done.wall_s <= INSPECT_BAR_S
    beside = f"{done.processor_s:.2f} s of the processor"
    return Figure(what, f"{done.wall_s:.2f}", beside, bar, met, done.wall_s)


def int8_figures(name: str, found: Beside) -> list[Figure]:
    """Return how our int8 file holds up beside the shipped one."""
    what = f"int8 {name}, {found.what}"
    if found.fault or found.latency is None:
        return [Figure(what, "-", found.fault, "at least the shipped file's", met=False)]
    ratio = found.latency
    source = "" if found.source != found.source else f", float {found.source:.4g}"
    return [
        Figure(
            what,
            f"{found.ours:.4g}",
            f"shipped {found.shipped:.4g}{source}",
            "at least the shipped file's",
            met=found.ours >= found.shipped,
            value=found.ours,
        ),
        Figure(
            f"int8 {name}, latency to the shipped file's",
            f"x{ratio.ratio:.3f} ({ratio.low:.3f} to {ratio.high:.3f})",
            f"{ratio.first_ms:.3f} and {ratio.second_ms:.3f} ms",
            f"upper end <= {LATENCY_BAR}",
            met=ratio.high <= LATENCY_BAR,
            value=ratio.ratio,
        ),
    ]


def ptq_figures(folder: Path) -> list[Figure]:
    """Return what quantisation takes."""
    source = export_onnx(folder / "ptq.onnx")
    timed, weighed = time_ptq(source, folder), weigh_ptq(folder)
    return [
        ended(
            Figure(
                "PTQ, MobileNetV2 at 224, 256 images, s",
                f"{timed.wall_s:.1f}",
                f"{timed.processor_s:.1f} s of the processor",
                f"<= {PTQ_BAR_S:g}",
                met=timed.wall_s <= PTQ_BAR_S,
                value=timed.wall_s,
            ),
            timed,
        ),
        ended(
            Figure(
                "PTQ, ONNX file of 100 MB, peak memory",
                f"{weighed.peak_bytes / 2**30:.2f} GiB",
                f"{weighed.wall_s:.0f} s",
                f"<= {PEAK_BAR_BYTES / 2**30:g} GiB",
                met=weighed.peak_bytes <= PEAK_BAR_BYTES,
                value=float(weighed.peak_bytes),
            ),
            weighed,
        ),
    ]


def ended(figure: Figure, done: Done) -> Figure:
    """Return a figure, missed where its command failed."""
    if not done.code:
        return figure
    return Figure(figure.what, "-", done.said[:200], figure.bar, met=False)


def show_models(rows: Sequence[Row]) -> None:
    """Print the table of models."""
    if not rows:
        return
    lines: list[tuple[str, ...]] = [("model", *STEPS, "")]
    for row in rows:
        cells: Any = (row.cells.get(step, "-") for step in STEPS)
        lines.append((row.model, *cells, "ok" if not row.faults else "FAULT"))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        padded = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        print("  ".join(padded).rstrip())
    for row in rows:
        for fault in row.faults:
            print(f"{row.model}: {fault}")
    print()


if __name__ == "__main__":
    sys.exit(main())
