"""The whole pipeline, top to bottom: recipe in, report out.

Every stage asks the store before it works, so the same call after a crash, a kill or a Ctrl-C goes
on where it was: at most the one step in flight is done again.
"""

from __future__ import annotations

import fcntl
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from device_agents.errors import ConfigError, TargetError, VerificationError
from device_agents.runner import Device
from pipeline.baseline import Baseline, matched, reference
from pipeline.context import Context
from pipeline.data import load_dataset
from pipeline.deploy.on_device import deploy
from pipeline.final import final
from pipeline.finalists import train_finalists
from pipeline.measure import shown_protocol
from pipeline.outputs import folder
from pipeline.per_op import per_op
from pipeline.report import write_report
from pipeline.result import RunResult, what_failed
from pipeline.search.rows import interval
from pipeline.search.stage import SearchOutcome, run_search
from pipeline.store import StoreError
from pipeline.store.errors import file_sentence
from pipeline.train.loop import use_threads
from profiles.registry import load_device

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from device_agents.api import Leases
    from pipeline.data.api import Dataset
    from pipeline.final import Final
    from pipeline.finalists import Finalist
    from pipeline.outputs import ModelFile
    from pipeline.progress import Display
    from pipeline.recipe import Recipe
    from pipeline.store import Run, Store
    from profiles.schema import DeviceProfile

STAGES = ("search", "train", "deploy", "report")
_SHOWN_PACKAGES = ("edgewright", "torch", "numpy", "ai-edge-litert", "onnx", "onnxruntime")


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
    store: Store,
    leases: Leases,
    display: Display,
    *,
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
        display: where progress is shown.
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
    with at_work(recipe, profile, store, leases, display, fresh=fresh) as ctx:
        return _stages(ctx, until, report)


@contextmanager
def at_work(
    recipe: Recipe,
    profile: DeviceProfile,
    store: Store,
    leases: Leases,
    display: Display,
    *,
    fresh: bool = False,
    supernet: Path | None = None,
    dataset: Dataset | None = None,
) -> Iterator[Context]:
    """Open the devices and take up the recipe's run, alone; arguments as of `run` and `Context`.

    Raises:
        EdgewrightError: no such data, a device that cannot be opened, a run that is being worked
            on.
    """
    use_threads(1)  # the other cores are for a device on this host and for training processes
    dataset = load(recipe) if dataset is None else dataset
    profile = replace(
        profile,
        runtime=recipe.device.runtime or profile.runtime,
        threads=recipe.device.threads or profile.threads,
    )
    others = [load_device(section.device) for section in recipe.search.also]
    check_different([profile, *others])
    with ExitStack() as stack:
        device, *more = [
            stack.enter_context(Device.open(p, leases=leases)) for p in (profile, *others)
        ]
        chosen = chosen_run(recipe, profile, store, fresh=fresh)
        ctx = Context(
            recipe=recipe,
            dataset=dataset,
            dataset_digest=dataset.digest(),
            store=store,
            run=chosen,
            device=device,
            device_digest=device.digest,
            profile=profile,
            progress=display,
            supernet=supernet,
        )
        pairs = zip(others, more, strict=True)
        elsewhere = tuple(
            replace(ctx, device=opened, device_digest=opened.digest, profile=other)
            for other, opened in pairs
        )
        stack.enter_context(alone(folder(ctx)))
        names = " and ".join(opened.name for opened in (device, *more))
        display.say(f"run {chosen.id} on {names}, stored in {store.place}")
        yield replace(ctx, others=elsewhere)


def check_different(profiles: Sequence[DeviceProfile]) -> None:
    """Refuse a device that a recipe names twice. Raises ConfigError."""
    names = [profile.name for profile in profiles]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ConfigError(
            f"device {twice[0]!r} is named twice, by device.name and search.also; give each once"
        )


def load(recipe: Recipe) -> Dataset:
    """Load the recipe's data. Raises ConfigError."""
    return load_dataset(
        recipe.data.name,
        recipe.data.options,
        resolution=recipe.data.resolution,
        fractions=recipe.data.split.fractions,
        seed=recipe.seed,
    )


def chosen_run(recipe: Recipe, profile: DeviceProfile, store: Store, *, fresh: bool) -> Run:
    """Return the last run of this recipe on this device, or a new one."""
    digest = recipe.digest()
    earlier = [
        run
        for run in store.runs()
        if (run.recipe_digest, run.device, run.version)
        == (digest, profile.name, version("edgewright"))
    ]
    if earlier and not fresh:
        return earlier[-1]
    return store.new_run(
        recipe.name,
        recipe=recipe.to_json(),
        digest=digest,
        device=profile.name,
        version=version("edgewright"),
    )


@contextmanager
def alone(run_folder: Path) -> Iterator[None]:
    """Hold a run for this process; a process that is killed lets go of it.

    Raises:
        StoreError: another process is at work on the run, or the store cannot be written.
    """
    path = run_folder / ".lock"
    try:
        opened = path.open("w")
    except OSError as error:
        raise StoreError(file_sentence(str(path), error)) from error
    with opened as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StoreError(
                f"run {run_folder.name} is being worked on by another process; wait for it, or "
                "start another run with --fresh"
            ) from error
        yield


def _stages(ctx: Context, until: str, report: Path | None) -> Outcome:
    last = STAGES.index(until)
    with ctx.progress.task("measure the reference model", 1) as task:
        beside = reference(ctx)
        task.advance(f"{beside.name}: {beside.measurement.median_ms:.4f} ms")
    found = run_search(ctx, beside)
    if last < STAGES.index("train"):
        return Outcome(ctx.run.id, found)
    finalists = train_finalists(ctx, found)
    baseline = matched(ctx, finalists[0].accuracy, beside)
    if last < STAGES.index("deploy"):
        return Outcome(ctx.run.id, found)
    end = final(ctx, finalists[0], baseline)
    ops = per_op(ctx, finalists[0].network.spec)
    learnt = end.comparison.outcome != "learnt nothing"
    deployed = _deploy(ctx, end.deployed) if learnt else {}
    if last < STAGES.index("report"):
        if not learnt:
            raise TargetError(end.comparison.sentence)
        if end.failed:
            raise VerificationError(what_failed(ctx.run.id, end.failed))
        return Outcome(ctx.run.id, found)
    result = RunResult(
        run_id=ctx.run.id,
        recipe=ctx.recipe.to_json(),
        device=_device_facts(ctx, end),
        started_at=ctx.run.started_at,
        duration_s=ctx.worked_s(),
        candidates=found.rows,
        front=found.front,
        chosen=finalists[0].index,
        winner_spec=str(finalists[0].network.spec),
        baseline_name=baseline.name,
        baseline_spec=str(baseline.spec) if isinstance(baseline, Baseline) else "",
        baseline_candidates=baseline.tried,
        finalists=tuple(map(_finalist, finalists)),
        artifacts=end.artifacts,
        ops=ops,
        comparison=end.comparison,
        deployed=deployed,
        device_busy_s=found.busy_s,
        device_timed_s=found.timed_s,
        versions=_versions(),
        failed_files=end.failed,
    )
    ctx.store.add_result(result)
    page = write_report(result, report or folder(ctx) / "report.html")
    return Outcome(ctx.run.id, found, result, page)


def _deploy(ctx: Context, file: ModelFile) -> dict[str, Any]:
    """Put the winner in use and say so; return what was put where."""
    # Another store may have a run of the same name: the model's hash tells releases apart.
    release = f"{ctx.run.id}-{file.sha256[:8]}"
    path = deploy(ctx, file, ctx.recipe.name, release)
    ctx.progress.say(f"deployed and run from there: {ctx.device.name}:{path}")
    return {"name": ctx.recipe.name, "version": release, "path": path, "sha256": file.sha256}


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


def _device_facts(ctx: Context, end: Final) -> dict[str, Any]:
    hello = ctx.device.hello
    shown = ("model", "machine", "os", "kernel", "bits", "cpu_count", "python", "agent_sha256")
    facts = {name: hello[name] for name in shown if hello.get(name) is not None}
    return {
        "name": ctx.device.name,
        **facts,
        "runtime": ctx.profile.runtime,
        "runtime_version": end.runtime_version,
        "threads": ctx.profile.threads,
        "protocol": asdict(shown_protocol(ctx)),
    }


def _versions() -> dict[str, str]:
    found = {}
    for package in _SHOWN_PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found
