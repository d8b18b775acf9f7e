"""What training makes small: the loss of the truths, and being unlike networks that teach.

Knowledge distillation (Hinton, Vinyals and Dean 2015): where the outputs are scores of classes,
KL(teacher ‖ network) of the shares at a temperature T, times T², so that its gradients stay as
large whatever T is. Where they are not, the task's own loss of imitation; where there are several
outputs, that of all but the first is the mean square of the difference, as a share of the
teacher's. Features are matched in the same way (Romero et al. 2015, without a regressor between:
their shapes must be the same). Several teachers' scores are averaged before the softmax.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from device_agents.errors import ConfigError
from device_agents.near_names import nearest_first
from models.graph_module import GraphModule

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from models.graph import Graph
    from models.model import Model
    from pipeline.data.task import Task

    Tensors = Mapping[str, torch.Tensor]

_TINY = 1e-12


def learnt_tensors(graph: Graph) -> tuple[str, ...]:
    """Return the tensor that a loss is of for each output: what a last softmax reads, if any.

    Losses of classes are of scores (logits), and files of classifiers often end in shares.
    """
    found = []
    for name in graph.outputs:
        op = graph[name]
        last = op.kind in ("softmax", "logsoftmax")
        last = last and op.attributes.axis == len(op.out_shape) - 1
        found.append(op.inputs[0] if last else name)
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Goal:
    """A loss.

    Attributes:
        task: of truths and, of the first output, of imitation.
        outputs: as `learnt_tensors` gives them.
        scores: whether the first output is a score for each of several classes.
        features: names of tensors that are like the teacher's.
        distillation: weight of imitation beside the truths.
        feature_weight: of all features together.
        temperature: of the softmax that is imitated.
        label_smoothing: of truths that are classes.
    """

    task: Task
    outputs: tuple[str, ...]
    scores: bool
    features: tuple[str, ...] = ()
    distillation: float = 0.0
    feature_weight: float = 1.0
    temperature: float = 1.0
    label_smoothing: float = 0.0

    @property
    def names(self) -> tuple[str, ...]:
        """The tensors that it is of."""
        return tuple(dict.fromkeys((*self.outputs, *self.features)))

    def loss(
        self, found: Tensors, truths: torch.Tensor | None, taught: Tensors | None
    ) -> torch.Tensor:
        """Return the mean over a batch.

        Args:
            found: the tensors of `names` that the network gives, (N, …) in the graph's layout.
            truths: (N, …) of the task; None where only the teacher is imitated.
            taught: the same tensors of the teacher; None where nobody teaches.
        """
        first = found[self.outputs[0]].float()
        total = first.new_zeros(())
        if truths is not None:
            outputs, truths = _of_task(self.task, first, truths)
            total = total + self.task.loss(outputs, truths, label_smoothing=self.label_smoothing)
        if taught is None:
            return total
        weight = self.distillation if truths is not None else self.distillation or 1.0
        if weight:
            total = total + weight * self._imitation(found, taught)
        if self.features:
            unlike = [_unlike(found[name], taught[name]) for name in self.features]
            total = total + self.feature_weight * torch.stack(unlike).mean()
        return total

    def _imitation(self, found: Tensors, taught: Tensors) -> torch.Tensor:
        name, *others = self.outputs
        ours, theirs = found[name].float(), taught[name].float()
        if self.scores:
            ours, theirs = (x.reshape(-1, x.shape[-1]) / self.temperature for x in (ours, theirs))
            total = self.temperature**2 * functional.kl_div(
                ours.log_softmax(1), theirs.log_softmax(1), reduction="batchmean", log_target=True
            )
        elif self.task.truths == "numbers":
            total = self.task.imitation_loss(ours, theirs)
        else:
            total = _unlike(ours, theirs)
        return total + sum((_unlike(found[one], taught[one]) for one in others), ours.new_zeros(()))


class Teachers:
    """Networks whose tensors are imitated.

    Args:
        models: in real numbers, with the inputs of the one that learns.
        graph: of the one that learns.
        features: names of tensors.
        device: where they run.

    Raises:
        ConfigError: a teacher is quantised, has other outputs, or a feature is not there or of
            another shape.
    """

    def __init__(
        self,
        models: Sequence[Model],
        graph: Graph,
        *,
        features: Sequence[str],
        device: torch.device,
    ) -> None:
        self._modules = [GraphModule(model).eval().to(device) for model in models]
        self._names = [_paired(graph, module.graph, features) for module in self._modules]

    @torch.no_grad()
    def __call__(self, inputs: Tensors) -> dict[str, torch.Tensor]:
        """Return the mean of their tensors (N, …) by the names that the one that learns has."""
        total: dict[str, torch.Tensor] = {}
        for module, pairs in zip(self._modules, self._names, strict=True):
            found = module.run(inputs, tuple(dict.fromkeys(pairs.values())))
            for ours, theirs in pairs.items():
                value = found[theirs].float()
                total[ours] = total[ours] + value if ours in total else value
        return {name: value / len(self._modules) for name, value in total.items()}


def _paired(graph: Graph, teacher: Graph, features: Sequence[str]) -> dict[str, str]:
    """Return names of one's tensors -> of the teacher's. Raises ConfigError."""
    ours, theirs = learnt_tensors(graph), learnt_tensors(teacher)
    shapes = [
        [one.shape(name) for name in names] for one, names in ((graph, ours), (teacher, theirs))
    ]
    if shapes[0] != shapes[1]:
        raise ConfigError(
            f"the teacher's outputs have the shapes {shapes[1]} and the network's {shapes[0]}; "
            "only a network of the same outputs can teach"
        )
    if [x.shape for x in graph.inputs] != [x.shape for x in teacher.inputs] or [
        x.name for x in graph.inputs
    ] != [x.name for x in teacher.inputs]:
        raise ConfigError("the teacher reads other inputs than the network")
    for name in features:
        for whose, one in (("network", graph), ("teacher", teacher)):
            known = [op.name for op in one.ops]
            if name not in known:
                near = ", ".join(nearest_first(name, known)[:5])
                raise ConfigError(f"the {whose} has no op {name!r} to match; it has {near}, …")
        if graph.shape(name) != teacher.shape(name):
            raise ConfigError(
                f"the feature {name!r} is {graph.shape(name)} in the network and "
                f"{teacher.shape(name)} in its teacher; only tensors of the same shape are "
                "matched, which no pass has cut"
            )
    return {**dict(zip(ours, theirs, strict=True)), **{name: name for name in features}}


def _unlike(ours: torch.Tensor, theirs: torch.Tensor) -> torch.Tensor:
    """Return the mean square of the difference, as a share of the teacher's mean square."""
    ours, theirs = ours.float(), theirs.float()
    return functional.mse_loss(ours, theirs) / theirs.square().mean().clamp_min(_TINY)


def _of_task(
    task: Task, outputs: torch.Tensor, truths: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return outputs and truths as the task's loss takes them."""
    if task.truths == "classes":
        return outputs.flatten(1), truths.long()
    if task.truths == "masks":
        if outputs.shape[1:3] != truths.shape[1:]:
            size: Any = tuple(truths.shape[1:])
            larger = functional.interpolate(outputs.movedim(-1, 1), size, mode="bilinear")
            outputs = larger.movedim(1, -1)
        return outputs, truths.long()
    return outputs, truths.reshape(outputs.shape) if task.truths == "none" else truths
