"""What the winner is held against: a published net, at the width that matches it in accuracy.

Before the search the narrowest width is the reference model: every candidate is timed interleaved
with it, and the target latency is the recipe's ratio times *its* latency, so that a candidate on
target is on target whichever width turns out to match. After the search the widths are trained,
narrowest first, until one is as accurate as the winner within the recipe's tolerance.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from device_agents.api import BenchProtocol, Failure
from device_agents.errors import VerificationError
from models.quantization import QuantizationError
from pipeline.evaluate.files import export
from pipeline.measure.latency import measure
from pipeline.measure.reference import Reference, baseline_spec
from pipeline.train.parallel import train_all

if TYPE_CHECKING:
    from collections.abc import Sequence

    from models.network import Network
    from models.spec import ArchSpec
    from pipeline.formats.model_file import ModelFile
    from pipeline.measure.context import Context
    from pipeline.train.loop import Trained


@dataclass(frozen=True, slots=True)
class Baseline:
    """The matched baseline: trained, quantised, with its validation accuracy (0..1)."""

    name: str
    spec: ArchSpec
    network: Network
    file: ModelFile
    accuracy: float
    tried: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class NoBaseline:
    """No width of the baseline could be trained and quantised; `reason` is the first one's."""

    name: str
    reason: str
    tried: tuple[dict[str, Any], ...]


def matched(ctx: Context, accuracy: float, beside: Reference) -> Baseline | NoBaseline:
    """Train the baseline's widths, narrowest first, until one matches `accuracy` (0..1).

    Accuracies are those of the quantised files on the validation split; latencies are measured
    beside the reference, as in the search. Where no width comes
    within the recipe's tolerance, the most accurate one is the best match there is.
    """
    target = ctx.recipe.target
    found: list[Baseline] = []
    tried: list[dict[str, Any]] = []
    for widths in _pairs(sorted(target.widths)):
        for width, trained in zip(widths, _train(ctx, widths), strict=True):
            name = f"{target.baseline} x{width:g}"
            baseline = trained if isinstance(trained, Failure) else _quantised(ctx, width, trained)
            if isinstance(baseline, Failure):
                tried.append({"name": name, "failure": baseline.reason})
                ctx.progress.say(f"{name} is left out: {baseline.reason}")
                continue
            found.append(baseline)
            latency_ms = _latency_ms(ctx, baseline.file, beside)
            tried.append(
                {"name": name, "accuracy_validation": baseline.accuracy, "latency_ms": latency_ms}
            )
        near = [b for b in found if b.accuracy >= accuracy - target.accuracy_tolerance]
        if near:
            return replace(near[0], tried=tuple(tried))
    if not found:
        return NoBaseline(target.baseline, tried[0]["failure"], tuple(tried))
    return replace(max(found, key=lambda b: b.accuracy), tried=tuple(tried))


def _pairs(widths: Sequence[float]) -> list[Sequence[float]]:
    """Return the widths two by two: two are trained at once, and few are trained for nothing."""
    return [widths[i : i + 2] for i in range(0, len(widths), 2)]


def _train(ctx: Context, widths: Sequence[float]) -> list[Trained | Failure]:
    names = " and ".join(f"x{width:g}" for width in widths)
    title = f"train {ctx.recipe.target.baseline} {names}"
    with ctx.progress.task(title, len(widths) * ctx.recipe.train.epochs) as task:
        return train_all(ctx, [baseline_spec(ctx, w) for w in widths], on_epoch=task.part)


def _quantised(ctx: Context, width: float, trained: Trained) -> Baseline | Failure:
    name = f"baseline-x{width:g}"
    try:
        file = export(ctx, trained.network, name, ctx.profile.runtime, ctx.recipe.quantize.scheme)
    except (VerificationError, QuantizationError) as error:
        return Failure(str(error))
    network = trained.network
    title = f"{ctx.recipe.target.baseline} x{width:g}"
    return Baseline(title, network.spec, network, file, file.accuracy)


def _latency_ms(ctx: Context, file: ModelFile, beside: Reference) -> float | None:
    outcome = measure(
        ctx,
        {"model": file.sha256},
        lambda: file.path,
        BenchProtocol.quick(),
        reference=beside.path,
        reference_sha256=beside.sha256,
    )
    if isinstance(outcome, Failure) or outcome.ratio is None:
        return None
    return outcome.ratio * beside.measurement.median_ms
