"""Recurrent layers of a Keras model: how many steps they take, and written out step by step.

A loop is no op of our graph, and LiteRT runs the ops of one without a delegate; the same steps in a
row are plain ops. Of a long sequence they are too many: converting takes longer than its square.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

MOST_STEPS = 128
"""Steps that are written out, of all layers together: the limit keeps a conversion under a minute
(20 steps 20 s, 120 steps 45 s, 400 steps 260 s of one core), and the file within 2,000 ops."""


@dataclass(slots=True)
class Recurrent:
    """The recurrent layers of a model, counted while it runs.

    Attributes:
        layers: all of them, those within wrappers and models too.
        steps: taken in one inference, once it has run.
    """

    layers: list[Any]
    steps: int = 0
    _open: bool = field(default=False)

    @property
    def stateful(self) -> list[str]:
        """The names of layers that keep a state from one inference to the next."""
        return [layer.name for layer in self.layers if layer.stateful]

    def write_out(self) -> None:
        """Have the layers take their steps in a row from now on, if those are few."""
        if self.layers and not self._open and self.steps <= MOST_STEPS:
            for layer in self.layers:
                layer.unroll = True

    def count(self, sequences: Any) -> None:
        """Add the steps of a sequence (B, T, …)."""
        length = sequences.shape[1]
        self._open |= length is None
        self.steps += length or 0


def find_recurrent(model: Any) -> Recurrent:
    """Return the recurrent layers of a Keras model, and count their steps from now on."""
    import tensorflow as tf

    found = Recurrent(
        [each for each in model._flatten_layers() if isinstance(each, tf.keras.layers.RNN)]  # noqa: SLF001  # layers within wrappers have no other list
    )
    for layer in found.layers:
        layer.inner_loop = _counted(layer.inner_loop, found)
    return found


def _counted(run: Any, found: Recurrent) -> Any:
    def counted(sequences: Any, *args: Any, **named: Any) -> Any:
        found.count(sequences)
        return run(sequences, *args, **named)

    return counted
