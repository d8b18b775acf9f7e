"""Any model in: models of other people through every command, and figures beside peers and bars.

    models      inspected (with the partitions that LiteRT makes), read as a graph or refused by
                name, written in the other format, quantised, verified, benched and deployed here
    conversion  MobileNetV2 at 224 from ONNX to TFLite, warm, beside onnx2tf in its own environment
    inspection  seconds of a file of at least 20 MB from a cold start
    int8        ResNet-8 and DS-CNN beside the int8 files that MLPerf Tiny ships
    PTQ         MobileNetV2 at 224 on 256 images, and the memory that an ONNX file of at least 100
                MB takes

Each command runs in a process of its own: one that ends by a signal is a fault of its model and no
more. A part that fails is a figure that is missed; with --json the figures are written after each.
onnx2tf is installed on the first run, which takes minutes; --without-peer leaves it out.
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
    NET,
    SIZE,
    Conversion,
    compare_conversions,
    export_onnx,
    median,
)
from scripts._import_int8 import (
    CIFAR,
    Beside,
    compare_ds_cnn,
    compare_resnet8,
    large_onnx,
    quantize_on_images,
)
from scripts._import_models import STEPS, Row, try_model
from scripts._import_runs import Done, run
from scripts.figures import Figure, describe, finish, guarded, keep, need, parser
from scripts.other_models import MODELS, fetch

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator, Sequence

CONVERSION_BAR_S = 0.25
PEER_BAR = 10.0
LATENCY_BAR = 1.03
INSPECT_BAR_S = 2.0
INSPECT_BYTES = 20_000_000
PTQ_BAR_S = 60.0
PEAK_BAR_BYTES = int(1.5 * 2**30)
LARGE_BYTES = 100_000_000
QUICK_MODELS = ("basic-pitch.tflite", "face-mesh.tflite", "nabu.tflite", "resnet8.tflite")
_LARGE = "ocr-rec.onnx"


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much work a run does."""

    models: tuple[str, ...]
    conversions: int
    rounds: int
    test_images: int


@dataclass(frozen=True, slots=True)
class Asked:
    """What a part is given: the command line, how much to do, a folder, and the rows of models."""

    options: argparse.Namespace
    sizes: Sizes
    folder: Path
    rows: list[Row]


FULL = Sizes(tuple(MODELS), conversions=20, rounds=60, test_images=10_000)
QUICK = Sizes(QUICK_MODELS, conversions=5, rounds=20, test_images=500)


def main(argv: list[str] | None = None) -> int:
    """Run, print the tables; returns 1 with --check if a figure misses its bar."""
    options_of = parser(__doc__, data="CIFAR-10 as JPEG in it, for ResNet-8")
    options_of.add_argument("--only", choices=PARTS, action="append", help="this part only")
    options_of.add_argument("--model", choices=MODELS, action="append", help="this model only")
    options_of.add_argument("--without-peer", action="store_true", help="leave onnx2tf out")
    options = options_of.parse_args(argv)
    conditions, sizes = describe(), QUICK if options.quick else FULL
    figures: list[Figure] = []
    rows: list[Row] = []

    def more() -> dict[str, Any]:
        return {"models": [asdict(row) for row in rows]}

    with working_folder() as folder:
        asked = Asked(options, sizes, folder, rows)
        for name in options.only or PARTS:
            for part in PARTS[name]:
                figures += guarded(name, part(asked))
                keep(options, figures, conditions, **more())
    show_models(rows)
    return finish(options, figures, conditions, **more())


def models(asked: Asked) -> Iterator[Figure]:
    """Put each model through every command."""
    for name in asked.options.model or asked.sizes.models:
        asked.rows.append(tell(try_model(name, asked.folder)))
        yield model_figure(asked.rows[-1])


def conversion(asked: Asked) -> Iterator[Figure]:
    """Convert MobileNetV2 from ONNX to TFLite."""
    yield from conversion_figures(
        compare_conversions(
            asked.folder,
            times=asked.sizes.conversions,
            rounds=asked.sizes.rounds,
            with_peer=not asked.options.without_peer,
        )
    )


def resnet8(asked: Asked) -> Iterator[Figure]:
    """Hold int8 of ResNet-8 against the file that is shipped."""
    data, sizes = asked.options.data, asked.sizes
    need(data / CIFAR / "test.zip", "CIFAR-10 as JPEG")
    found = compare_resnet8(data, asked.folder, images=sizes.test_images, rounds=sizes.rounds)
    yield from int8_figures("ResNet-8", found)


def ds_cnn(asked: Asked) -> Iterator[Figure]:
    """Hold int8 of DS-CNN against the file that is shipped."""
    yield from int8_figures("DS-CNN", compare_ds_cnn(asked.folder, rounds=asked.sizes.rounds))


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


def inspection(asked: Asked) -> Iterator[Figure]:
    """Give what looking into a large file takes, and whether it is as large as the bar is for."""
    del asked
    source = fetch(_LARGE)
    size = source.stat().st_size
    done = min((run("inspect", source) for _ in range(3)), key=lambda each: each.wall_s)
    yield ended(
        Figure(
            f"inspect, file of {megabytes(size)}, cold start, s",
            f"{done.wall_s:.2f}",
            f"{done.processor_s:.2f} s of the processor",
            f"<= {INSPECT_BAR_S:g}, of at least {megabytes(INSPECT_BYTES)}",
            met=done.wall_s <= INSPECT_BAR_S and size >= INSPECT_BYTES,
            value=done.wall_s,
        ),
        done,
    )


def megabytes(size: int) -> str:
    """Return a size in words."""
    return f"{size / 1e6:.0f} MB"


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


def ptq_time(asked: Asked) -> Iterator[Figure]:
    """Give how long PTQ takes."""
    done = quantize_on_images(export_onnx(asked.folder / "ptq.onnx"), asked.folder)
    yield ended(
        Figure(
            f"PTQ, {NET} at {SIZE}, 256 images, s",
            f"{done.wall_s:.1f}",
            f"{done.processor_s:.1f} s of the processor",
            f"<= {PTQ_BAR_S:g}",
            met=done.wall_s <= PTQ_BAR_S,
            value=done.wall_s,
        ),
        done,
    )


def ptq_memory(asked: Asked) -> Iterator[Figure]:
    """Give the memory that PTQ of a large file takes, and whether it is as large as asked for."""
    source = large_onnx(asked.folder / "large.onnx")
    size, done = source.stat().st_size, quantize_on_images(source, asked.folder)
    yield ended(
        Figure(
            f"PTQ, ONNX file of {megabytes(size)}, peak memory",
            f"{done.peak_bytes / 2**30:.2f} GiB",
            f"{done.wall_s:.0f} s",
            f"<= {PEAK_BAR_BYTES / 2**30:g} GiB, of at least {megabytes(LARGE_BYTES)}",
            met=done.peak_bytes <= PEAK_BAR_BYTES and size >= LARGE_BYTES,
            value=float(done.peak_bytes),
        ),
        done,
    )


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


PARTS: dict[str, tuple[Callable[[Asked], Iterator[Figure]], ...]] = {
    "models": (models,),
    "conversion": (conversion,),
    "inspection": (inspection,),
    "int8": (resnet8, ds_cnn),
    "ptq": (ptq_time, ptq_memory),
}


if __name__ == "__main__":
    sys.exit(main())
