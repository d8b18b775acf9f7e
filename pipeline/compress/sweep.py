"""What each layer alone loses a network as it is made sparser, coarser or narrower.

One layer is changed at a time and all others stay whole, so that what is measured is that layer's;
what several lose together is more, and is for the passes to find out.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from device_agents.errors import ConfigError
from models.execute import execute_all
from models.model import Model
from models.quantization import Quantization
from models.side_by_side import map_side_by_side
from models.simplify import fold_batchnorm
from pipeline.compress.judging import agree
from pipeline.compress.layer_changes import plan
from pipeline.compress.noise import Noise, decibels
from pipeline.compress.simulated import Simulated, as_array, find_results
from pipeline.data.task import score_outputs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy.typing as npt

    from models.graph import Graph
    from pipeline.compress.layer_changes import Change, Of
    from pipeline.compress.simulated import Tensors
    from pipeline.data.task import Task

    Arrays = Mapping[str, npt.NDArray[Any]]

_WORK = 2 * 10**11
"""Multiplications that a sweep may take: about a minute of one core."""

_HELD_BYTES = 512 << 20
"""Of outputs, at most, that are held at once."""

_SAMPLES = (4, 1000)


@dataclass(frozen=True, slots=True)
class Point:
    """What is lost at a level.

    Attributes:
        level: see `layer_changes.LEVELS`.
        value: the task's score; without truths agreement with the whole network, 0..1.
        lost_points: hundredths of the value of the whole network that are gone.
        sqnr_db: of the network's worst output before what squashes it.
    """

    level: float
    value: float
    lost_points: float
    sqnr_db: float


@dataclass(frozen=True, slots=True)
class Curve:
    """What a layer loses, level by level.

    Attributes:
        layer: its name; of a width that of the first layer whose channels go.
        kind: of the op; of a width how many layers make its channels.
        of: what is changed.
        parameters: of the layer's weight; of a width of all that makes the channels or reads them.
        points: from the mildest level on.
        tolerated: the last level up to which no more is lost than may be; None: not the first.
        redundant: parameters that are not needed by that: zeros, channels, or bits in parameters of
            32 bits.
    """

    layer: str
    kind: str
    of: Of
    parameters: int
    points: tuple[Point, ...]
    tolerated: float | None
    redundant: float


@dataclass(frozen=True, slots=True)
class Sweep:
    """What the layers of a network lose.

    Attributes:
        samples: on how many.
        metric: what values are: the task's score, or agreement.
        value: of the whole network.
        max_drop: points that a level may lose to be tolerated.
        seconds: that it took.
        curves: of each layer and what is changed, those with most that is redundant first.
        left_out: why something could not be changed at all.
    """

    samples: int
    metric: str
    value: float
    max_drop: float
    seconds: float
    curves: tuple[Curve, ...]
    left_out: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Scoring:
    """What counts as good: truths of the samples if there are any, with their task."""

    truths: npt.NDArray[Any] | None
    task: Task
    agreement: Task

    @property
    def metric(self) -> str:
        """What a value is called."""
        return "agreement" if self.truths is None else self.task.metric

    def value(self, first: str, ours: Arrays, theirs: Arrays) -> float:
        """Return the value of a network's outputs beside those of the whole one, (N, …) each.

        Raises:
            ConfigError: the truths are not those of the task.
        """
        if self.truths is None:
            return agree(self.task, self.agreement, ours, theirs)
        return score_outputs(self.task, theirs[first][:, None], self.truths)


def affordable(model: Model, of: Sequence[Of]) -> int:
    """Return the samples on which a sweep takes about a minute of one core; 4 at least."""
    changes, _ = plan(fold_batchnorm(model), of)
    graph = model.graph
    outputs = sum(prod(graph.shape(name)) for name in graph.outputs)
    work = _macs(graph) * (1 + sum(1 if isinstance(one.made, Model) else 0.5 for one in changes))
    held = 4 * outputs * (1 + len(changes))
    return int(min(max(min(_WORK / max(work, 1), _HELD_BYTES / held), _SAMPLES[0]), _SAMPLES[1]))


def sweep(
    model: Model,
    inputs: Arrays,
    scoring: Scoring,
    of: Sequence[Of],
    *,
    max_drop: float,
    tell: Callable[[str], object] = lambda _: None,
) -> Sweep:
    """Find what each layer alone loses a network.

    Args:
        model: in real numbers.
        inputs: by their names in the graph, N samples in place of the batch dimension of 1.
        scoring: what counts as good.
        of: what is changed.
        max_drop: points that a level may lose to be tolerated.
        tell: is told how far it is.

    Raises:
        ConfigError: the model holds codes, nothing of it can be changed, or the truths are none of
            the task.
    """
    if model.quantization is not None:
        raise ConfigError(
            f"the model is {model.number_format} already; give the float model that it was made "
            "from"
        )
    started = time.monotonic()
    folded = fold_batchnorm(model)
    changes, left_out = plan(folded, of)
    graph = folded.graph
    before = find_results(graph)
    machine = Simulated(folded, Quantization({}), tuple(dict.fromkeys((*before, *graph.outputs))))
    whole: list[Arrays] = []
    changed: list[list[Arrays]] = [[] for _ in changes]
    noise = [[Noise() for _ in before] for _ in changes]
    count = 0
    for batch in machine.batches(inputs):
        real = machine.run_real(batch)
        count += len(next(iter(batch.values())))
        whole.append({name: as_array(real[name]) for name in graph.outputs})

        def run(change: Change, batch: Arrays = batch, real: Tensors = real) -> Arrays:
            return _run(machine, change, batch, real)

        for place, found in enumerate(map_side_by_side(run, changes)):
            tell(f"{place + 1} of {len(changes)} changes, {count} samples")
            changed[place].append({name: found[name] for name in graph.outputs})
            for name, power in zip(before, noise[place], strict=True):
                power.add(as_array(real[name]), found[name])
    ours = _joined(whole)
    first = graph.outputs[0]
    value = scoring.value(first, ours, ours)
    points: dict[tuple[Of, str], list[Point]] = {}
    about: dict[tuple[Of, str], Change] = {}
    for change, parts, powers in zip(changes, changed, noise, strict=True):
        now = scoring.value(first, ours, _joined(parts))
        worst_db = min((decibels(one.ratio) for one in powers), default=math.inf)
        # Of 1.0000000000000009 points one is meant.
        point = Point(change.level, now, round(100 * (value - now), 9), worst_db)
        points.setdefault((change.of, change.layer), []).append(point)
        about[change.of, change.layer] = change
    curves = [_curve(about[key], tuple(found), max_drop) for key, found in points.items()]
    curves.sort(key=lambda curve: (of.index(curve.of), -curve.redundant))
    seconds = time.monotonic() - started
    return Sweep(count, scoring.metric, value, max_drop, seconds, tuple(curves), left_out)


def _curve(change: Change, points: tuple[Point, ...], max_drop: float) -> Curve:
    tolerated = None
    for point in points:
        if not point.lost_points <= max_drop:  # NaN is no limit kept
            break
        tolerated = point.level
    share = 0.0
    if tolerated is not None:
        share = {
            "sparsity": tolerated,
            "bits": 1 - tolerated / 32,
            "width": 1 - tolerated,
        }[change.of]
    return Curve(
        change.layer,
        change.kind,
        change.of,
        change.parameters,
        points,
        tolerated,
        share * change.parameters,
    )


def _run(machine: Simulated, change: Change, batch: Arrays, real: Tensors) -> Arrays:
    """Return the results of a batch with one change."""
    if isinstance(change.made, Model):
        found: dict[str, torch.Tensor] = {}
        wanted = set(machine.results)

        def see(name: str, tensor: torch.Tensor) -> None:
            if name in wanted:
                found[name] = tensor

        execute_all(change.made, batch, see)
        return {name: as_array(found[name]) for name in machine.results}
    op = machine.model.graph[change.layer]
    layer = [torch.from_numpy(change.made), machine.real[op.name][1]]
    with torch.no_grad():
        value = machine.compute(op, real, {op.name: layer})
    after = machine.run_after(op.name, value, real)
    return {name: as_array(tensor) for name, tensor in after.items()}


def _joined(parts: Sequence[Arrays]) -> dict[str, npt.NDArray[Any]]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _macs(graph: Graph) -> int:
    return sum(op.rules.macs(op) + 20 * prod(op.out_shape) for op in graph.ops)
