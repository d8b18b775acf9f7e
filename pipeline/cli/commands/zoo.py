"""edgewright zoo: published networks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.completion import complete_net
from pipeline.cli.options import JSON, console, echo, print_json

if TYPE_CHECKING:
    from collections.abc import Sequence


@click.command()
@click.argument("name", required=False, shell_complete=complete_net)
@JSON
def command(*, name: str | None, as_json: bool) -> None:
    """Show published networks, or the one-line spec of NAME.

    Parameters and MACs are counted on our own graph; top-1 (percent, ImageNet) and Pixel 1
    milliseconds are what the source prints.
    """
    from models import zoo

    rows = [_row(net) for net in ([name] if name else zoo.zoo())]
    if as_json:
        print_json(rows[0] if name else rows)
    elif name:
        echo(rows[0]["spec"])
    else:
        _table(rows)


def _row(name: str) -> dict[str, Any]:
    from models import zoo
    from models.cost import cost

    spec = zoo.get(name)
    counted, published = cost(spec), zoo.find_published(name)
    return {
        "name": name,
        "params": counted.params,
        "macs": counted.macs + counted.se_macs,
        "published_top1_percent": published.top1,
        "published_pixel1_ms": published.pixel1_ms,
        "source": published.source,
        "spec": str(spec),
    }


def _table(rows: Sequence[dict[str, Any]]) -> None:
    from rich.table import Table

    table = Table("net", box=None, pad_edge=False)
    for title in ("params", "MACs", "top-1, %", "Pixel 1, ms"):
        table.add_column(title, justify="right")
    table.add_column("source of the last two")
    for row in rows:
        top1, ms = row["published_top1_percent"], row["published_pixel1_ms"]
        table.add_row(
            row["name"],
            f"{row['params'] / 1e6:.2f} M",
            f"{row['macs'] / 1e6:.0f} M",
            "-" if top1 is None else f"{top1:g}",
            "-" if ms is None else f"{ms:g}",
            row["source"],
        )
    console().print(table)
