"""A Once-for-all network in a run: trained once and remembered, then asked for any sub-network.

A sub-network comes out as a plain `Network` whose batch normalisation is re-calibrated at its own
resolution: with the statistics of the full network its accuracy would be that of guessing. The same
networks give the accuracies that a search goes by, each of which the store remembers too.
"""

from __future__ import annotations

import math
import tempfile
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

import numpy as np

from device_agents.api import Failure
from models.supernet.elastic import ElasticNet
from pipeline.store.memo import StepKind
from pipeline.train.loop import evaluate
from pipeline.train.recalibration import recalibrate
from pipeline.train.remembered import StoredCheckpoints
from pipeline.train.shrinking import phases
from pipeline.train.supernet import train_supernet

if TYPE_CHECKING:
    from collections.abc import Callable

    from models.network import Network
    from models.spec import ArchSpec
    from pipeline.data.api import Data, Images
    from pipeline.recipe.sections import SupernetSection, TrainSection
    from pipeline.store.memo import Memo
    from pipeline.train.shrinking import ElasticSpace

SUPERNET_ACCURACY = StepKind("supernet-accuracy")
SUPERNET = StepKind("supernet")


CALIBRATION_BATCH = 256


@dataclass(frozen=True, slots=True)
class SupernetTraining:
    """How a supernet is trained, and its sub-networks re-calibrated.

    Attributes:
        config: [search.supernet].
        train: [train]: weight decay, label smoothing and augmentation.
        seed: of everything random.
    """

    config: SupernetSection
    train: TrainSection
    seed: int

    def epochs(self, space: ElasticSpace) -> int:
        """Return how many epochs the training over a space takes in all."""
        return sum(phase.epochs for phase in phases(space, self.config))

    def inputs(self, space: ElasticSpace, data: Data) -> dict[str, Any]:
        """Return all that it depends on; how its sub-networks are used is no part of it."""
        config = asdict(self.config)
        for use in ("calibration_images", "predictor_samples", "finetune_epochs"):
            del config[use]
        widest = [replace(cast("Any", space), expansions=(e,)).full for e in space.expansions]
        return {
            "full": [str(spec) for spec in widest],  # all middle widths, however rounded
            "inputs": space.inputs,
            "kernels": space.kernels,
            "expansions": space.expansions,
            "depths": space.depths,
            "stages": [list(stage.depths) for stage in space.stages],
            "config": config,
            "weight_decay": self.train.weight_decay,
            "label_smoothing": self.train.label_smoothing,
            "augment": self.train.augment,
            "data": data.digest,
            "seed": self.seed,
        }


@dataclass(frozen=True)
class Supernet:
    """A trained supernet, the data that re-calibrates its sub-networks, and what remembers.

    Attributes:
        net: the weights.
        training: calibration images and seed; how it was trained, unless it is from a file.
        wall_s: how long its training took; 0 for one that was read from a file.
    """

    net: ElasticNet
    training: SupernetTraining
    data: Data = field(repr=False)
    memo: Memo = field(repr=False)
    wall_s: float = 0.0

    @cached_property
    def digest(self) -> str:
        """A 16-digit hash of the weights."""
        return self.net.digest()

    def network(self, spec: ArchSpec) -> Network:
        """Return a sub-network, re-calibrated at its own resolution; trained no further.

        Raises:
            SpecError: `spec` does not fit inside the full network.
        """
        network = self.net.extract(spec)
        images = self._calibration_images(spec)
        recalibrate(network.module, images, batch_size=CALIBRATION_BATCH)
        return replace(network, history=(*network.history, f"recalibrate:{len(images)}"))

    def accuracy(self, spec: ArchSpec) -> float | Failure:
        """Return a sub-network's score (accuracy: 0..1) on the validation split at its size.

        Raises:
            SpecError: `spec` does not fit inside the full network.
        """
        inputs = {
            "supernet": self.digest,
            "spec": str(spec),
            "data": self.data.digest,
            "calibration_images": self.training.config.calibration_images,
            "seed": self.training.seed,
        }

        def work() -> tuple[dict[str, Any], dict[str, str]]:
            validation = self.data.at(spec.input).validation
            found = evaluate(self.network(spec).module, validation, self.data.task)
            if math.isnan(found):
                failure = Failure("the supernet gives it outputs that are not numbers", str(spec))
                return {"failure": asdict(failure)}, {}
            return {"accuracy": found}, {}

        result = self.memo.once(SUPERNET_ACCURACY, inputs, work).result
        return Failure(**result["failure"]) if "failure" in result else float(result["accuracy"])

    def save(self, path: Path | str) -> None:
        """Write the weights to one file. Raises ConfigError if that cannot be done."""
        self.net.save(path)

    @classmethod
    def load(cls, path: Path | str, training: SupernetTraining, *, data: Data, memo: Memo) -> Self:
        """Read what `save` wrote, for this data.

        Raises:
            ConfigError: no such file, not a supernet, damaged, or for other images or classes.
        """
        net = ElasticNet.load(path)
        net.check_data(data.dataset.input[2], data.dataset.classes)
        return cls(net, training, data, memo)

    def _calibration_images(self, spec: ArchSpec) -> Images:
        """Return training images, the same ones for every sub-network but for their size."""
        images = self.data.at(spec.input).train.images
        count = min(self.training.config.calibration_images, len(images))
        rng = np.random.default_rng(self.training.seed)
        chosen: Images = images[np.sort(rng.choice(len(images), count, replace=False))]
        return chosen


def train_supernet_once(
    space: ElasticSpace,
    training: SupernetTraining,
    *,
    data: Data,
    memo: Memo,
    on_epoch: Callable[[int], None] = lambda _epoch: None,
) -> Supernet | Failure:
    """Return the trained supernet of a space, from memory, or resumed from its last epoch.

    Args:
        space: a Once-for-all space.
        training: how.
        data: on what.
        memo: remembers.
        on_epoch: told the number of epochs done, of `training.epochs`.

    Returns:
        The supernet, or the failure of a training that diverged.
    """
    inputs = training.inputs(space, data)

    def work() -> tuple[dict[str, Any], dict[str, str]]:
        started_s = memo.clock()
        net = train_supernet(
            space,
            data,
            config=training.config,
            train=training.train,
            seed=training.seed,
            checkpoints=StoredCheckpoints(memo, SUPERNET, inputs),
            on_epoch=on_epoch,
        )
        if isinstance(net, Failure):
            return {"failure": asdict(net)}, {}
        with tempfile.TemporaryDirectory(prefix="edgewright-") as folder:
            path = Path(folder) / "supernet.npz"
            net.save(path)
            artifacts = {"supernet": memo.store.put_file(path)}
        return {"wall_s": memo.clock() - started_s}, artifacts

    step = memo.once(SUPERNET, inputs, work)
    memo.drop_checkpoints(SUPERNET, inputs)
    on_epoch(training.epochs(space))
    if "failure" in step.result:
        return Failure(**step.result["failure"])
    net = ElasticNet.load(memo.store.path(step.artifacts["supernet"]))
    return Supernet(net, training, data, memo, step.result["wall_s"])


def is_trained(space: ElasticSpace, training: SupernetTraining, *, data: Data, memo: Memo) -> bool:
    """Tell whether `train_supernet_once` would return without training."""
    return memo.remembers(SUPERNET, training.inputs(space, data))
