"""What several commands share: options, and the two ways to print."""

from __future__ import annotations

import json
import math
import re
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from device_agents.errors import ConfigError, EdgewrightError
from device_agents.plain_text import plain
from models.number_format import NAMED, OTHER_NAMES, NumberFormat
from pipeline.cli.completion import complete_device

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rich.console import Console
    from rich.status import Status

    from pipeline.data.pictures.values import Values
    from profiles.schema import DeviceProfile

_Command = TypeVar("_Command", bound="Callable[..., Any]")


class NumberFormatType(click.Choice[Any]):
    """The number formats that have a name, of which static8 is called int8 by everybody else."""

    def __init__(self) -> None:
        super().__init__([*NAMED, *OTHER_NAMES])

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> NumberFormat:
        """Return what the word names."""
        if isinstance(value, NumberFormat):
            return value
        return NumberFormat.parse(super().convert(value, param, ctx))


class Points(click.FloatRange):
    """Hundredths, 0 or more; click's own range takes NaN for one, which is no limit."""

    def __init__(self) -> None:
        super().__init__(min=0)

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the number."""
        points: float = super().convert(value, param, ctx)
        if math.isnan(points):
            self.fail(f"{value!r} is no number of points", param, ctx)
        return points


def one_of(words: str) -> Callable[[click.Context, click.Parameter, tuple[Any, ...]], Any]:
    """Return the callback of an option with `multiple` that may be given once.

    click takes the last of several and says nothing of the others.
    """

    def chosen(ctx: click.Context, param: click.Parameter, given: tuple[Any, ...]) -> Any:
        if len(given) > 1:
            named = ", ".join(map(str, given))
            raise click.UsageError(
                f"{param.opts[0]} is given {len(given)} times ({named}); {words}", ctx=ctx
            )
        return given[0] if given else None

    return chosen


STORE = click.option(
    "--store",
    metavar="DIR",
    help="Folder (or postgresql:// URL) of the store; default $EDGEWRIGHT_STORE, else .edgewright.",
)
ARTIFACTS = click.option(
    "--artifacts",
    metavar="URL",
    help="Where the hosts that share a postgresql:// store share artifacts: a folder or URL, said "
    "once; default $EDGEWRIGHT_ARTIFACTS, else the store's.",
)


def device_option(words: str, *, required: bool = False) -> Callable[[_Command], _Command]:
    """Return --device, of which a command takes one; `words` say what it is for."""
    return click.option(
        "--device",
        required=required,
        multiple=True,
        callback=one_of("a command takes one device: run it once for each"),
        metavar="D",
        shell_complete=complete_device,
        help=words,
    )


def data_option(purpose: str) -> Callable[[_Command], _Command]:
    """Return --data, samples for a model of any format; `purpose` is what they do, a verb first."""
    return click.option(
        "--data",
        type=click.Path(path_type=Path),
        metavar="DATA",
        help=f"{purpose} these samples: a folder or archive of pictures, a .csv of labels, an .npz "
        "of arrays, or a recipe.",
    )


def out_option(usual: str) -> Callable[[_Command], _Command]:
    """Return --out, the file that a command makes of MODEL; `usual` is its name."""
    return click.option(
        "-o",
        "--out",
        type=click.Path(path_type=Path),
        help=f"File to write, or a folder; default {usual} in this folder.",
    )


DEVICE = device_option("A device that `edgewright device list` shows.", required=True)
TASK = click.option(
    "--task", default="classification", show_default=True, help="What labels of --data are for."
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
PRIORITY = click.option(
    "--priority",
    type=click.IntRange(-1_000_000, 1_000_000),
    default=0,
    show_default=True,
    metavar="N",
    help="Who waits for the device with a higher number goes first.",
)
INPUT_SHAPE = click.option(
    "--input-shape",
    "shapes",
    multiple=True,
    metavar="NAME=1x3x640x640",
    help="Shape of an input that the model file leaves open; without NAME= of its only input.",
)
TRUST = click.option(
    "--trust",
    is_flag=True,
    help="Run code that a model file holds (a pickle, a Lambda layer): of files you trust only.",
)
WEIGHTS = click.option(
    "--weights",
    type=click.Path(path_type=Path),
    metavar="FILE.pt",
    help="State dict for the module that FILE.py:CALLABLE builds.",
)
FORMAT = click.option(
    "--format", "format_", help="tflite or onnx; default: MODEL's own, else tflite."
)
SAMPLES = click.option(
    "--samples",
    "count",
    type=click.IntRange(1, 100_000),
    default=256,
    show_default=True,
    help="Calibrate on so many samples at most.",
)
VERBOSE = click.option("--verbose", is_flag=True, help="Name every step as it is done.")
SCHEME = click.option(
    "--scheme",
    type=NumberFormatType(),
    default="float32",
    show_default=True,
    help="Number format: static8, or int8, is int8 weights and activations.",
)

_PIPE_WIDTH = 160
# A network of hundreds of blocks, to be copied, fits into either.
_LINE_CHARS = 1 << 14
_TEXT_CHARS = 1 << 16
_SHAPE = re.compile(r"\d{1,9}([x,]\d{1,9})*")


def pixel_options(command: _Command) -> _Command:
    """Add --mean, --scale and --colours: what pixels of --data are to the model (`to_values`)."""
    for option in (
        click.option(
            "--colours",
            type=click.Choice(["RGB", "BGR", "grey"]),
            help="Order of colours that the model is fed.",
        ),
        click.option(
            "--scale",
            metavar="S[,S,S]",
            help="Pixels (0 to 255) are fed as (pixel - mean) * scale; see --mean.",
        ),
        click.option(
            "--mean",
            metavar="M[,M,M]",
            help="Of each channel, or one for all. Default: what the model says, else 127.5 and a "
            "scale of 1/127.5.",
        ),
    ):
        command = option(command)
    return command


def to_values(mean: str | None, scale: str | None, colours: str | None) -> Values | None:
    """Return what `pixel_options` say; None if nothing. Raises ConfigError."""
    if mean is None and scale is None and colours is None:
        return None
    from pipeline.data.pictures.values import Values

    usual = Values()
    means = usual.mean if mean is None else _numbers("--mean", mean)
    scales = usual.scale if scale is None else _numbers("--scale", scale)
    if mean is not None and scale is None:
        raise ConfigError(f"--mean {mean} needs --scale too; pixels are fed as (p - mean) * scale")
    return Values(means, scales, colours or usual.colours)


def _numbers(option: str, text: str) -> tuple[float, ...]:
    try:
        found = tuple(_quotient(part) for part in text.split(","))
    except (ValueError, ZeroDivisionError):
        found = ()
    if len(found) not in (1, 3) or not all(map(math.isfinite, found)):
        raise ConfigError(f"{option} {text!r} is not one number or three, as 0.5 or 1/255,1/255,1")
    return found


def _quotient(text: str) -> float:
    above, _, below = text.partition("/")
    return float(above) / float(below or 1)


def recipe_options(command: _Command) -> _Command:
    """Add RECIPE and what says how it is run: device, fresh, set."""
    for option in (
        click.option(
            "--set",
            "overrides",
            multiple=True,
            metavar="KEY=VALUE",
            help="Override a recipe's value.",
        ),
        click.option(
            "--fresh", is_flag=True, help="Start a new run instead of going on with the last."
        ),
        device_option("Device to run on instead of the recipe's."),
        click.argument("recipe", type=click.Path(path_type=Path)),
    ):
        command = option(command)
    return command


class Interrupted(EdgewrightError):
    """Ctrl-C in a command that can be continued; the sentence says how."""

    exit_code = 130


def require_agent(profile: DeviceProfile, command: str, *, runtime: str) -> None:
    """Refuse a device that has no agent, whose runtime is only the user's benchmark_model.

    Raises:
        ConfigError: with the way to a device that can do it.
    """
    from device_agents.tool_device import RUNTIME

    if runtime != RUNTIME:
        return
    way = (
        "reach the phone by Termux and SSH (docs/android.md)"
        if profile.transport == "adb"
        else 'set `runtime = "tflite"` in its profile, which needs Python there'
    )
    raise ConfigError(
        f"device {profile.name!r} has the runtime {RUNTIME}, which times model files and no more: "
        f"`edgewright bench` works there, `edgewright {command}` needs the agent; {way}"
    )


def require_format(profile: DeviceProfile, command: str, *, runtime: str) -> None:
    """Refuse a device whose runtime no network can be written for; implies `require_agent`.

    Raises:
        ConfigError: with the runtimes that there are files for.
    """
    from pipeline.formats import FORMATS

    require_agent(profile, command, runtime=runtime)
    if runtime in (known := FORMATS.names()):
        return
    raise ConfigError(
        f"device {profile.name!r} has the runtime {runtime}, for which no network can be written: "
        f"`edgewright {command}` needs a device with {' or '.join(known)}; "
        "`edgewright device list` shows yours"
    )


def console() -> Console:
    """Return a console for tables on stdout, wide enough in a pipe not to break lines."""
    from pipeline.cli.terminal import CleanConsole

    made = CleanConsole()
    return made if made.is_terminal else CleanConsole(width=_PIPE_WIDTH)


def echo(text: object = "", *, err: bool = False) -> None:
    """Print lines; what a device, a file or another user said in them is cleaned and cut."""
    click.echo("\n".join(plain(line, limit=_LINE_CHARS) for line in str(text).split("\n")), err=err)


def show_waiting(text: str) -> Status:
    """Show that something takes a while, on a terminal; print nothing in a pipe."""
    from pipeline.cli.terminal import CleanConsole, brief

    return CleanConsole(stderr=True).status(brief(text))


@contextmanager
def show_steps(text: str) -> Iterator[Callable[[object], None]]:
    """Show that something takes a while, as `show_waiting` does; what is yielded says how far."""
    from pipeline.cli.terminal import brief

    with show_waiting(text) as shown:
        yield lambda step: shown.update(brief(f"{text}: {step}"))


def parse_shapes(texts: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Return the values of --input-shape by the input's name, "" for one without; ConfigError."""
    found: dict[str, tuple[int, ...]] = {}
    for text in texts:
        name, _, shape = text.rpartition("=")
        if not _SHAPE.fullmatch(shape):
            raise ConfigError(
                f"--input-shape {text!r} is no shape; write it as NAME=1x3x640x640, or "
                "1x3x640x640 for a model with one input"
            )
        if name in found:
            raise ConfigError(f"--input-shape is given twice for {name or 'the only input'}")
        found[name] = tuple(map(int, re.split("[x,]", shape)))
    return found


def print_json(value: Any) -> None:
    """Print a JSON value, indented: texts cleaned, null for what is no number of JSON."""
    click.echo(json.dumps(_shown(value), indent=2, allow_nan=False))


def _shown(value: Any) -> Any:
    if isinstance(value, dict):
        return {plain(key): _shown(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_shown(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return plain(value, limit=_TEXT_CHARS) if isinstance(value, str) else value
