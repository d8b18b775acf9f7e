"""Training a Once-for-all network by progressive shrinking (Cai et al. 2020, section 3.3).

The full network first. Then kernels, depths and widths become elastic, one after the other and each
from its largest option down; every step trains a few sub-networks drawn at random. The full network
of the first phase, frozen, teaches: to the task's loss comes that of being unlike its outputs (its
soft labels) for the same batch. Before a width is added, the channels are sorted by importance
among those that no trained width tells apart.

What differs from the paper: the epochs are the recipe's, in the paper's proportions within depth
and within width, and every phase warms up for a fifth of its steps. The last step of depth and of
width has the rate of kernels, where the paper has a quarter: with a few epochs in place of 125 that
left small sub-networks untrained (docs/supernets.md). The gradients of a step's sub-networks are
averaged, not added: they are clipped to one norm in all phases. There is no dropout, and the
resolutions are those of the space, none in between.

Every draw is a function of the seed and the step (sub-networks, resolution) or comes from one
generator (order, augmentation), so a training resumed after an epoch ends with the same weights.
It is one process with as many threads as torch has been given; their number decides last digits.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from device_agents.api import Failure
from models.supernet.elastic import ElasticNet
from pipeline.train.augment import affine
from pipeline.train.devices import choose_device, mixed_precision
from pipeline.train.loop import pick, restore_weights, schedule, take_step, weights_state
from pipeline.train.sgd import Sgd
from pipeline.train.shrinking import phases

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy.typing as npt

    from models.blocks import Classifier
    from pipeline.data.api import Data
    from pipeline.recipe.sections import SupernetSection, TrainSection
    from pipeline.train.checkpoints import Checkpoints, State
    from pipeline.train.shrinking import ElasticSpace, Phase


def train_supernet(
    space: ElasticSpace,
    data: Data,
    *,
    config: SupernetSection,
    train: TrainSection,
    seed: int,
    checkpoints: Checkpoints | None = None,
    on_epoch: Callable[[int], None] = lambda _epoch: None,
) -> ElasticNet | Failure:
    """Train the full network of a space and all its sub-networks on the training split.

    Args:
        space: which sub-networks there are.
        data: at any resolution; it is resized to those of the space.
        config: epochs, rates and distillation.
        train: weight decay, label smoothing and augmentation.
        seed: of everything random.
        checkpoints: asked once at the start, given the state after every epoch.
        on_epoch: told the number of epochs done.

    Returns:
        The supernet in evaluation mode on the processor, or a Failure when the loss is no longer a
        number.

    Raises:
        ConfigError: the device of `train` is not on this machine.
        SpecError: the space has networks that no supernet holds (a kernel of 1, say).
    """
    run = _Run.start(space, data, config, train, seed)
    if checkpoints is not None and (state := checkpoints.load()) is not None:
        run.restore(state)
    total = sum(phase.epochs for phase in run.phases)
    while run.epoch < total:
        phase, within = run.position()
        loss = run.one_epoch(phase, within)
        if not math.isfinite(loss):
            key = "learning_rate" if phase is run.phases[0] else "elastic_learning_rate"
            return Failure(
                f"training of the supernet diverged in epoch {run.epoch}, phase {phase.name!r} "
                f"(loss {loss}); lower search.supernet.{key}, now {getattr(config, key)}",
                str(space.full),
            )
        on_epoch(run.epoch)
        if checkpoints is not None and run.epoch < total:
            checkpoints.save(run.state())
    return run.net.cpu().eval()


@dataclass(slots=True)
class _Run:
    """The mutable state of one training."""

    space: ElasticSpace
    data: Data
    config: SupernetSection
    train: TrainSection
    seed: int
    phases: tuple[Phase, ...]
    net: ElasticNet
    optimizer: Sgd
    generator: torch.Generator
    device: torch.device
    teacher: Classifier | None = None
    epoch: int = 0
    spaces: dict[tuple[Phase, int], ElasticSpace] = field(default_factory=dict)

    @classmethod
    def start(
        cls,
        space: ElasticSpace,
        data: Data,
        config: SupernetSection,
        train: TrainSection,
        seed: int,
    ) -> _Run:
        device = choose_device(train.device)
        generator = torch.Generator().manual_seed(seed)
        net = ElasticNet(space.full, generator=generator)
        smallest: Any = replace(cast("Any", space), kernels=(min(space.kernels),))
        net.select(smallest.full)  # a kernel that no supernet holds is refused before the work
        net.to(device)
        optimizer = Sgd(net.parameters(), train.weight_decay)
        found = phases(space, config)
        return cls(space, data, config, train, seed, found, net, optimizer, generator, device)

    def position(self) -> tuple[Phase, int]:
        """Return the phase of the next epoch, and how many of its epochs are done."""
        within = self.epoch
        for phase in self.phases:
            if within < phase.epochs:
                return phase, within
            within -= phase.epochs
        raise AssertionError("there is no further epoch")

    def begin(self, phase: Phase) -> None:
        """Prepare a phase: fresh momentum, and a teacher or sorted channels where it needs them."""
        self.optimizer = Sgd(self.net.parameters(), self.train.weight_decay)
        if phase is not self.phases[0] and self.teacher is None:
            self.teacher = copy.deepcopy(self.net.net).requires_grad_(requires_grad=False)
        if phase.name == "width":
            before = self.phases[self.phases.index(phase) - 1].expansions
            trained = _largest(self.space.expansions, before)
            widths = [replace(cast("Any", self.space), expansions=(e,)).full for e in trained]
            self.net.cpu().sort_channels(widths)
            self.net.to(self.device)

    def one_epoch(self, phase: Phase, within: int) -> float:
        """Train one epoch; return the mean loss."""
        if within == 0:
            self.begin(phase)
        self.net.train()
        rows = torch.randperm(len(self.data.dataset.train), generator=self.generator)
        size = min(self.config.batch_size, len(rows))
        steps = len(rows) // size  # the short last batch would give BN poor statistics
        total = torch.zeros((), device=self.device)
        for index in range(steps):
            rate = schedule((within * steps + index + 1) / (phase.epochs * steps))
            batch = rows[index * size : (index + 1) * size]
            total += self.step(phase, self.epoch * steps + index, batch)
            take_step(self.net, self.optimizer, phase.learning_rate * rate)
        self.epoch += 1
        return float(total) / steps

    def step(self, phase: Phase, step: int, rows: torch.Tensor) -> torch.Tensor:
        """Give the net the mean gradient of a step's sub-networks; return their mean loss."""
        sizes = self.space.inputs
        which = int(np.random.default_rng((self.seed, step)).integers(len(sizes)))
        split = self.data.at(sizes[which]).train
        images, labels = (x.to(self.device) for x in pick(split, rows))
        if self.train.augment:
            images = affine(images, self.generator, strength=self.train.augment)
        images = images.contiguous(memory_format=torch.channels_last)
        taught = self.ask_teacher(images)
        space = self.restrict(phase, which)
        total = torch.zeros((), device=self.device)
        self.optimizer.zero_grad()
        for k in range(phase.networks):
            # From 1: numpy takes a 0 at the end of a seed for nothing at all.
            self.net.select(space.sample(np.random.default_rng((self.seed, step, k + 1))))
            with mixed_precision(self.device):
                outputs = self.net(images)
            loss = self.loss(outputs.float(), labels, taught) / phase.networks
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        return total

    def ask_teacher(self, images: torch.Tensor) -> torch.Tensor | None:
        """Return what the teacher, in training mode as in the paper, makes of a batch."""
        if self.teacher is None or not self.config.distillation:
            return None
        with torch.no_grad(), mixed_precision(self.device):
            outputs: torch.Tensor = self.teacher.train()(images)
        return outputs.float()

    def loss(
        self, outputs: torch.Tensor, labels: torch.Tensor, taught: torch.Tensor | None
    ) -> torch.Tensor:
        task = self.data.task
        loss = task.loss(outputs, labels, label_smoothing=self.train.label_smoothing)
        if taught is None:
            return loss
        return loss + self.config.distillation * task.imitation_loss(outputs, taught)

    def restrict(self, phase: Phase, size: int) -> ElasticSpace:
        """Return the space of a phase at one of its resolutions."""
        if (phase, size) not in self.spaces:
            space: Any = self.space
            self.spaces[phase, size] = replace(
                space,
                kernels=_largest(space.kernels, phase.kernels),
                expansions=_largest(space.expansions, phase.expansions),
                depths=_largest(space.depths, phase.depths),
                stages=tuple(
                    replace(stage, depths=_largest(stage.depths, phase.depths))
                    for stage in space.stages
                ),
                resolutions=(space.inputs[size][0],),
            )
        return self.spaces[phase, size]

    def state(self) -> State:
        """Return all that the rest of the training depends on, as arrays."""
        arrays = weights_state(self.net, self.optimizer)
        if self.teacher is not None:
            teacher = self.teacher.state_dict()
            arrays |= {f"teacher/{name}": value.cpu().numpy() for name, value in teacher.items()}
        arrays["generator"] = self.generator.get_state().numpy()
        arrays["epoch"] = np.array(self.epoch)
        return arrays

    def restore(self, state: Mapping[str, npt.NDArray[np.generic]]) -> None:
        """Take up the state that `state` returned."""
        restore_weights(state, self.net, self.optimizer)
        teacher = {
            name.removeprefix("teacher/"): torch.from_numpy(np.array(value))
            for name, value in state.items()
            if name.startswith("teacher/")
        }
        if teacher:
            self.teacher = copy.deepcopy(self.net.net).requires_grad_(requires_grad=False)
            self.teacher.load_state_dict(teacher)
        self.generator.set_state(torch.from_numpy(np.array(state["generator"])))
        self.epoch = int(state["epoch"])


def _largest(options: Sequence[Any], count: int) -> tuple[Any, ...]:
    """Return the `count` largest options, in their order."""
    kept = sorted(options, reverse=True)[:count]
    return tuple(option for option in options if option in kept)
