"""edgewright pack: a model file in fewer bytes, without loss."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from device_agents.agent.packed import SUFFIX
from device_agents.errors import ConfigError
from device_agents.files import write_whole
from pipeline.cli.options import JSON, console, echo, print_json, show_steps

if TYPE_CHECKING:
    from pipeline.coding import Packed, PackedTensor
    from pipeline.coding.figures import CodingFigures

    Rows = list[tuple[PackedTensor, CodingFigures]]


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help=f"The packed file; default FILE{SUFFIX}.",
)
@click.option(
    "--codes",
    "codes_shown",
    is_flag=True,
    help="Show what codes that were made for other distributions would cost each tensor.",
)
@JSON
def command(*, file: Path, out: Path | None, codes_shown: bool, as_json: bool) -> None:
    """Pack FILE so that `edgewright unpack` gives it back bit for bit.

    Each weight tensor of a TFLite or ONNX file is written in the coding that is smallest for it;
    any other file as one text. The table has the entropy of each beside what it takes, and what a
    code made for all tensors together would cost; with --codes, what other codes would, too.
    """
    from pipeline.coding.figures import coding_figures
    from pipeline.coding.files import pack_file

    target = out or file.with_name(file.name + SUFFIX)
    if target.resolve() == file.resolve():
        raise ConfigError(f"--out {target} is the file itself; choose another name")
    with show_steps(f"packing {file.name}") as tell:
        content, packed = pack_file(file, tell)
        figures = coding_figures(content, packed)
    write_whole(target, packed.content)
    rows = list(zip(packed.tensors, figures, strict=True))
    if as_json:
        print_json(_to_json(file, target, content, packed, rows))
        return
    if rows:
        _show(rows)
        if codes_shown:
            _show_codes(rows)
    else:
        echo("no weight tensors found: it is coded as one text")
    size, stored = len(content), len(packed.content)
    echo(f"the rest: {packed.rest_bytes} -> {packed.rest_stored_bytes} bytes")
    echo(
        f"{target}: {size} -> {stored} bytes, compression rate {size / stored:.2f}, space saved "
        f"{1 - stored / size:.1%}; unpacked and compared"
    )


def _show(rows: Rows) -> None:
    """Print the table of tensors."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("tensor", overflow="fold")
    table.add_column("type")
    heads = ("elements", "entropy", "by channel", "stored", "shared code", "KL", "bytes")
    for head in (*heads, "packed"):
        table.add_column(head, justify="right")
    table.add_column("coding")
    for tensor, figures in rows:
        given = figures.given_channel_bits
        table.add_row(
            tensor.weights.name,
            tensor.weights.dtype,
            str(figures.elements),
            f"{figures.entropy_bits:.3f}",
            "" if given is None else f"{given:.3f}",
            f"{figures.stored_bits:.3f}",
            f"{figures.shared_bits:.3f}",
            f"{figures.divergence_bits:.3f}",
            str(tensor.weights.size),
            str(tensor.stored_bytes),
            ", ".join(dict.fromkeys(tensor.codings)),
        )
    console().print(table)
    echo("entropy to KL in bits an element")


def _show_codes(rows: Rows) -> None:
    """Print what each tensor costs in the code of each distribution, and what that wastes."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, title="bits an element in a code made for (KL)")
    table.add_column("tensor", overflow="fold")
    for head in ("entropy", *rows[0][1].codes):
        table.add_column(head, justify="right")
    for tensor, figures in rows:
        costs = (
            "" if cost is None else f"{cost[0]:.3f} ({cost[1]:.3f})"
            for cost in figures.codes.values()
        )
        table.add_row(tensor.weights.name, f"{figures.entropy_bits:.3f}", *costs)
    console().print(table)


def _to_json(
    file: Path, target: Path, content: bytes, packed: Packed, rows: Rows
) -> dict[str, Any]:
    size, stored = len(content), len(packed.content)
    return {
        "file": str(file),
        "packed": str(target),
        "sha256": packed.sha256,
        "bytes": size,
        "packed_bytes": stored,
        "compression_rate": size / stored,
        "space_saving_rate": 1 - stored / size,
        "rest_bytes": packed.rest_bytes,
        "rest_packed_bytes": packed.rest_stored_bytes,
        "tensors": [
            {
                "name": tensor.weights.name,
                "dtype": tensor.weights.dtype,
                "shape": list(tensor.weights.dims),
                "bytes": tensor.weights.size,
                "packed_bytes": tensor.stored_bytes,
                "codings": list(tensor.codings),
                **asdict(figures),
            }
            for tensor, figures in rows
        ],
    }
