"""edgewright bench: time a model on a device, or tell its memory, its ops or its long run."""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from device_agents.errors import ConfigError, DeviceError
from device_agents.model_files import RUNTIME_OF, check_runtime, check_suffix, read
from pipeline.cli.commands._bench_files import TOOL, feed, find_subjects
from pipeline.cli.options import (
    DEVICE,
    INPUT_SHAPE,
    JSON,
    PRIORITY,
    STORE,
    data_option,
    echo,
    one_of,
    pixel_options,
    print_json,
    show_steps,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from device_agents.model_files import ModelFile
    from device_agents.runner import Device
    from device_agents.tool_device import ToolDevice
    from pipeline.cli.commands._bench_files import Subject
    from pipeline.measure.output_check import Checked
    from profiles.schema import DeviceProfile

_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}


class Duration(click.ParamType[float]):
    """A time such as 90s, 10m or 1h, as seconds."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the seconds."""
        found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", str(value))
        if not found:
            self.fail(f"{value!r} is no duration; write it as 90s, 10m or 1h", param, ctx)
        return float(found.group(1)) * _SECONDS[found.group(2)]


class Share(click.FloatRange):
    """A number from 0 to 1; click's own range takes NaN for one."""

    def __init__(self) -> None:
        super().__init__(0, 1)

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the number."""
        share: float = super().convert(value, param, ctx)
        if share != share:  # noqa: PLR0124 - which NaN alone does
            self.fail(f"{value!r} is no number from 0 to 1", param, ctx)
        return share


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@DEVICE
@click.option("--protocol", type=click.Choice(["quick", "thorough"]), default="thorough")
@click.option(
    "--reference",
    type=click.Path(path_type=Path),
    multiple=True,
    callback=one_of("a model is held against one other"),
    metavar="MODEL",
    help="Time this model too, in turns, and give the ratio.",
)
@click.option("--runtime", default="", help="Default: the one that takes such a file.")
@click.option(
    "--binary",
    type=click.Path(path_type=Path),
    help="With --runtime benchmark_model: your binary of it, for the device's system.",
)
@click.option("--threads", type=click.IntRange(1, 256), help="Default: the device's own.")
@click.option("--no-xnnpack", is_flag=True, help="Switch the XNNPACK delegate off (tflite).")
@click.option(
    "--min-delegated",
    type=Share(),
    metavar="SHARE",
    help="Refuse the figure when a smaller share of the ops was delegated.",
)
@click.option("--per-op", is_flag=True, help="Instead: what each op costs, in a pass of its own.")
@click.option("--memory", is_flag=True, help="Instead: the memory, in a pass of its own.")
@click.option(
    "--sustained",
    type=Duration(),
    metavar="TIME",
    help="Instead: run at full rate for this long (90s, 10m, 1h) and show what heat does.",
)
@data_option("Run it on the first of")
@pixel_options
@INPUT_SHAPE
@PRIORITY
@STORE
@JSON
def command(*, model: Path, device: str, as_json: bool, **options: Any) -> None:
    """Time MODEL on a device, with the conditions and a verdict.

    The measurement is recorded when --store is given. A measurement that is not valid is printed
    with its reasons and ends with exit code 3. A file that computes something else there than here
    is not timed: exit code 5.
    """
    from device_agents.api import Failure
    from device_agents.opening import open_device
    from pipeline.formats.generated_inputs import ADVICE
    from pipeline.store.leases import open_leases
    from profiles.registry import load_device

    _check_together(options)
    described, file = load_device(device), read(model)
    profile = _asked(described, file, options)
    subjects = feed(find_subjects(file, options, profile.runtime), options, profile.runtime)
    store = options["store"]
    with (
        _waiting(model, device, options["sustained"]) as tell,
        open_leases(store, purpose=f"bench {model.name}", priority=options["priority"]) as leases,
        open_device(profile, leases=leases, on_step=tell) as opened,
    ):
        checked = _checked(opened, profile, subjects[0], options)
        found = _run(opened, subjects, options)
    if isinstance(found, Failure) and found.kind == "invoke_failed" and options["data"] is None:
        found = replace(found, reason=f"{found.reason}{ADVICE}")
    _show(found, checked, model, device, store=store, as_json=as_json)


def _check_together(options: dict[str, Any]) -> None:
    passes = {
        "--per-op": options["per_op"],
        "--memory": options["memory"],
        "--sustained": options["sustained"] is not None,
    }
    given = [name for name, asked in passes.items() if asked]
    if len(given) > 1:
        raise click.UsageError(f"{' and '.join(given)} are passes of their own; give one of them")
    if given and options["reference"]:
        raise click.UsageError(f"--reference is for timing; leave it out with {given[0]}")
    if options["binary"] and options["runtime"] not in ("", TOOL):
        raise click.UsageError(f"--binary goes with --runtime {TOOL}, not {options['runtime']}")


def _asked(profile: DeviceProfile, file: ModelFile, options: dict[str, Any]) -> DeviceProfile:
    """Return the profile with what the command line says instead; raises ConfigError."""
    from pipeline.recipe.sections import RUNTIMES

    runtime = options["runtime"] or (TOOL if options["binary"] else "")
    if not runtime:
        check_suffix(file)
        runtime = TOOL if profile.runtime == TOOL else RUNTIME_OF[file.format]
    known = sorted([*RUNTIMES.names(), TOOL])
    if runtime not in known:
        raise ConfigError(
            f"no runtime {runtime!r} known; have {', '.join(known)}; correct --runtime, or "
            f"`runtime` in the profile of {profile.name}"
        )
    check_runtime(file, runtime)
    if runtime == TOOL and options["sustained"] is not None:
        raise ConfigError(f"{TOOL} runs for no set time; take another --runtime for --sustained")
    changes: dict[str, Any] = {"runtime": runtime}
    if options["binary"]:
        changes["benchmark_binary"] = str(options["binary"])
    if options["no_xnnpack"]:
        changes["xnnpack"] = False
    if options["min_delegated"] is not None:
        changes["min_delegated_share"] = options["min_delegated"]
    return replace(profile, **changes)


def _checked(
    opened: Device | ToolDevice, profile: DeviceProfile, subject: Subject, options: dict[str, Any]
) -> Checked:
    """Hold the file's outputs there against this computer's; see `check_outputs`."""
    from device_agents.errors import AgentError
    from device_agents.runner import Device
    from pipeline.measure.output_check import Checked, check_outputs

    if not isinstance(opened, Device):
        return Checked(None, f"not checked: {TOOL} does not tell them")
    how: dict[str, Any] = {"runtime": profile.runtime, "threads": options["threads"] or 0}
    examined = opened.golden(**how)
    try:
        return check_outputs(
            opened,
            subject.path,
            opened.runs(subject.path, **how, shapes=subject.shapes),
            runtime=profile.runtime,
            examined=examined,
            inputs=subject.arrays or None,
            shapes=subject.shapes,
        )
    except AgentError:
        # Timing it will fail alike, and has the words for it.
        return Checked(None, "not checked: it does not run there")


def _run(opened: Device | ToolDevice, subjects: list[Subject], options: dict[str, Any]) -> Any:
    from device_agents.api import BenchProtocol

    model, *reference = subjects
    how: dict[str, Any] = {"threads": options["threads"] or 0, "shapes": model.shapes}
    one = {**how, "inputs": model.inputs} if model.inputs else how
    if options["per_op"]:
        return opened.per_op(model.path, **one)
    if options["memory"]:
        return opened.memory(model.path, **one)
    if options["sustained"] is not None:
        return cast("Device", opened).sustain(model.path, options["sustained"], **one)
    quick = options["protocol"] == "quick"
    protocol = BenchProtocol.quick() if quick else BenchProtocol.thorough()
    if reference:
        how |= {"reference": reference[0].path, "reference_shapes": reference[0].shapes}
    if model.inputs:
        how["inputs"] = (model.inputs, reference[0].inputs if reference else ())
    return opened.measure(model.path, protocol, **how)


def _show(
    found: Any, checked: Checked, model: Path, device: str, *, store: str | None, as_json: bool
) -> None:
    """Record and print a result; raises DeviceError when there is none to rely on."""
    from device_agents.api import Failure, Measurement
    from device_agents.measure.sustained import Sustained
    from device_agents.refusals import last_words
    from pipeline.cli.commands import _bench_text
    from pipeline.store import PATIENCE_S, Store

    if isinstance(found, Failure):
        said = last_words(found)
        detail = f" ({said})" if said else ""
        raise DeviceError(f"{model} cannot be timed on {device}: {found.reason}{detail}")
    if store is not None and isinstance(found, Measurement):
        with Store.open(store, patience_s=PATIENCE_S) as kept:
            kept.add_measurement(found)
    if as_json:
        print_json({**asdict(found), "outputs": checked.to_json()})
    else:
        echo("\n".join([*_bench_text.lines(found), f"outputs: {checked.words}"]))
    if isinstance(found, Measurement) and found.verdict == "invalid":
        raise DeviceError(f"the measurement is invalid: {'; '.join(found.reasons)}")
    if isinstance(found, Sustained) and found.stopped:
        raise DeviceError(
            f"the run was stopped after {found.ran_s:.0f} s: {device} passed "
            f"{found.trip_celsius:.1f} °C; cool it, or raise `thermal_limit_celsius` in its profile"
        )


@contextmanager
def _waiting(
    model: Path, device: str, sustained_s: float | None
) -> Iterator[Callable[[object], None]]:
    """Show that it takes a while; of a sustained run how long it has been running.

    What is yielded shows how far it is.
    """
    from pipeline.cli.terminal import CleanConsole, brief, words_column

    if sustained_s is None:
        with show_steps(f"timing {model.name} on {device}") as tell:
            yield tell
        return
    from rich.progress import Progress, SpinnerColumn, TimeElapsedColumn

    console = CleanConsole(stderr=True)
    columns = (SpinnerColumn(), words_column("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as p:
        what = f"running {model.name} on {device} for {sustained_s:g} s"
        task = p.add_task(str(brief(what)), total=None)
        yield lambda step: p.update(task, description=str(brief(f"{what}: {step}")))
