"""What the winner is held against: a published net, at the width that matches it in accuracy.

Before the search the narrowest width is the reference model: every candidate is timed interleaved
with it, and the target latency is the recipe's ratio times *its* latency, so that a candidate on
target is on target whichever width turns out to match. After the search the widths are trained,
narrowest first, until one is as accurate as the winner within the recipe's tolerance.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from device_agents.api import BenchProtocol, Failure, Measurement
from device_agents.errors import DeviceError, VerificationError
from models import zoo
from models.fold import random_weights
from models.graph import Graph, lower
from pipeline.compress.quantization import QuantizationError, random_quantization
from pipeline.export import create
from pipeline.files import write_whole
from pipeline.kernels import exporter_for
from pipeline.measure import measure, shown_protocol
from pipeline.outputs import ModelFile, export, folder
from pipeline.train.parallel import train_all

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from models.network import Network
    from models.spec import ArchSpec
    from pipeline.context import Context
    from pipeline.train.loop import Trained


@dataclass(frozen=True, slots=True)
class Reference:
    """The model that every candidate is timed beside: file, hash and its own latency."""

    name: str
    path: Path
    sha256: str
    measurement: Measurement


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


def baseline_spec(ctx: Context, width: float) -> ArchSpec:
    """Return the recipe's baseline at a width, for the recipe's data."""
    spec = zoo.get(ctx.recipe.target.baseline, width=width)
    return spec.with_input(*ctx.dataset.input).with_classes(ctx.dataset.classes)


def encode_untrained(ctx: Context, graph: Graph, rng: np.random.Generator) -> bytes:
    """Return a graph in the deployed format with random weights: enough to be timed."""
    scheme = ctx.recipe.quantize.scheme
    quantization = random_quantization(graph) if scheme == "static8" else None
    exporter = exporter_for(ctx, ctx.profile.runtime, scheme)
    return exporter.encode(graph, random_weights(graph, rng), quantization)


def reference(ctx: Context) -> Reference:
    """Write the narrowest baseline and measure it thoroughly.

    Raises:
        DeviceError: the device cannot measure it.
    """
    width = min(ctx.recipe.target.widths)
    graph = lower(baseline_spec(ctx, width))
    data = encode_untrained(ctx, graph, np.random.default_rng(0))
    path = folder(ctx) / f"reference{create(ctx.profile.runtime).suffix}"
    if not path.is_file() or path.read_bytes() != data:
        write_whole(path, data)
    sha256 = ctx.store.put_bytes(data)
    name = f"{ctx.recipe.target.baseline} x{width:g}"
    outcome = measure(ctx, {"reference_graph": graph.digest()}, lambda: path, shown_protocol(ctx))
    if isinstance(outcome, Failure):
        raise DeviceError(f"the reference model {name} cannot be measured: {outcome.reason}")
    return Reference(name, path, sha256, outcome)


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
