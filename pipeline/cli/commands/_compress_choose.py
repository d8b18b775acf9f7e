"""`edgewright compress` without passes: chains are tried on a device, and the best is written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from device_agents.errors import ConfigError, TargetError
from device_agents.plural import number_of
from pipeline.cli.commands._choice_text import Told, say
from pipeline.cli.commands._compress_any import make_judge
from pipeline.cli.commands._compress_samples import needs_of, read_samples_for
from pipeline.cli.commands._export_any import say_whose_weights
from pipeline.cli.commands._made_file import (
    choose_format,
    place,
    read_graph,
    refuse_unmeasured,
    stem_of,
    write_compressed,
)
from pipeline.cli.commands._measured_files import Where, open_files
from pipeline.cli.options import echo, require_format, show_steps

if TYPE_CHECKING:
    from models.model import Model
    from pipeline.cli.commands._compress_any import Asked
    from pipeline.compress.trials import Effort
    from pipeline.formats.api import Format


@dataclass(frozen=True, slots=True)
class Wish:
    """What chains are chosen for: where they are timed, and what is wanted of them."""

    where: Where
    effort: Effort


def read_wish(
    device: str | None,
    target_ms: dict[str, float] | None,
    *,
    rounds: int | None,
    points: int | None,
    fresh: bool,
    store: str | None,
    protocol: str,
    multiple: int | None,
    max_drop: float | None,
    images: int,
) -> Wish:
    """Return what a command line without passes asks for.

    Args:
        device: its name.
        target_ms: the latency, as `Latency` reads it; None for as fast as can be.
        rounds: of pruning, at most.
        points: widths of each group of channels that are measured.
        fresh: measure anew what was measured.
        store: where measurements are kept.
        protocol: `thorough` or `quick`.
        multiple: of channels; None for what the device likes.
        max_drop: points that may be lost.
        images: samples that calibrate, at most.

    Raises:
        ConfigError: there is no device, or it cannot measure networks; or what is said of pruning
            goes without a target.
    """
    if device is None:
        raise ConfigError(
            "no pass is named; name some, as in `edgewright compress MODEL prune:ratio=0.25 "
            "quantize:static8`, or give --device D, on which chains of passes are then tried"
        )
    how = {"rounds": rounds, "points": points}
    given = {name: value for name, value in how.items() if value is not None}
    if given and target_ms is None:
        raise ConfigError(f"--{next(iter(given))} goes with --target-ms T; give that, or none")
    from pipeline.compress.passes.prune import PruneOptions
    from pipeline.compress.to_latency import Target
    from pipeline.compress.trials import Effort
    from profiles.registry import load_device

    wanted: dict[str, Any] = {**(target_ms or {}), **given}
    target = None if target_ms is None else Target(**wanted)
    profile = load_device(device)
    require_format(profile, "compress", runtime=profile.runtime)
    pruning = PruneOptions(multiple=multiple or profile.channel_multiple)
    where = Where(profile, protocol, store, fresh)
    return Wish(where, Effort(target, max_drop, pruning, images))


def compress_chosen(asked: Asked, wish: Wish) -> None:
    """Read a model, try chains of passes on it, say what each came to, and write the best.

    Raises:
        TargetError: no chain reaches what is wanted; what was tried is said before.
    """
    from pipeline.compress.remembered import Memory
    from pipeline.compress.trials import try_chains
    from pipeline.formats.generated_inputs import blame_generated
    from pipeline.formats.subjects import ModelSubject

    format_ = choose_format(asked.source, asked.format_name)
    if asked.max_drop is not None and asked.data is None:
        raise ConfigError(
            "--max-drop needs samples to judge on; give --data FOLDER of pictures, or an .npz with "
            "an array for each input"
        )
    target = place(asked.source, asked.out, f"{stem_of(asked.source)}-compressed{format_.suffix}")
    with (
        show_steps(f"choosing for {asked.source}") as tell,
        blame_generated(generated=asked.data is None),
    ):
        tell("reading it")
        model, subject = read_graph(asked.source, asked.options, else_what="no pass can change it")
        count = 0 if asked.data is None else asked.count
        learning = bool(count) and wish.effort.target is not None
        read = read_samples_for(asked, model, subject, count, learning=learning)
        judged = read.judged
        judge = make_judge(asked, subject, format_, read)
        needs = needs_of(read, model, subject, judge, tell)
        with open_files(wish.where, model, format_, tell) as measure:
            echo(_plan_words(model, wish, format_, calibrates=bool(count)), err=True)
            memory = Memory.of(measure.bench.memo, model, fresh=wish.where.fresh)
            found = try_chains(model, needs, judge, measure, wish.effort, memory=memory, tell=tell)
        taken = found.taken
        if taken is not None and (made := taken.changed) is not None:
            tell(f"checking {target.name}")
            refuse_unmeasured(format_, made.model, made.sha256)
            real = ModelSubject(f"{asked.source} after its passes", made.real)
            write_compressed(format_, made.model, target, real, (subject, judged))
    told = Told(
        source=asked.source,
        found=found,
        device=wish.where.profile.name,
        task=None if judge.labels is None else judge.task,
        samples=len(next(iter(judged.values()), ())),
        generated=asked.data is None,
        file=None if taken is None else target,
    )
    say(told, as_json=asked.as_json)
    if taken is None:
        raise TargetError(told.unmet)
    say_whose_weights(asked.source, asked.options)


def _plan_words(model: Model, wish: Wish, format_: Format, *, calibrates: bool) -> str:
    """Say how much will be tried at most."""
    from pipeline.compress.choosing import PRUNING_CHAINS, propose_formats
    from pipeline.compress.passes.prune import rank
    from pipeline.compress.to_latency import plan_measurements

    effort, device = wish.effort, wish.where.profile.name
    plain, _ = propose_formats(format_.number_formats, calibrates=calibrates)
    chains = measurements = len(plain)
    if effort.target is not None:
        try:
            plan = plan_measurements(rank(model, effort.pruning), effort.pruning, effort.target)
        except ConfigError:
            plan = None  # the chain itself says why nothing can be cut
        chains += PRUNING_CHAINS
        # The table is measured once; the last of each chain is measured again if it is trained.
        rounds = PRUNING_CHAINS * (3 + effort.target.rounds)
        measurements += 0 if plan is None else sum(map(len, plan.anchors)) + rounds
    return (
        f"at most {number_of(chains, 'chain')} with {number_of(measurements, 'measurement')} on "
        f"{device}, of {format_.name} files; what this run has measured already is not measured "
        "again"
    )
