"""The whole pipeline, top to bottom: recipe in, report out.

Every stage asks the store before it works, so the same call after a crash, a kill or a Ctrl-C goes
on where it was: at most the one step in flight is done again.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from device_agents.errors import ConfigError, TargetError, VerificationError
from pipeline.data import load_data
from pipeline.deploy.release import deploy
from pipeline.evaluate.baseline import Baseline, match_baseline
from pipeline.evaluate.comparison import Headline
from pipeline.evaluate.files import Exports
from pipeline.evaluate.final import measure_final
from pipeline.evaluate.finalists import train_finalists
from pipeline.evaluate.winner_compression import compress_winner
from pipeline.measure.bench import choose_protocol
from pipeline.measure.fastest import choose_number_format
from pipeline.measure.form import Form
from pipeline.measure.per_op import measure_ops
from pipeline.measure.reference import ZooNet, measure_reference
from pipeline.measure.timer import Timer
from pipeline.report import write_report
from pipeline.run.opening import check_different, open_run, set_up
from pipeline.search.estimators import AccuracySource
from pipeline.search.rows import interval
from pipeline.search.serving import ServedDevice
from pipeline.search.stage import SearchOutcome, prepare_space, run_search
from pipeline.store.result import RunResult, what_failed
from pipeline.train.devices import choose_device
from pipeline.train.remembered import Training
from pipeline.train.trained_supernet import SupernetTraining
from profiles.registry import load_device

if TYPE_CHECKING:
    from pathlib import Path

    from device_agents.api import BenchProtocol, Leases
    from models.number_format import NumberFormat
    from pipeline.data.api import Data
    from pipeline.evaluate.finalists import Finalist
    from pipeline.formats.written_file import WrittenFile
    from pipeline.measure.bench import DeviceBench
    from pipeline.recipe.recipe import Recipe
    from pipeline.run.opening import OpenRun
    from pipeline.store import Store
    from pipeline.store.events import Events
    from profiles.schema import DeviceProfile

STAGES = ("search", "train", "deploy", "report")
_SHOWN_PACKAGES = ("edgewright", "torch", "numpy", "ai-edge-litert", "onnx", "onnxruntime")


@dataclass(frozen=True, slots=True)
class Searched:
    """What a search found, with what it measured by and what told it accuracies.

    Where the device said the number format, `format_words` is the sentence on it.
    """

    outcome: SearchOutcome
    timer: Timer
    accuracy: AccuracySource
    format_words: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run came to: `result` and `report` are None when it was asked to stop earlier."""

    run_id: str
    search: SearchOutcome
    result: RunResult | None = None
    report: Path | None = None


def run(
    recipe: Recipe,
    profile: DeviceProfile,
    *,
    store: Store,
    leases: Leases,
    events: Events,
    until: str = "report",
    fresh: bool = False,
    report: Path | None = None,
) -> Outcome:
    """Run a recipe on a device.

    Args:
        recipe: what to do.
        profile: the device.
        store: where everything is remembered.
        leases: each measurement holds the device alone; others measure in between.
        events: is told how far it is.
        until: the last stage to do, one of `STAGES`.
        fresh: measure everything anew instead of going on with the last run of this recipe.
        report: where the report goes; the run's folder by default.

    Raises:
        VerificationError: without a report that would say so, files beside the deployed one
            failed.
        TargetError: no candidate is on target; or the winner learnt nothing, and no report that
            would say so was asked for.
        EdgewrightError: every expected failure, with the command's exit code.
    """
    choose_device(recipe.train.device)  # one that is not there is refused before anything is done
    data = load_data(recipe.need_data("run"), seed=recipe.seed)
    profiles = name_profiles(recipe, profile)
    with open_run(recipe, profiles, store=store, leases=leases, events=events, fresh=fresh) as held:
        return _do_stages(recipe, held, data, until=until, report=report)


def name_profiles(recipe: Recipe, profile: DeviceProfile) -> list[DeviceProfile]:
    """Return the run's device as the recipe sets it, and the others that its search serves.

    Raises:
        ConfigError: no such device, or one is named twice.
    """
    others = [load_device(section.device) for section in recipe.need_search("search").also]
    profiles = [set_up(profile, recipe.device), *others]
    check_different(profiles)
    return profiles


def search_recipe(
    recipe: Recipe, held: OpenRun, data: Data, *, supernet: Path | None = None
) -> Searched:
    """Measure the reference, then search as the recipe says.

    Args:
        recipe: with [search] and [target].
        held: its run.
        data: its data.
        supernet: a trained supernet's file, to use instead of the one that the recipe trains.

    Raises:
        ConfigError: the recipe's space or strategy options cannot be.
        TargetError: no candidate meets the target on the device.
        DeviceError: a device went away; the same command goes on where it was.
    """
    section, target = recipe.need_search("search"), recipe.need_target("search")
    if data.task.truths != "classes":
        raise ConfigError(
            f"a search is by accuracy, and {type(data.task).__name__.lower()} is judged by "
            f'{data.task.metric}; say data.task = "classification", or give a [model] in place of '
            "[search]"
        )
    accuracy = AccuracySource(
        kind=section.accuracy,
        proxy=Training(section.proxy.instead_of(recipe.train), recipe.seed),
        supernet=SupernetTraining(section.supernet, recipe.train, recipe.seed),
        file=supernet,
    )
    size, classes = data.dataset.input, data.dataset.classes
    net = ZooNet(target.baseline, min(target.widths), size, classes)
    protocol = choose_protocol(recipe.device.protocol)

    number_format, words = find_number_format(recipe, held.bench, net)

    def open_timer(bench: DeviceBench) -> Timer:
        form = Form(bench.profile.runtime, number_format)
        beside = measure_reference(bench, net, form=form, protocol=protocol, folder=held.folder)
        return Timer(bench, form, beside)

    with held.bench.events.task("measure the reference model", 1) as task:
        timer = open_timer(held.bench)
        task.advance(f"{timer.reference.name}: {timer.reference.latency_ms:.4f} ms")
    # What cannot be is told before anything else is measured or trained for it.
    space = prepare_space(section, data, held.bench.profile.channel_multiple)
    others = zip(section.also, held.others, strict=True)
    devices = [
        ServedDevice.own(timer, target),
        *(ServedDevice.other(open_timer(bench), also) for also, bench in others),
    ]
    outcome = run_search(
        section, devices, space=space, data=data, accuracy=accuracy, seed=recipe.seed
    )
    return Searched(outcome, timer, accuracy, words)


def find_number_format(recipe: Recipe, bench: DeviceBench, net: ZooNet) -> tuple[NumberFormat, str]:
    """Return the number format of a search; where the device says it, with a sentence on why.

    Raises:
        DeviceError: the device stopped answering.
    """
    if not recipe.quantize.is_measured:
        return recipe.quantize.number_format, ""
    protocol = choose_protocol(recipe.device.protocol)
    with bench.events.task("measure the number formats", 1) as task:
        found = choose_number_format(bench, net, protocol)
        task.advance(str(found.number_format))
    bench.events.say(found.words)
    return found.number_format, found.words


def _do_stages(
    recipe: Recipe, held: OpenRun, data: Data, *, until: str, report: Path | None
) -> Outcome:
    last = STAGES.index(until)
    searched = search_recipe(recipe, held, data)
    found, timer, bench, run_id = searched.outcome, searched.timer, held.bench, held.run.id
    if last < STAGES.index("train"):
        return Outcome(run_id, found)
    target, training = recipe.need_target("run"), Training(recipe.train, recipe.seed)
    to = Exports(held.folder, bench, data, recipe.quantize.calibration_images)
    finalists = train_finalists(found, training, accuracy=searched.accuracy, form=timer.form, to=to)
    baseline = match_baseline(finalists[0].accuracy, target, training=training, timer=timer, to=to)
    made = None
    if recipe.compress:
        made = compress_winner(finalists[0].network, recipe, timer.form.number_format, to)
    if last < STAGES.index("deploy"):
        return Outcome(run_id, found)
    protocol = choose_protocol(recipe.device.protocol)
    headline = Headline(
        timer.form,
        protocol,
        target,
        recipe.name,
        searched.format_words,
        compressed=made is not None,
    )
    end = measure_final(
        finalists[0], baseline, headline=headline, formats=recipe.export.formats, to=to
    )
    ops = measure_ops(timer, finalists[0].network.spec)
    learnt = end.comparison.outcome != "learnt nothing"
    told, row = (None, None) if made is None else made.tell(to, protocol)
    in_use = end.deployed if made is None else made.file
    deployed = _deploy(bench, in_use, data, recipe.name) if learnt else {}
    if last < STAGES.index("report"):
        if not learnt:
            raise TargetError(end.comparison.sentence)
        if end.failed:
            raise VerificationError(what_failed(run_id, end.failed))
        return Outcome(run_id, found)
    result = RunResult(
        run_id=run_id,
        recipe=recipe.to_json(),
        device=device_facts(bench, end.runtime_version, protocol),
        started_at=held.run.started_at,
        duration_s=bench.memo.worked_s(held.run.started_at),
        candidates=found.rows,
        front=found.front,
        chosen=finalists[0].index,
        winner_spec=str(finalists[0].network.spec),
        baseline_name=baseline.name,
        baseline_spec=str(baseline.spec) if isinstance(baseline, Baseline) else "",
        baseline_candidates=baseline.tried,
        finalists=tuple(map(_finalist, finalists)),
        artifacts=end.artifacts if row is None else (*end.artifacts, row),
        ops=ops,
        comparison=end.comparison,
        deployed=deployed,
        device_busy_s=found.busy_s,
        device_timed_s=found.timed_s,
        versions=versions(),
        failed_files=end.failed,
        compression=told,
    )
    bench.memo.store.add_result(result)
    page = write_report(result, report or held.folder / "report.html")
    return Outcome(run_id, found, result, page)


def _deploy(bench: DeviceBench, file: WrittenFile, data: Data, name: str) -> dict[str, Any]:
    """Put the winner in use and say so; return what was put where."""
    # Another store may have a run of the same name: the model's hash tells releases apart.
    release = f"{bench.run_id}-{file.sha256[:8]}"
    path = deploy(bench, file, data=data, name=name, version=release)
    bench.events.say(f"deployed and run from there: {bench.name}:{path}")
    return {"name": name, "version": release, "path": path, "sha256": file.sha256}


def _finalist(finalist: Finalist) -> dict[str, Any]:
    found = finalist.found
    return {
        "index": found.index,
        "accuracy_validation": finalist.accuracy,
        "latency_ms": found.measured.value,
        "latency_ci95_ms": interval(found.measured),
        "predicted_ms": found.predicted.value,
        "predicted_source": found.predicted.source,
        "by_device_ms": {name: estimate.value for name, estimate in found.by_device.items()},
    }


def device_facts(
    bench: DeviceBench, runtime_version: str, protocol: BenchProtocol
) -> dict[str, Any]:
    """Return what a report says of a run's device, as JSON values."""
    hello = bench.device.hello
    shown = ("model", "machine", "os", "kernel", "bits", "cpu_count", "python", "agent_sha256")
    facts = {name: hello[name] for name in shown if hello.get(name) is not None}
    return {
        "name": bench.name,
        **facts,
        "runtime": bench.profile.runtime,
        "runtime_version": runtime_version,
        "threads": bench.profile.threads,
        "protocol": asdict(protocol),
    }


def versions() -> dict[str, str]:
    """Return the versions of this program and of what it rests on, by package."""
    found = {}
    for package in _SHOWN_PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found
