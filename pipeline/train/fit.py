"""Training of any network that is a graph: fine-tuning, whoever brought the weights.

The optimiser, its schedule and its clipping are those of `pipeline.train.loop`; here is what a
model of any inputs and outputs needs beside them: samples by name, truths or a teacher or both, and
a place after each step for whoever holds weights to something (to zero, to a few shared values).
Like there, the learning rate is a function of the step and every draw comes from one generator, so
that a training resumed from a checkpoint ends with the same weights, bit for bit on the processor.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from device_agents.api import Failure
from device_agents.errors import ConfigError
from device_agents.plain_values import bounds
from pipeline.train.augment import affine
from pipeline.train.devices import TrainDevice, choose_device, mixed_precision
from pipeline.train.imitation import Goal, Teachers, learnt_tensors
from pipeline.train.loop import (
    restore_weights,
    schedule,
    take_step,
    weights_state,
    whole_batches,
)
from pipeline.train.sgd import Sgd
from pipeline.train.taught import Taught, batch

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    import numpy.typing as npt

    from models.graph import Graph
    from pipeline.train.checkpoints import State
    from pipeline.train.lessons import Lessons

_PLACES = ("masks", "none")
"""Truths whose values belong to places of the picture, or may."""

JUDGED = 1024
"""Samples at most of which the loss is told before and after."""


@dataclass(frozen=True, slots=True)
class FitOptions:
    """How a network is trained.

    Attributes:
        epochs: how often every sample is seen.
        batch_size: samples of a step.
        learning_rate: the highest; it warms up for a fifth of the steps, then falls to 0.
        weight_decay: pull of weights to zero; not of biases and of normalisation.
        label_smoothing: share of a truth that goes to all classes alike.
        distillation: weight of imitating the teachers, where there are any, beside the truths;
            without truths they alone are imitated.
        temperature: of the softmax that is imitated.
        features: names of ops whose outputs are to be like the teachers' of the same names.
        feature_weight: of that, beside the rest.
        augment: strength of random rotation, scaling and shift, where the only input is a picture.
        device: ``cpu``, ``cuda``, ``mps``, or ``auto`` for an accelerator where there is one.
    """

    epochs: int = field(default=5, metadata=bounds(low=1, high=100_000))
    batch_size: int = field(default=64, metadata=bounds(low=2, high=65_536))
    learning_rate: float = field(default=0.01, metadata=bounds(above=0, high=100))
    weight_decay: float = field(default=1e-4, metadata=bounds(low=0, high=1))
    label_smoothing: float = field(default=0.0, metadata=bounds(low=0, high=0.99))
    distillation: float = field(default=0.5, metadata=bounds(low=0, high=1e6))
    temperature: float = field(default=4.0, metadata=bounds(above=0, high=1e3))
    features: tuple[str, ...] = ()
    feature_weight: float = field(default=1.0, metadata=bounds(low=0, high=1e6))
    augment: float = field(default=0.0, metadata=bounds(low=0, high=3))
    device: TrainDevice = "cpu"


@dataclass(frozen=True, slots=True)
class Fitted:
    """What a training came to.

    Attributes:
        samples: that were learnt from.
        loss_before: of some of them before, in evaluation mode.
        loss: of the same ones after.
        taught: whether teachers' outputs were imitated.
        on: where it was computed: cpu, cuda or mps.
    """

    samples: int
    loss_before: float
    loss: float
    taught: bool
    on: str


class Trainable(Protocol):
    """What can be trained: a `torch.nn.Module` with what `models.graph_module.GraphModule` has."""

    @property
    def graph(self) -> Graph:
        """Names, shapes and ends of what it computes."""

    def run(
        self, inputs: Mapping[str, torch.Tensor], names: Collection[str] = ()
    ) -> dict[str, torch.Tensor]:
        """Return tensors by name, as `GraphModule.run`."""


def fit(
    module: Any,
    lessons: Lessons,
    options: FitOptions,
    *,
    name: str = "fit",
    after_step: Callable[[float], None] | None = None,
) -> Fitted | Failure:
    """Train a module in place; it ends on the processor, in evaluation mode.

    Where its graph does not keep the batch, samples are run one by one, and normalisation keeps
    its statistics: those of one sample say nothing.

    Args:
        module: `Trainable` (and a `torch.nn.Module`).
        lessons: what is learnt from, and who teaches.
        options: how.
        name: of this training among those of one model: what its checkpoints are kept by.
        after_step: is called after every step of the optimiser, without gradients, with the share
            of all steps that are done, above 0 to 1.

    Returns:
        What it came to, or a Failure when the loss is no longer a number.

    Raises:
        ConfigError: the samples are none of this network, nobody says what is right, a teacher is
            of another kind, or the device is not here.
    """
    run = _Run.start(module, lessons, options, after_step)
    checkpoints = lessons.checkpoints(name)
    if checkpoints is not None and (state := checkpoints.load()) is not None:
        run.restore(state)
    else:
        run.loss_before = run.measure()
        if not math.isfinite(run.loss_before):
            return Failure(
                f"the loss is {run.loss_before} before anything is learnt: the network's outputs "
                "or its teacher's are no numbers; take weights from before they were damaged"
            )
    while run.epoch < options.epochs:
        loss = run.one_epoch()
        if not math.isfinite(loss):
            return _diverged(run.epoch, loss, options)
        lessons.tell(f"{name}: epoch {run.epoch} of {options.epochs}, loss {loss:.4g}")
        if checkpoints is not None:
            checkpoints.save(run.state())
    after = run.measure()
    if not math.isfinite(after):
        return _diverged(run.epoch, after, options)
    module.eval().cpu()
    taught = run.teach is not None and (options.distillation > 0 or lessons.truths is None)
    return Fitted(len(lessons), run.loss_before, after, taught, run.device.type)


def measure_loss(module: Any, lessons: Lessons, options: FitOptions) -> float:
    """Return what `fit` would make smaller, of some of the samples; raises as `fit`.

    In evaluation mode, in which the module stays, on the processor.
    """
    found = _Run.start(module, lessons, options, None).measure()
    module.cpu()
    return found


def _diverged(epoch: int, loss: float, options: FitOptions) -> Failure:
    return Failure(
        f"training diverged in epoch {epoch} (loss {loss}); lower the learning rate, now "
        f"{options.learning_rate:g}"
    )


@dataclass(slots=True)
class _Run:
    """The mutable state of one training."""

    module: Any
    lessons: Lessons
    options: FitOptions
    goal: Goal
    teach: Taught | None
    device: torch.device
    optimizer: Sgd
    generator: torch.Generator
    after_step: Callable[[float], None] | None
    loss_before: float = math.nan
    epoch: int = 0

    @classmethod
    def start(
        cls,
        module: Any,
        lessons: Lessons,
        options: FitOptions,
        after_step: Callable[[float], None] | None,
    ) -> _Run:
        graph: Graph = module.graph
        lessons.check(graph)
        if options.augment and not _is_picture(graph):
            raise ConfigError(
                "augment turns and shifts pictures, and the network reads others; leave it out"
            )
        if options.augment and lessons.truths is not None and lessons.task.truths in _PLACES:
            raise ConfigError(
                "augment turns and shifts pictures, and truths that lie on them would not be "
                "turned with them; leave it out"
            )
        classes = lessons.truths is not None and lessons.task.truths in ("classes", "masks")
        if options.label_smoothing and not classes:
            raise ConfigError(
                "label_smoothing is a share of truths that are classes, and there are none; leave "
                "it out"
            )
        device = choose_device(options.device)
        goal = _goal(graph, lessons, options)
        teach = None
        wanted = bool(options.features) or options.distillation > 0 or lessons.truths is None
        if wanted and lessons.teachers:
            teachers = Teachers(lessons.teachers, graph, features=goal.features, device=device)
            teach = Taught.of(
                teachers,
                goal,
                graph,
                lessons,
                device=device,
                size=options.batch_size,
                varied=bool(options.augment),
            )
        elif lessons.truths is None or options.features:
            what = f"features {'+'.join(options.features)}" if options.features else "no truths"
            raise ConfigError(
                f"there are {what} and no teacher to imitate, so nothing says what is right; "
                "give labels or a teacher"
            )
        module.to(device)
        optimizer = Sgd(module.parameters(), options.weight_decay)
        generator = torch.Generator().manual_seed(lessons.seed)
        return cls(module, lessons, options, goal, teach, device, optimizer, generator, after_step)

    def one_epoch(self) -> float:
        """Train one epoch; return the mean loss."""
        self.module.train(self.module.graph.keeps_batch)
        order = torch.randperm(len(self.lessons), generator=self.generator)
        batches = whole_batches(order, self.options.batch_size)
        steps = self.options.epochs * len(batches)
        total = torch.zeros((), device=self.device)
        for index, rows in enumerate(batches):
            step = self.epoch * len(batches) + index + 1
            share = step / steps
            loss = self.loss(rows, augment=self.options.augment)
            self.optimizer.zero_grad()
            if not loss.requires_grad:
                raise ConfigError(
                    "no weight of the network reaches its outputs by ops that have a gradient, so "
                    "nothing can be learnt"
                )
            loss.backward()  # type: ignore[no-untyped-call]
            # The last step's rate is 0: one that is alone would teach nothing.
            rate = schedule(share) if steps > 1 else 1.0
            take_step(self.module, self.optimizer, self.options.learning_rate * rate)
            if self.after_step is not None:
                with torch.no_grad():
                    self.after_step(share)
            total += loss.detach()
        self.epoch += 1
        return float(total) / len(batches)

    def loss(self, rows: torch.Tensor, *, augment: float = 0.0) -> torch.Tensor:
        """Return the loss of some of the samples."""
        chosen = rows.numpy()
        inputs = batch(self.lessons.inputs, chosen, self.device)
        if augment:
            ((name, pictures),) = inputs.items()  # (N, H, W, C)
            turned = affine(pictures.permute(0, 3, 1, 2), self.generator, strength=augment)
            inputs = {name: turned.permute(0, 2, 3, 1)}
        truths = self.lessons.truths
        true = None if truths is None else torch.from_numpy(truths[chosen]).to(self.device)
        taught = None if self.teach is None else self.teach(inputs, chosen)
        with mixed_precision(self.device):
            found = self.module.run(inputs, self.goal.names)
        return self.goal.loss(found, true, taught)

    @torch.no_grad()
    def measure(self) -> float:
        """Return the loss of some samples, evenly spread, in evaluation mode."""
        self.module.eval()
        count = min(len(self.lessons), JUDGED)
        rows = torch.linspace(0, len(self.lessons) - 1, count, dtype=torch.float64).long()
        parts = torch.split(rows, self.options.batch_size)
        return sum(float(self.loss(part)) * len(part) for part in parts) / count

    def state(self) -> State:
        """Return all that the rest of the training depends on, as arrays."""
        arrays = weights_state(self.module, self.optimizer)
        arrays["generator"] = self.generator.get_state().numpy()
        arrays["epoch"] = np.array(self.epoch)
        arrays["loss_before"] = np.array(self.loss_before)
        return arrays

    def restore(self, state: Mapping[str, npt.NDArray[np.generic]]) -> None:
        """Take up the state that `state` returned."""
        restore_weights(state, self.module, self.optimizer)
        self.generator.set_state(torch.from_numpy(np.array(state["generator"])))
        self.epoch = int(state["epoch"])
        self.loss_before = float(state["loss_before"])


def _goal(graph: Graph, lessons: Lessons, options: FitOptions) -> Goal:
    outputs = learnt_tensors(graph)
    shape, kind = graph.shape(outputs[0]), lessons.task.truths
    # Without truths a task is only the usual one: a row of scores is what it is for.
    sure = lessons.truths is not None or len(outputs) == 1
    rows = math.prod(shape[:-1]) == 1 if kind == "classes" else kind == "masks" and len(shape) == 4
    return Goal(
        task=lessons.task,
        outputs=outputs,
        scores=sure and rows and shape[-1] > 1,
        features=options.features,
        distillation=options.distillation,
        feature_weight=options.feature_weight,
        temperature=options.temperature,
        label_smoothing=options.label_smoothing,
    )


def _is_picture(graph: Graph) -> bool:
    return len(graph.inputs) == 1 and len(graph.inputs[0].shape) == 4
