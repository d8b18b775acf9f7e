"""From the search's finalists to the winner: get their weights, quantise, choose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from device_agents.api import Failure
from device_agents.errors import TargetError, VerificationError
from models.quantization import QuantizationError
from pipeline.evaluate.files import export
from pipeline.search.estimators import supernet_for
from pipeline.train.parallel import train_all
from pipeline.train.recorded import finetuned_network

if TYPE_CHECKING:
    from collections.abc import Sequence

    from models.network import Network
    from pipeline.formats.model_file import ModelFile
    from pipeline.measure.context import Context
    from pipeline.search.confirm import Confirmed
    from pipeline.search.stage import SearchOutcome

SPARE = 0.03
"""A finalist whose interval ends within so much of the target may miss it when it is measured for
the last time: intervals of one or two percent, of two measurements, lie between."""


@dataclass(frozen=True, slots=True)
class Finalist:
    """A candidate with its final weights.

    Attributes:
        found: what the search and the device said of it.
        accuracy: of the quantised file on the validation split, 0..1.
    """

    found: Confirmed
    network: Network
    file: ModelFile
    accuracy: float

    @property
    def index(self) -> int:
        """Its place in the search."""
        return self.found.index

    @property
    def latency_ms(self) -> float:
        """Latency as measured after the search."""
        return self.found.measured.value


def train_finalists(ctx: Context, search: SearchOutcome) -> list[Finalist]:
    """Give the search's finalists their weights and quantise them; the winner comes first.

    The winner is the one whose quantised file is most accurate on the validation split, the
    faster one at equal accuracy; one that only just keeps to the target stands behind those that
    do so with something to spare.

    Raises:
        TargetError: no finalist survives training and quantisation.
    """
    networks = _from_supernet if ctx.recipe.search.accuracy != "proxy" else _from_scratch
    finalists: list[Finalist] = []
    reasons: list[str] = []
    for found, network in zip(search.finalists, networks(ctx, search), strict=True):
        made = network if isinstance(network, Failure) else _quantised(ctx, found, network)
        if isinstance(made, Failure):
            reasons.append(made.reason)
            ctx.progress.say(f"candidate {found.index} is dropped: {made.reason}")
            continue
        finalists.append(made)
    if not finalists:
        raise TargetError(f"no finalist could be used: {reasons[0]}")
    return ranked(finalists, search.target_ms)


def ranked(finalists: Sequence[Finalist], target_ms: float) -> list[Finalist]:
    """Return finalists best first; see `train_finalists`."""

    def worse(finalist: Finalist) -> tuple[bool, float, float]:
        close = finalist.found.upper_ms > (1 - SPARE) * target_ms
        return close, -finalist.accuracy, finalist.latency_ms

    return sorted(finalists, key=worse)


def _from_scratch(ctx: Context, search: SearchOutcome) -> list[Network | Failure]:
    specs = [found.trial.spec for found in search.finalists]
    title = f"train {len(specs)} finalists"
    with ctx.progress.task(title, len(specs) * ctx.recipe.train.epochs) as task:
        outcomes = train_all(ctx, specs, on_epoch=task.part)
    return [o if isinstance(o, Failure) else o.network for o in outcomes]


def _from_supernet(ctx: Context, search: SearchOutcome) -> list[Network | Failure]:
    """Take the networks out of the supernet, re-calibrated; train them on if the recipe says so."""
    supernet = supernet_for(ctx, search.space)
    networks = [supernet.network(found.trial.spec) for found in search.finalists]
    epochs = ctx.recipe.search.supernet.finetune_epochs
    if not epochs:
        return list(networks)
    outcomes: list[Network | Failure] = []
    with ctx.progress.task(f"fine-tune {len(networks)} finalists", len(networks)) as task:
        for network in networks:
            tuned = finetuned_network(ctx, network, epochs)
            outcomes.append(tuned if isinstance(tuned, Failure) else tuned.network)
            task.advance()
    return outcomes


def _quantised(ctx: Context, found: Confirmed, network: Network) -> Finalist | Failure:
    try:
        name = f"finalist-{found.index}"
        file = export(ctx, network, name, ctx.profile.runtime, ctx.recipe.quantize.scheme)
    except (VerificationError, QuantizationError) as error:
        return Failure(str(error))
    return Finalist(found, network, file, file.accuracy)
