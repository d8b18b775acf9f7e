"""The whole pipeline, top to bottom: recipe in, report out.

Every stage asks the store before it works, so the same call after a crash, a kill or a Ctrl-C goes
on where it was: at most the one step in flight is done again.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from device_agents.errors import TargetError, VerificationError
from pipeline.deploy.release import deploy
from pipeline.evaluate.baseline import Baseline, matched
from pipeline.evaluate.final import final
from pipeline.evaluate.finalists import train_finalists
from pipeline.measure.latency import shown_protocol
from pipeline.measure.per_op import per_op
from pipeline.measure.reference import reference
from pipeline.report import write_report
from pipeline.run.opening import at_work
from pipeline.search.rows import interval
from pipeline.search.stage import SearchOutcome, run_search
from pipeline.store.result import RunResult, what_failed
from pipeline.store.run_folder import run_folder

if TYPE_CHECKING:
    from pathlib import Path

    from device_agents.api import Leases
    from pipeline.evaluate.final import Final
    from pipeline.evaluate.finalists import Finalist
    from pipeline.formats.model_file import ModelFile
    from pipeline.measure.context import Context
    from pipeline.recipe.recipe import Recipe
    from pipeline.store import Store
    from pipeline.store.events import Events
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
    events: Events,
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
    with at_work(recipe, profile, store, leases, events, fresh=fresh) as ctx:
        return _stages(ctx, until, report)


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
    page = write_report(result, report or run_folder(ctx.store, ctx.run) / "report.html")
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
