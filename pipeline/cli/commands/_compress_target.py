"""`edgewright compress --target-ms`: the device that measures, and what is said of it."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import click

from device_agents.errors import ConfigError
from device_agents.plural import number_of
from pipeline.cli.commands._measured_files import Where, open_files
from pipeline.cli.options import console, echo, require_format

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from models.graph import Graph
    from models.model import Model
    from pipeline.compress.passes.prune import PruneOptions
    from pipeline.compress.prune_to_target import PruneToTarget
    from pipeline.compress.to_latency import Fitted, Plan, Target
    from pipeline.formats.api import Format
    from pipeline.train.lessons import Lessons
    from profiles.schema import DeviceProfile


@dataclass(frozen=True, slots=True)
class Aim:
    """A latency to be pruned to, on a device.

    Attributes:
        profile: of the device.
        target: the latency, and how hard to try.
        protocol: `thorough` or `quick`, of networks that may be handed over.
        store: where measurements are remembered.
        fresh: measure anew what was measured before.
    """

    profile: DeviceProfile
    target: Target
    protocol: str
    store: str | None
    fresh: bool


class Latency(click.ParamType[dict[str, float]]):
    """Milliseconds, or a share such as 70%, as what `Target` takes."""

    name = "latency"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> dict[str, float]:
        """Return the argument by its name."""
        text = str(value).strip()
        try:
            if text.endswith("%"):
                return {"ratio": float(text[:-1]) / 100}
            return {"latency_ms": float(text)}
        except ValueError:
            self.fail(f"{value!r} is no latency; write milliseconds or a share as 70%", param, ctx)


def read_aim(
    words: Sequence[str],
    device: str | None,
    target_ms: dict[str, float] | None,
    protocol: str,
    *,
    store: str | None,
    fresh: bool,
    **how: int | None,
) -> Aim | None:
    """Return what --target-ms asks for; None without it.

    Args:
        words: the passes, as the command line spells them.
        device: its name.
        target_ms: the latency, as `Latency` reads it.
        protocol: `thorough` or `quick`.
        store: where measurements are kept.
        fresh: measure anew what was measured.
        how: rounds and points, as far as they are given.

    Raises:
        ConfigError: something of `how` goes without it, there is no device, the passes are others
            than one `prune`, or the device cannot measure networks.
    """
    given = {name: value for name, value in how.items() if value}
    if target_ms is None:
        if given:
            raise ConfigError(f"--{next(iter(given))} goes with --target-ms T; give that, or none")
        return None
    if device is None:
        raise ConfigError("--target-ms goes with --device D: prune to T milliseconds on D")
    name, _, options = words[0].partition(":")
    if len(words) != 1 or name != "prune":
        raise ConfigError(
            "--target-ms takes the pass prune alone, since what is measured is the file that is "
            "written; fine-tune and quantise that file afterwards, and measure again"
        )
    chosen = [one for one in options.split(",") if one.startswith(("ratio=", "scope="))]
    if chosen:
        raise ConfigError(
            f"{words[0]}: {chosen[0]} is chosen by --target-ms; leave out one of them"
        )
    from pipeline.compress.to_latency import Target
    from profiles.registry import load_device

    wanted: dict[str, Any] = dict(target_ms)
    target = Target(**wanted, **given)
    profile = load_device(device)
    require_format(profile, "compress --target-ms", runtime=profile.runtime)
    return Aim(profile, target, protocol, store, fresh)


@contextmanager
def measured(
    aim: Aim,
    options: PruneOptions,
    model: Model,
    format_: Format,
    tell: Callable[[str], None],
    *,
    lessons: Lessons | None = None,
) -> Iterator[PruneToTarget]:
    """Open the device; give the pass that prunes a model to the latency, measuring there.

    Raises:
        ConfigError: no channel of the model can be cut.
        DeviceError: the device cannot be reached.
    """
    from pipeline.compress.passes.prune import rank
    from pipeline.compress.prune_to_target import PruneToTarget
    from pipeline.compress.to_latency import plan_measurements

    plan = plan_measurements(rank(model, options, lessons), options, aim.target)
    where = Where(aim.profile, aim.protocol, aim.store, aim.fresh)
    with open_files(where, model, format_, tell) as measure:
        echo(_plan_words(plan, aim, format_), err=True)
        yield PruneToTarget(options, aim.target, measure, tell)


def _plan_words(plan: Plan, aim: Aim, format_: Format) -> str:
    single = sum(map(len, plan.anchors))
    groups = sum(map(bool, plan.anchors))
    return (
        f"at most {plan.most} measurements on {aim.profile.name}, of {format_.name} files in "
        f"float32: {number_of(single, 'width')} of {number_of(groups, 'group')} of "
        f"channels, the whole network, the "
        f"narrowest, and {number_of(aim.target.rounds, 'round')}; what this run has measured "
        "already is not measured again"
    )


def latency_json(fitted: Fitted, aim: Aim) -> dict[str, Any]:
    """Return what --json tells of a latency."""
    return {
        "device": aim.profile.name,
        "target_ms": fitted.target.latency_ms,
        "predicted_ms": fitted.best.predicted_ms,
        "measured": asdict(fitted.best.measured),
        "kept": fitted.best.kept,
        "whole": asdict(fitted.whole),
        "narrowest": asdict(fitted.least),
        "measurements": fitted.measurements,
        "rounds": [asdict(one) for one in fitted.rounds],
        "groups": [asdict(width) for width in fitted.widths],
    }


def say_latency(fitted: Fitted, aim: Aim, graph: Graph) -> None:
    """Print the rounds, what is left of every group, and a sentence; `graph` is the whole's."""
    from rich.table import Table

    from pipeline.compress.op_names import shorten

    rounds = Table("round", "sum, ms", "predicted, ms", "measured, ms", "95 % interval", "kept", "")
    for place, one in enumerate(fitted.rounds, 1):
        low, high = one.measured.ci95_ms
        rounds.add_row(
            str(place),
            f"{one.table_ms:.4g}",
            f"{one.predicted_ms:.4g}",
            f"{one.measured.latency_ms:.4g}",
            f"{low:.4g} to {high:.4g}",
            f"{one.kept:.1%}",
            _mark(one.measured.verdict, taken=one is fitted.best),
        )
    groups = Table("group of channels", "before", "left")
    names = shorten(graph, [width.name for width in fitted.widths])
    for name, width in zip(names, fitted.widths, strict=True):
        groups.add_row(name, str(width.before), str(width.after))
    console().print(groups)
    console().print(rounds)
    echo(latency_sentence(fitted, aim), err=True)


def _mark(verdict: str, *, taken: bool) -> str:
    return ", ".join(([] if verdict == "valid" else [verdict]) + (["taken"] if taken else []))


def latency_sentence(fitted: Fitted, aim: Aim) -> str:
    """Say what was asked, what was measured, and how surely it is below."""
    best, target = fitted.best.measured, fitted.target
    low, high = best.ci95_ms
    sure = "all of it at or below the target"
    if high > target.latency_ms:
        care = "--protocol thorough" if aim.protocol == "quick" else "a lower target"
        sure = f"which reaches above the target: to be sure, ask for {care}"
    return (
        f"target {target.latency_ms:.4g} ms on {aim.profile.name}; measured "
        f"{best.latency_ms:.4g} ms, 95 % interval {low:.4g} to {high:.4g}, {sure}; the whole "
        f"network as it is written takes "
        f"{fitted.whole.latency_ms:.4g} ms; {number_of(fitted.measurements, 'measurement')} in "
        f"{number_of(len(fitted.rounds), 'round')}; {fitted.best.kept:.1%} of the importance is "
        f"kept; rounding in the choice gave away {fitted.best.slack_ms:.2g} ms at most; nothing "
        "was trained afterwards"
    )
