"""How much the loss of the truths changes where a weight is cut: by its gradient.

Molchanov et al., "Importance Estimation for Neural Network Pruning" (CVPR 2019), equation 8: the
square of a weight times its gradient, each batch by itself, summed over batches. It is summed over
the weights of a channel by who ranks them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from device_agents.errors import ConfigError
from models.graph_module import GraphModule
from pipeline.compress.passes.ptq import spread_rows
from pipeline.train.imitation import Goal, learnt_tensors

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from models.model import Model
    from pipeline.train.lessons import Lessons

SAMPLES = 512
"""Of all that there are, evenly spread."""

_BATCH = 16
"""Small, since gradients of many samples together are near 0 in a network that is trained."""


def taylor_terms(model: Model, lessons: Lessons) -> Mapping[str, npt.NDArray[np.float64]]:
    """Return the terms of each layer's weights, in the graph's layout.

    Raises:
        ConfigError: the lessons are none of this network, have no truths, or outputs that are no
            numbers.
    """
    lessons.check(model.graph)
    if lessons.truths is None:
        raise ConfigError(
            "importance taylor goes by the loss of the truths, and there are none; give --data "
            "with labels, or choose l1 or l2"
        )
    module = GraphModule(model).eval()
    goal = Goal(lessons.task, learnt_tensors(model.graph), scores=False)
    weights = module.layer_weights()
    terms = {name: np.zeros(weight.shape) for name, weight in weights.items()}
    rows = spread_rows(len(lessons), SAMPLES)
    for start in range(0, len(rows), _BATCH):
        chosen = rows[start : start + _BATCH]
        inputs = {name: torch.from_numpy(x[chosen]) for name, x in lessons.inputs.items()}
        module.zero_grad()
        loss = goal.loss(
            module.run(inputs, goal.names), torch.from_numpy(lessons.truths[chosen]), None
        )
        if not torch.isfinite(loss):
            raise ConfigError(
                f"the loss is {float(loss)}, so that no channel can be ranked by its gradient: "
                "take weights from before they were damaged"
            )
        loss.backward()  # type: ignore[no-untyped-call]
        for name, weight in weights.items():
            if weight.grad is not None:
                term = (weight.grad * weight).detach().square()
                terms[name] += term.numpy().astype(np.float64)
    return terms
