"""Which estimators a recipe's search goes by: `search.accuracy` and `search.latency`.

Whatever latency a search goes by, its finalists are measured on the device in the end
(`pipeline.search.confirm`).
"""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from device_agents.api import Failure
from device_agents.errors import ConfigError, TargetError
from pipeline.measure.reference import baseline_spec
from pipeline.search import few_shot_fit
from pipeline.search.api import Estimate
from pipeline.search.estimate.counted import CountedLatency
from pipeline.search.estimate.supernet import SupernetAccuracy
from pipeline.search.estimate.table import TableLatency
from pipeline.search.estimate.trained import TrainedAccuracy
from pipeline.search.lut.table import table_for
from pipeline.search.serving import measuring
from pipeline.train.recorded import proxy_accuracy
from pipeline.train.trained_supernet import Supernet, supernet_epochs, trained_supernet
from profiles.table import LatencyTable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from models.spec import ArchSpec
    from pipeline.measure.context import Context
    from pipeline.search.api import Estimator, SearchSpace
    from pipeline.search.estimate.predicted import PredictedAccuracy
    from pipeline.search.serving import Served
    from pipeline.train.shrinking import ElasticSpace

_PREDICTOR_STREAM = 5


def accuracy_estimator(ctx: Context, space: SearchSpace[ArchSpec]) -> Estimator[ArchSpec]:
    """Return the recipe's accuracy estimator; trains the supernet if there is to be one.

    Raises:
        ConfigError: a supernet of a space that has none.
        TargetError: its training diverged.
    """
    images = len(ctx.dataset.validation)
    if ctx.recipe.search.accuracy == "proxy":
        return TrainedAccuracy(lambda spec: proxy_accuracy(ctx, spec), images)
    sampled = SupernetAccuracy(supernet_for(ctx, space).accuracy, images)
    if ctx.recipe.search.accuracy == "supernet":
        return sampled
    return _predictor(ctx, space, sampled)


def _predictor(
    ctx: Context, space: SearchSpace[ArchSpec], sampled: SupernetAccuracy
) -> PredictedAccuracy:
    """Try random sub-networks on the validation images and fit a predictor to them."""
    count = ctx.recipe.search.supernet.predictor_samples
    rng = np.random.default_rng([ctx.recipe.seed, _PREDICTOR_STREAM])
    found: list[tuple[ArchSpec, float]] = []
    with ctx.progress.task("try sub-networks for the accuracy predictor", count) as task:
        for spec in dict.fromkeys(space.sample(rng) for _ in range(count)):
            outcome = sampled.estimate([spec])[0]
            if isinstance(outcome, Estimate):
                found.append((spec, outcome.value))
            task.advance()
    specs, accuracies = [spec for spec, _ in found], [accuracy for _, accuracy in found]
    # Imports scikit-learn, which takes seconds and which few runs need.
    from pipeline.search.estimate.predicted import PredictedAccuracy

    predictor = PredictedAccuracy.fit(space.features, specs, accuracies, rng=rng)
    ctx.progress.say(
        f"the accuracy predictor, cross-validated on {predictor.samples} sub-networks: root mean "
        f"square error {100 * predictor.holdout_rmse:.2f} points, rank correlation "
        f"{predictor.holdout_spearman:.3f}"
    )
    return predictor


def supernet_for(ctx: Context, space: SearchSpace[ArchSpec]) -> Supernet:
    """Return the trained supernet of a Once-for-all space, from memory if it was trained before.

    Raises:
        ConfigError: the space has no full network that holds all others.
        TargetError: its training diverged.
    """
    elastic = as_elastic(space)
    if ctx.supernet is not None:
        return Supernet.load(ctx.supernet, ctx)
    with ctx.progress.task("train the supernet", supernet_epochs(ctx, elastic)) as task:
        supernet = trained_supernet(ctx, elastic, on_epoch=task.update)
    if isinstance(supernet, Failure):
        raise TargetError(f"the supernet could not be trained: {supernet.reason}")
    return supernet


def as_elastic(space: SearchSpace[ArchSpec]) -> ElasticSpace:
    """Return the space as one with a supernet. Raises ConfigError: it has none."""
    if not hasattr(space, "full"):
        raise ConfigError(
            f"space {space.name!r} has no supernet: its networks do not share weights; choose "
            'ofa_mobilenet_v3 or ofa_proxyless, or search.accuracy = "proxy"'
        )
    return cast("ElasticSpace", space)


@contextmanager
def latency_estimator(
    device: Served, space: SearchSpace[ArchSpec]
) -> Iterator[Estimator[ArchSpec]]:
    """Give the recipe's latency estimator for one device; measures what it is made of.

    Raises:
        ConfigError: a table for another device, runtime or number format.
        DeviceError: the device went away; the same command goes on where it was.
    """
    ctx, beside = device.ctx, device.reference
    kind = ctx.recipe.search.latency
    if kind == "counted":
        spec = baseline_spec(ctx, min(ctx.recipe.target.widths))
        yield CountedLatency.scaled_on(spec, beside.measurement.median_ms)
    elif kind == "table":
        yield TableLatency(latency_table(device, space))
    elif kind == "few-shot":
        with measuring(ctx, beside) as measured:
            yield few_shot_fit.fitted(ctx, space, measured)
    else:
        with measuring(ctx, beside) as measured:
            yield measured


def latency_table(device: Served, space: SearchSpace[ArchSpec]) -> LatencyTable:
    """Return the recipe's table after a check that it is this device's, or measure one."""
    ctx = device.ctx
    if ctx.recipe.search.table is None:
        return table_for(ctx, device.reference, space)
    table = LatencyTable.load(Path(ctx.recipe.search.table))
    beside = device.reference
    table.check(beside.measurement, ctx.recipe.quantize.scheme)
    return table.beside(beside.sha256, beside.measurement.median_ms)
