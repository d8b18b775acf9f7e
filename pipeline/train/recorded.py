"""Trainings remembered by the store: a network is trained once for its recipe, data and seed.

The number of threads is always 1: it decides the order of sums and with it the last digits.
"""

from __future__ import annotations

import io
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from device_agents.api import Failure
from models.network import Network
from pipeline.store.memo import StepKind
from pipeline.train.loop import State, Trained, train

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from models.spec import ArchSpec
    from pipeline.recipe.recipe import TrainSection
    from pipeline.store import Step
    from pipeline.store.memo import Memo
    from pipeline.train.workshop import Workshop

PROXY = StepKind("proxy")
TRAIN = StepKind("train")
FINETUNE = StepKind("finetune")


FINETUNE_SHARE = 0.1


def proxy_accuracy(shop: Workshop, spec: ArchSpec) -> float | Failure:
    """Return the validation accuracy (0..1) after the recipe's proxy training."""
    config = shop.recipe.proxy_train()

    def work() -> tuple[dict[str, Any], dict[str, str]]:
        trained = train(spec, shop.dataset, config, seed=shop.recipe.seed)
        if isinstance(trained, Failure):
            return {"failure": asdict(trained)}, {}
        return {"accuracy": trained.accuracy}, {}

    result = shop.memo.once(PROXY, _inputs(shop, spec, config), work).result
    return Failure(**result["failure"]) if "failure" in result else float(result["accuracy"])


def trained_network(
    shop: Workshop, spec: ArchSpec, *, on_epoch: Callable[[int], None] = lambda _epoch: None
) -> Trained | Failure:
    """Return the network after the recipe's full training, resumed from its last epoch."""
    config = shop.recipe.train
    inputs = _inputs(shop, spec, config)

    def work() -> tuple[dict[str, Any], dict[str, str]]:
        checkpoints = StoredCheckpoints(shop.memo, TRAIN, inputs)
        trained = train(
            spec,
            shop.dataset,
            config,
            seed=shop.recipe.seed,
            checkpoints=checkpoints,
            on_epoch=on_epoch,
        )
        return _kept(shop, trained)

    step = shop.memo.once(TRAIN, inputs, work)
    shop.memo.drop_checkpoints(TRAIN, inputs)
    on_epoch(config.epochs)
    return _read(shop, step)


def finetuned_network(shop: Workshop, network: Network, epochs: int) -> Trained | Failure:
    """Return a network after `epochs` more of the recipe's full training, from its weights on.

    The peak of the learning rate is a tenth of [train]'s: the weights are good already.
    """
    rate = FINETUNE_SHARE * shop.recipe.train.learning_rate
    config = replace(shop.recipe.train, epochs=epochs, learning_rate=rate)
    inputs = {**_inputs(shop, network.spec, config), "start": network.digest()}

    def work() -> tuple[dict[str, Any], dict[str, str]]:
        trained = train(network.spec, shop.dataset, config, seed=shop.recipe.seed, start=network)
        return _kept(shop, trained)

    return _read(shop, shop.memo.once(FINETUNE, inputs, work))


def _kept(shop: Workshop, trained: Trained | Failure) -> tuple[dict[str, Any], dict[str, str]]:
    """Return a training's result and artifacts, its network put into the store."""
    if isinstance(trained, Failure):
        return {"failure": asdict(trained)}, {}
    with tempfile.TemporaryDirectory(prefix="edgewright-") as folder:
        path = Path(folder) / "network.npz"
        trained.network.save(path)
        artifacts = {"network": shop.store.put_file(path)}
    return {"accuracy": trained.accuracy, "wall_s": trained.wall_s}, artifacts


def _read(shop: Workshop, step: Step) -> Trained | Failure:
    if "failure" in step.result:
        return Failure(**step.result["failure"])
    network = Network.load(shop.store.path(step.artifacts["network"]))
    return Trained(network, step.result["accuracy"], step.result["wall_s"])


def _inputs(shop: Workshop, spec: ArchSpec, config: TrainSection) -> dict[str, Any]:
    return {
        "spec": str(spec),
        "config": asdict(config),
        "data": shop.dataset_digest,
        "seed": shop.recipe.seed,
    }


class StoredCheckpoints:
    """The last state of a training in the store; satisfies `pipeline.train.loop.Checkpoints`.

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


def is_trained(shop: Workshop, spec: ArchSpec) -> bool:
    """Tell whether `trained_network` would return without training."""
    return shop.memo.remembers(TRAIN, _inputs(shop, spec, shop.recipe.train))
