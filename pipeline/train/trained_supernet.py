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
from pipeline.train.loop import accuracy
from pipeline.train.recalibration import recalibrate
from pipeline.train.recorded import StoredCheckpoints
from pipeline.train.shrinking import phases
from pipeline.train.supernet import train_supernet

if TYPE_CHECKING:
    from collections.abc import Callable

    from models.network import Network
    from models.spec import ArchSpec
    from pipeline.data.api import Images
    from pipeline.train.shrinking import ElasticSpace
    from pipeline.train.workshop import Workshop

SUPERNET_ACCURACY = StepKind("supernet-accuracy")
SUPERNET = StepKind("supernet")


CALIBRATION_BATCH = 256


@dataclass(frozen=True)
class Supernet:
    """A trained supernet, the data that re-calibrates its sub-networks, and the store.

    Attributes:
        net: the weights.
        shop: the recipe (calibration images, seed), the data and the store.
        wall_s: how long its training took; 0 for one that was read from a file.
    """

    net: ElasticNet
    shop: Workshop = field(repr=False)
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
        """Return a sub-network's accuracy (0..1) on the validation split at its resolution.

        Raises:
            SpecError: `spec` does not fit inside the full network.
        """
        inputs = {
            "supernet": self.digest,
            "spec": str(spec),
            "data": self.shop.dataset_digest,
            "calibration_images": self.shop.recipe.search.supernet.calibration_images,
            "seed": self.shop.recipe.seed,
        }

        def work() -> tuple[dict[str, Any], dict[str, str]]:
            validation = self.shop.dataset.at(spec.input).validation
            found = accuracy(self.network(spec).module, validation)
            if math.isnan(found):
                failure = Failure("the supernet gives it outputs that are not numbers", str(spec))
                return {"failure": asdict(failure)}, {}
            return {"accuracy": found}, {}

        result = self.shop.memo.once(SUPERNET_ACCURACY, inputs, work).result
        return Failure(**result["failure"]) if "failure" in result else float(result["accuracy"])

    def save(self, path: Path | str) -> None:
        """Write the weights to one file. Raises ConfigError if that cannot be done."""
        self.net.save(path)

    @classmethod
    def load(cls, path: Path | str, shop: Workshop) -> Self:
        """Read what `save` wrote, for the data and the recipe of `shop`.

        Raises:
            ConfigError: no such file, not a supernet, damaged, or for other images or classes.
        """
        net = ElasticNet.load(path)
        net.check_data(shop.dataset.input[2], shop.dataset.classes)
        return cls(net, shop)

    def _calibration_images(self, spec: ArchSpec) -> Images:
        """Return training images, the same ones for every sub-network but for their size."""
        images = self.shop.dataset.at(spec.input).train.images
        count = min(self.shop.recipe.search.supernet.calibration_images, len(images))
        rng = np.random.default_rng(self.shop.recipe.seed)
        return images[np.sort(rng.choice(len(images), count, replace=False))]


def supernet_epochs(shop: Workshop, space: ElasticSpace) -> int:
    """Return how many epochs the training of a supernet over `space` takes in all."""
    return sum(phase.epochs for phase in phases(space, shop.recipe.search.supernet))


def trained_supernet(
    shop: Workshop, space: ElasticSpace, *, on_epoch: Callable[[int], None] = lambda _epoch: None
) -> Supernet | Failure:
    """Return the supernet of a space, trained as the recipe says, resumed from its last epoch.

    Args:
        shop: the recipe ([search.supernet], [train]), its data and the store.
        space: a Once-for-all space.
        on_epoch: told the number of epochs done, of `supernet_epochs`.

    Returns:
        The supernet, or the failure of a training that diverged.
    """
    inputs = _inputs(shop, space)

    def work() -> tuple[dict[str, Any], dict[str, str]]:
        started_s = shop.memo.clock()
        net = train_supernet(
            space,
            shop.dataset,
            shop.recipe.search.supernet,
            shop.recipe.train,
            seed=shop.recipe.seed,
            checkpoints=StoredCheckpoints(shop.memo, SUPERNET, inputs),
            on_epoch=on_epoch,
        )
        if isinstance(net, Failure):
            return {"failure": asdict(net)}, {}
        with tempfile.TemporaryDirectory(prefix="edgewright-") as folder:
            path = Path(folder) / "supernet.npz"
            net.save(path)
            artifacts = {"supernet": shop.store.put_file(path)}
        return {"wall_s": shop.memo.clock() - started_s}, artifacts

    step = shop.memo.once(SUPERNET, inputs, work)
    shop.memo.drop_checkpoints(SUPERNET, inputs)
    on_epoch(supernet_epochs(shop, space))
    if "failure" in step.result:
        return Failure(**step.result["failure"])
    net = ElasticNet.load(shop.store.path(step.artifacts["supernet"]))
    return Supernet(net, shop, step.result["wall_s"])


def is_trained(shop: Workshop, space: ElasticSpace) -> bool:
    """Tell whether `trained_supernet` would return without training."""
    return shop.memo.remembers(SUPERNET, _inputs(shop, space))


def _inputs(shop: Workshop, space: ElasticSpace) -> dict[str, Any]:
    """Return all that the training depends on; how its sub-networks are used is no part of it."""
    config = asdict(shop.recipe.search.supernet)
    for use in ("calibration_images", "predictor_samples", "finetune_epochs"):
        del config[use]
    train = shop.recipe.train
    widest = [replace(cast("Any", space), expansions=(e,)).full for e in space.expansions]
    return {
        "full": [str(spec) for spec in widest],  # all middle widths, whatever they are rounded to
        "inputs": space.inputs,
        "kernels": space.kernels,
        "expansions": space.expansions,
        "depths": space.depths,
        "stages": [list(stage.depths) for stage in space.stages],
        "config": config,
        "weight_decay": train.weight_decay,
        "label_smoothing": train.label_smoothing,
        "augment": train.augment,
        "data": shop.dataset_digest,
        "seed": shop.recipe.seed,
    }
