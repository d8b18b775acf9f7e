"""edgewright compress: passes in order, each with what it cost and gained."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from device_agents.errors import ConfigError
from pipeline.cli.commands._compress_target import Latency, read_aim
from pipeline.cli.options import (
    FORMAT,
    INPUT_SHAPE,
    JSON,
    SAMPLES,
    STORE,
    TASK,
    TRUST,
    WEIGHTS,
    Points,
    data_option,
    device_option,
    out_option,
    parse_shapes,
    pixel_options,
    to_values,
)

_MULTIPLE = 8
"""What most runtimes like."""


@click.command()
@click.argument("model")
@click.argument("passes", nargs=-1, metavar="[PASS...]")
@data_option("Calibrate and judge on")
@FORMAT
@click.option(
    "--multiple",
    type=click.IntRange(1, 1024),
    help="Leave channels in multiples of this, where a pass does not say it; default: what "
    "--device likes with --target-ms, else 8.",
)
@click.option(
    "--max-drop",
    type=Points(),
    metavar="POINTS",
    help="Lose no more points (hundredths) of the task's score, or of agreement with MODEL where "
    "there are no labels: int8 leaves layers in float32 for it, any other pass is refused.",
)
@device_option("Time the file after each pass there, in turns with MODEL's own.")
@click.option(
    "--protocol",
    type=click.Choice(["quick", "thorough"]),
    help="How thoroughly --device times; default: thorough.",
)
@click.option(
    "--target-ms",
    type=Latency(),
    metavar="T",
    help="Milliseconds on --device that the file may take, or a share of what MODEL takes, as 70%: "
    "prune chooses every width for it.",
)
@click.option(
    "--rounds",
    type=click.IntRange(1, 100),
    help="With --target-ms: networks at most that are chosen and measured whole; default: 6.",
)
@click.option(
    "--points",
    type=click.IntRange(1, 100),
    help="With --target-ms: widths of each group of channels that are measured; default: 3.",
)
@click.option(
    "--fresh", is_flag=True, help="Do again, and measure anew, what the store remembers of MODEL."
)
@STORE
@TASK
@SAMPLES
@out_option("MODEL-compressed")
@click.option(
    "--report",
    type=click.Path(path_type=Path),
    metavar="FILE.html",
    help="Write a page with figures of every pass too.",
)
@WEIGHTS
@pixel_options
@INPUT_SHAPE
@TRUST
@JSON
def command(
    *,
    model: str,
    passes: tuple[str, ...],
    data: Path | None,
    format_: str | None,
    multiple: int | None,
    max_drop: float | None,
    device: str | None,
    protocol: Literal["quick", "thorough"] | None,
    target_ms: dict[str, float] | None,
    rounds: int | None,
    points: int | None,
    fresh: bool,
    store: str | None,
    task: str,
    count: int,
    out: Path | None,
    report: Path | None,
    weights: Path | None,
    mean: str | None,
    scale: str | None,
    colours: str | None,
    shapes: tuple[str, ...],
    trust: bool,
    as_json: bool,
) -> None:
    """Put MODEL through passes in order and print the path of the file that comes of it.

    PASS is prune, with options as in prune:ratio=0.3,importance=l1,scope=global; equalize;
    finetune; sparsify or share, for storage; or, the last, quantize:FORMAT, such as
    quantize:static8, or qat. What each step costs and gains is shown. With --device and --target-ms
    prune chooses its widths by what they take there.

    Without any PASS chains of them are tried on --device: what each takes, loses and weighs is
    shown, and the one that meets --target-ms and loses least is written.
    """
    from pipeline.cli.commands._compress_any import Asked, compress_any
    from pipeline.cli.commands._compress_choose import compress_chosen, read_wish
    from pipeline.cli.commands._compress_device import find_timing
    from pipeline.compress.pass_words import parse_passes
    from pipeline.formats.api import ReadOptions

    said = protocol or "thorough"
    wish = aim = None
    if passes:
        how = {"rounds": rounds, "points": points}
        aim = read_aim(passes, device, target_ms, said, store=store, fresh=fresh, **how)
    else:
        wish = read_wish(
            device,
            target_ms,
            rounds=rounds,
            points=points,
            fresh=fresh,
            store=store,
            protocol=said,
            multiple=multiple,
            max_drop=max_drop,
            images=count,
        )
    if report is not None and not passes:
        raise ConfigError("--report is a page on passes; name them, as prune quantize:static8")
    if device is None and protocol is not None:
        raise ConfigError("--protocol says how a device times; give --device D with it")
    if multiple is None:
        multiple = _MULTIPLE if aim is None else aim.profile.channel_multiple
    chain = parse_passes(passes, images=count, multiple=multiple)
    asked = Asked(
        source=model,
        passes=tuple(zip(passes, chain, strict=True)),
        options=ReadOptions(parse_shapes(shapes), trust=trust, weights=weights),
        data=data,
        values=to_values(mean, scale, colours),
        format_name=format_,
        max_drop=max_drop,
        timing=find_timing(device, said) if passes and aim is None else None,
        aim=aim,
        task=task,
        count=count,
        out=out,
        as_json=as_json,
        store=store,
        fresh=fresh,
        report=report,
    )
    if wish is None:
        compress_any(asked)
    else:
        compress_chosen(asked, wish)
