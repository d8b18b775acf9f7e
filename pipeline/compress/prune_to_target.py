"""The pass `prune` where a latency is asked for in place of a share of channels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.model import Model
from pipeline.compress.passes.prune import PruneOptions, uses
from pipeline.compress.to_latency import Fitted, prune_to_latency

if TYPE_CHECKING:
    from pipeline.compress.api import Needs, Use
    from pipeline.compress.to_latency import Measure, Target, Tell


class PruneToTarget:
    """Cuts the channels that cost most and matter least, until a latency is met.

    It is given who measures, and is therefore not found by listing, as passes are that need
    nothing but options.

    Attributes:
        fitted: what came of it, once it was applied.
    """

    name = "prune"
    version = 1
    takes: type = Model
    uses: frozenset[Use] = frozenset()
    quantizes = False
    Options: type = PruneOptions

    def __init__(self, options: PruneOptions, target: Target, measure: Measure, tell: Tell) -> None:
        self.options = options
        self.uses = uses(options)
        self.target = target
        self.fitted: Fitted | None = None
        self._measure = measure
        self._tell = tell

    def apply(self, what: Model, needs: Needs) -> Model:
        """Return the model with fewer channels; raises as `prune_to_latency`."""
        self.fitted = prune_to_latency(
            what, self.options, self.target, self._measure, self._tell, lessons=needs.lessons
        )
        return self.fitted.model
