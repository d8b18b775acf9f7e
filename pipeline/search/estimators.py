"""Which estimators a recipe's search goes by: `search.accuracy` and `search.latency`.

Whatever latency a search goes by, its finalists are measured on the device in the end
(`pipeline.search.confirm`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from device_agents.api import Failure
from device_agents.errors import ConfigError, TargetError
from pipeline.search import few_shot_fit
from pipeline.search.api import Estimate
from pipeline.search.estimate.counted import CountedLatency
from pipeline.search.estimate.measured import MeasuredLatency
from pipeline.search.estimate.supernet import SupernetAccuracy
from pipeline.search.estimate.table import TableLatency
from pipeline.search.estimate.trained import TrainedAccuracy
from pipeline.search.lut.table import build_table
from pipeline.train.remembered import score_briefly
from pipeline.train.trained_supernet import Supernet, train_supernet_once
from profiles.table import LatencyTable

if TYPE_CHECKING:
    from models.spec import ArchSpec
    from pipeline.data.api import Data
    from pipeline.recipe.sections import SearchSection
    from pipeline.search.api import Estimator, SearchSpace
    from pipeline.search.estimate.predicted import PredictedAccuracy
    from pipeline.search.serving import ServedDevice
    from pipeline.store.events import Events
    from pipeline.store.memo import Memo
    from pipeline.train.remembered import Training
    from pipeline.train.shrinking import ElasticSpace
    from pipeline.train.trained_supernet import SupernetTraining

_PREDICTOR_STREAM = 5


@dataclass(frozen=True, slots=True)
class AccuracySource:
    """What tells how accurate a candidate is, before it is trained in full.

    Attributes:
        kind: `search.accuracy`: proxy, supernet or predictor.
        proxy: how candidates are trained briefly.
        supernet: how a supernet is trained.
        file: a trained supernet to use instead, if there is one.
    """

    kind: str
    proxy: Training
    supernet: SupernetTraining
    file: Path | None = None

    def open(
        self, space: SearchSpace[ArchSpec], *, data: Data, memo: Memo, events: Events
    ) -> Estimator[ArchSpec]:
        """Return the accuracy estimator; trains the supernet if there is to be one.

        Raises:
            ConfigError: a supernet of a space that has none.
            TargetError: its training diverged.
        """
        images = len(data.dataset.validation)
        if self.kind == "proxy":
            return TrainedAccuracy(
                lambda spec: score_briefly(spec, self.proxy, data=data, memo=memo), images
            )
        supernet = self.open_supernet(space, data=data, memo=memo, events=events)
        sampled = SupernetAccuracy(supernet.accuracy, images)
        if self.kind == "supernet":
            return sampled
        return self._fit_predictor(space, sampled, events)

    def open_supernet(
        self, space: SearchSpace[ArchSpec], *, data: Data, memo: Memo, events: Events
    ) -> Supernet:
        """Return the trained supernet of a Once-for-all space, from memory if there is one.

        Raises:
            ConfigError: the space has no full network that holds all others.
            TargetError: its training diverged.
        """
        elastic = as_elastic(space)
        if self.file is not None:
            return Supernet.load(self.file, self.supernet, data=data, memo=memo)
        with events.task("train the supernet", self.supernet.epochs(elastic)) as task:
            supernet = train_supernet_once(
                elastic, self.supernet, data=data, memo=memo, on_epoch=task.update
            )
        if isinstance(supernet, Failure):
            raise TargetError(f"the supernet could not be trained: {supernet.reason}")
        return supernet

    def _fit_predictor(
        self, space: SearchSpace[ArchSpec], sampled: SupernetAccuracy, events: Events
    ) -> PredictedAccuracy:
        """Try random sub-networks on the validation images and fit a predictor to them."""
        count = self.supernet.config.predictor_samples
        rng = np.random.default_rng([self.supernet.seed, _PREDICTOR_STREAM])
        found: list[tuple[ArchSpec, float]] = []
        with events.task("try sub-networks for the accuracy predictor", count) as task:
            for spec in dict.fromkeys(space.sample(rng) for _ in range(count)):
                outcome = sampled.estimate([spec])[0]
                if isinstance(outcome, Estimate):
                    found.append((spec, outcome.value))
                task.advance()
        specs, accuracies = [spec for spec, _ in found], [accuracy for _, accuracy in found]
        # Imports scikit-learn, which takes seconds and which few runs need.
        from pipeline.search.estimate.predicted import PredictedAccuracy

        predictor = PredictedAccuracy.fit(space.features, specs, accuracies, rng=rng)
        events.say(
            f"the accuracy predictor, cross-validated on {predictor.samples} sub-networks: root "
            f"mean square error {100 * predictor.holdout_rmse:.2f} points, rank correlation "
            f"{predictor.holdout_spearman:.3f}"
        )
        return predictor


def as_elastic(space: SearchSpace[ArchSpec]) -> ElasticSpace:
    """Return the space as one with a supernet. Raises ConfigError: it has none."""
    if not hasattr(space, "full"):
        raise ConfigError(
            f"space {space.name!r} has no supernet: its networks do not share weights; choose "
            'ofa_mobilenet_v3 or ofa_proxyless, or search.accuracy = "proxy"'
        )
    return cast("ElasticSpace", space)


def open_latency(
    device: ServedDevice, space: SearchSpace[ArchSpec], *, section: SearchSection, seed: int
) -> Estimator[ArchSpec]:
    """Return the recipe's latency estimator for one device; measures what it is made of.

    Raises:
        ConfigError: a table for another device, runtime or number format.
        DeviceError: the device went away; the same command goes on where it was.
    """
    timer = device.timer
    if section.latency == "counted":
        return CountedLatency.scaled_on(timer.reference.spec, timer.reference.latency_ms)
    if section.latency == "table":
        return TableLatency(open_table(device, space, path=section.table, seed=seed))
    measured = MeasuredLatency(timer)
    if section.latency == "measured":
        return measured
    like = few_shot_fit.SearchedSpace(
        section.space,
        section.space_options,
        timer.reference.spec.input[0],
        str(timer.form.number_format),
    )
    return few_shot_fit.fit(
        device.bench, space, measured, like=like, count=section.measurements, seed=seed
    )


def open_table(
    device: ServedDevice, space: SearchSpace[ArchSpec], *, path: str | None, seed: int
) -> LatencyTable:
    """Return a table's file after a check that it is this device's, or without one measure it."""
    timer = device.timer
    if path is None:
        return build_table(timer, space, seed=seed)
    table = LatencyTable.load(Path(path))
    table.check(timer.reference.measurement, str(timer.form.number_format))
    return table.rescale(timer.reference.sha256, timer.reference.latency_ms)
