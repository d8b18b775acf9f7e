"""Weights trained further, so that a network gets back what passes before have cost it.

It learns from the truths, from the model as it came (its teacher), or from both. Weights that are
exactly zero stay zero, so that what was pruned away one by one stays pruned; see
docs/finetuning.md.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from device_agents.api import Failure
from device_agents.errors import ConfigError
from device_agents.plural import number_of
from models.graph_module import GraphModule
from models.model import Model
from pipeline.compress.zeros import Zeros
from pipeline.train.balance import balance_gradients
from pipeline.train.fit import FitOptions, fit

if TYPE_CHECKING:
    from pipeline.compress.api import Needs, Use
    from pipeline.train.fit import Fitted


class Finetune:
    """Trains a network further, by its truths and by the model as it came."""

    name = "finetune"
    version = 1
    takes = Model
    uses: frozenset[Use] = frozenset({"training"})
    quantizes = False
    Options = FitOptions

    def __init__(self, options: FitOptions = FitOptions()) -> None:  # noqa: B008  # frozen
        self.options = options

    def apply(self, what: Model, needs: Needs) -> Model:
        """Return the model with other weights.

        Raises:
            ConfigError: nothing is there to learn from, what is there is none of this network, the
                model holds codes, or the training diverged.
        """
        lessons = needs.require_lessons(self.name)
        module = GraphModule(what)
        balance_gradients(module)
        zeros = Zeros(module)
        found = fit(module, lessons, self.options, name=self.name, after_step=zeros.restore)
        if isinstance(found, Failure):
            raise ConfigError(f"{self.name}: {found.reason}")
        made = module.model()
        done = self._done(found, by_truths=lessons.truths is not None)
        return replace(made, history=(*what.history, done + zeros.words))

    def _done(self, found: Fitted, *, by_truths: bool) -> str:
        options = self.options
        sources = ["truths"] * by_truths + ["its teacher"] * found.taught
        sources += ["its teacher's features"] * bool(options.features)
        where = "" if found.on == "cpu" else f" on {found.on}"
        return (
            f"finetuned {number_of(options.epochs, 'epoch')} on {found.samples} samples by "
            f"{' and '.join(sources)}{where}: loss {found.loss_before:.4g} to {found.loss:.4g}"
        )
