"""edgewright inspect: what a model is, and what can be done with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pipeline.cli.options import INPUT_SHAPE, JSON, echo, parse_shapes, print_json

if TYPE_CHECKING:
    from collections.abc import Sequence


@click.command()
@click.argument("model")
@INPUT_SHAPE
@click.option(
    "--graph",
    "as_graph",
    is_flag=True,
    help="Read it as a graph too where that takes torch or TensorFlow, and many seconds.",
)
@JSON
def command(*, model: str, shapes: Sequence[str], as_graph: bool, as_json: bool) -> None:
    """Tell what MODEL is: inputs, outputs, ops, cost, number formats, expected partitions.

    MODEL is a TFLite, ONNX, Keras (.keras, .h5) or exported torch file (.pt2), a SavedModel folder,
    a NETWORK.npz, or FILE.py:CALLABLE for a torch module, whose code is then run.
    """
    from pipeline.cli.commands import _inspection_text
    from pipeline.cli.commands._inspection import inspect_model

    found = inspect_model(model, parse_shapes(shapes), as_graph=as_graph)
    if as_json:
        print_json(_inspection_text.to_json(model, found))
        return
    for line in _inspection_text.lines(model, found):
        echo(line)
