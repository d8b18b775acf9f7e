"""Trainings remembered by the store: a network is trained once for its settings, data and seed.

The number of threads is always 1: it decides the order of sums and with it the last digits.
"""

from __future__ import annotations

import io
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from device_agents.api import Failure
from models.network import Network
from pipeline.store.memo import StepKind
from pipeline.train.loop import Trained, train

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from models.spec import ArchSpec
    from pipeline.data.api import Data
    from pipeline.recipe.sections import TrainSection
    from pipeline.store import Step
    from pipeline.store.memo import Memo
    from pipeline.train.checkpoints import State

PROXY = StepKind("proxy")
TRAIN = StepKind("train")
FINETUNE = StepKind("finetune")


FINETUNE_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class Training:
    """How networks are trained: with which settings, from which seed."""

    config: TrainSection
    seed: int

    def inputs(self, spec: ArchSpec, data: Data) -> dict[str, Any]:
        """Return all that a training from scratch depends on, as JSON values.

        Where it is computed is no part of it: what one device began another goes on with.
        """
        config = asdict(self.config)
        del config["device"]
        return {
            "spec": str(spec),
            "config": config,
            "data": data.digest,
            "seed": self.seed,
        }


def score_briefly(
    spec: ArchSpec, training: Training, *, data: Data, memo: Memo, kind: StepKind = PROXY
) -> float | Failure:
    """Return the validation score (accuracy: 0..1) after a training whose network is not kept."""

    def work() -> tuple[dict[str, Any], dict[str, str]]:
        trained = train(spec, data, training.config, seed=training.seed)
        if isinstance(trained, Failure):
            return {"failure": asdict(trained)}, {}
        return {"accuracy": trained.accuracy}, {}

    result = memo.once(kind, training.inputs(spec, data), work).result
    return Failure(**result["failure"]) if "failure" in result else float(result["accuracy"])


def train_network(
    spec: ArchSpec,
    training: Training,
    *,
    data: Data,
    memo: Memo,
    on_epoch: Callable[[int], None] = lambda _epoch: None,
) -> Trained | Failure:
    """Return the network after a full training, resumed from its last epoch."""
    inputs = training.inputs(spec, data)

    def work() -> tuple[dict[str, Any], dict[str, str]]:
        trained = train(
            spec,
            data,
            training.config,
            seed=training.seed,
            checkpoints=StoredCheckpoints(memo, TRAIN, inputs),
            on_epoch=on_epoch,
        )
        return _keep(memo, trained)

    step = memo.once(TRAIN, inputs, work)
    memo.drop_checkpoints(TRAIN, inputs)
    on_epoch(training.config.epochs)
    return _read(memo, step)


def finetune_network(
    network: Network, training: Training, *, epochs: int, data: Data, memo: Memo
) -> Trained | Failure:
    """Return a network after `epochs` more of a full training, from its weights on.

    The peak of the learning rate is a tenth of the training's: the weights are good already.
    """
    rate = FINETUNE_SHARE * training.config.learning_rate
    gentle = replace(training, config=replace(training.config, epochs=epochs, learning_rate=rate))
    inputs = {**gentle.inputs(network.spec, data), "start": network.digest()}

    def work() -> tuple[dict[str, Any], dict[str, str]]:
        trained = train(network.spec, data, gentle.config, seed=gentle.seed, start=network)
        return _keep(memo, trained)

    return _read(memo, memo.once(FINETUNE, inputs, work))


def _keep(memo: Memo, trained: Trained | Failure) -> tuple[dict[str, Any], dict[str, str]]:
    """Return a training's result and artifacts, its network put into the store."""
    if isinstance(trained, Failure):
        return {"failure": asdict(trained)}, {}
    with tempfile.TemporaryDirectory(prefix="edgewright-") as folder:
        path = Path(folder) / "network.npz"
        trained.network.save(path)
        artifacts = {"network": memo.store.put_file(path)}
    return {"accuracy": trained.accuracy, "wall_s": trained.wall_s}, artifacts


def _read(memo: Memo, step: Step) -> Trained | Failure:
    if "failure" in step.result:
        return Failure(**step.result["failure"])
    network = Network.load(memo.store.path(step.artifacts["network"]))
    return Trained(network, step.result["accuracy"], step.result["wall_s"])


class StoredCheckpoints:
    """The last state of a training in the store; satisfies `train.checkpoints.Checkpoints`.

    `kind` and `inputs` are those of the step that the training is.
    """

    def __init__(self, memo: Memo, kind: StepKind, inputs: Mapping[str, Any]) -> None:
        self._memo = memo
        self._kind = kind
        self._inputs = inputs

    def load(self) -> State | None:
        """Return the last saved state, if there is one that can be read."""
        step = self._memo.latest_checkpoint(self._kind, self._inputs)
        if step is None:
            return None
        with np.load(self._memo.store.path(step.artifacts["state"]), allow_pickle=False) as arrays:
            return dict(arrays)

    def save(self, state: State) -> None:
        """Keep this state instead of the one before."""
        file = io.BytesIO()
        np.savez(file, **state)  # type: ignore[arg-type]
        kept = {"state": self._memo.store.put_bytes(file.getvalue())}
        self._memo.checkpoint(self._kind, self._inputs, int(state["epoch"]), kept)


def is_trained(spec: ArchSpec, training: Training, *, data: Data, memo: Memo) -> bool:
    """Tell whether `train_network` would return without training."""
    return memo.remembers(TRAIN, training.inputs(spec, data))
