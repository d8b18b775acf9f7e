"""edgewright sensitivity: what each layer alone loses, made sparser, coarser or narrower."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from device_agents.errors import ConfigError
from pipeline.cli.options import (
    INPUT_SHAPE,
    JSON,
    TASK,
    TRUST,
    WEIGHTS,
    Points,
    data_option,
    echo,
    parse_shapes,
    pixel_options,
    print_json,
    to_values,
)

if TYPE_CHECKING:
    from pipeline.compress.layer_changes import Of

_SUFFIXES = (".svg", ".html", ".json")
_MOST_SAMPLES = 100_000


@click.command()
@click.argument("model")
@data_option("Judge by")
@click.option(
    "--of",
    "of",
    metavar="LIST",
    default="sparsity,bits,width",
    show_default=True,
    help="What is changed of each layer: zeros, bits of its weights, channels.",
)
@click.option(
    "--max-drop",
    type=Points(),
    default=1.0,
    show_default=True,
    metavar="POINTS",
    help="What a layer may lose alone to be called redundant, in hundredths of the score, or of "
    "agreement with MODEL where there are no labels.",
)
@click.option(
    "--samples",
    "count",
    type=click.IntRange(1, _MOST_SAMPLES),
    help="Judge by so many at most; default: what takes about a minute.",
)
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Draw it into this .svg or .html, or write this .json.",
)
@TASK
@WEIGHTS
@pixel_options
@INPUT_SHAPE
@TRUST
@JSON
def command(
    *,
    model: str,
    data: Path | None,
    of: str,
    max_drop: float,
    count: int | None,
    out: Path | None,
    task: str,
    weights: Path | None,
    mean: str | None,
    scale: str | None,
    colours: str | None,
    shapes: tuple[str, ...],
    trust: bool,
    as_json: bool,
) -> None:
    """Tell which layers of MODEL hold redundant parameters.

    Each layer alone is made sparser, of fewer bits, or narrower, all others left whole, and the
    network is judged: the tables have the points that are lost at each level, the last level that
    loses no more than --max-drop, and the parameters that are not needed by that.
    """
    from device_agents.files import write_whole
    from pipeline.cli.commands._sensitivity import Asked, find_sensitivity, say, to_json
    from pipeline.cli.sweep_picture import draw
    from pipeline.formats.api import ReadOptions

    wanted = _parse_of(of)
    if out is not None and out.suffix not in _SUFFIXES:
        raise ConfigError(f"--out {out} ends in none of {', '.join(_SUFFIXES)}, which are written")
    asked = Asked(
        source=model,
        options=ReadOptions(parse_shapes(shapes), trust=trust, weights=weights),
        data=data,
        values=to_values(mean, scale, colours),
        of=wanted,
        task=task,
        count=count,
        max_drop=max_drop,
    )
    found = find_sensitivity(asked)
    if out is not None:
        text = (
            json.dumps(to_json(model, found), indent=2) + "\n"
            if out.suffix == ".json"
            else draw(found, model, page=out.suffix == ".html")
        )
        write_whole(out, text.encode())
    if as_json:
        print_json(to_json(model, found))
        return
    say(model, found, generated=data is None)
    if out is not None:
        echo(out)


def _parse_of(words: str) -> tuple[Of, ...]:
    from device_agents.near_names import did_you_mean
    from pipeline.compress.layer_changes import LEVELS

    found: dict[Of, None] = {}
    for word in words.split(","):
        known = next((one for one in LEVELS if one == word.strip()), None)
        if known is None:
            raise ConfigError(
                f"--of {words}: {word.strip()!r} is nothing that is changed; "
                f"{did_you_mean(word.strip(), list(LEVELS))}known: {', '.join(LEVELS)}"
            )
        found[known] = None
    return tuple(found)
