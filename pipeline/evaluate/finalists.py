"""From the search's finalists to the winner: get their weights, quantise, choose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from device_agents.api import Failure
from device_agents.errors import TargetError, VerificationError
from models.codes import QuantizationError
from pipeline.evaluate.files import export
from pipeline.train.parallel import train_all
from pipeline.train.remembered import finetune_network

if TYPE_CHECKING:
    from collections.abc import Sequence

    from models.network import Network
    from pipeline.evaluate.files import Exports
    from pipeline.formats.written_file import WrittenFile
    from pipeline.measure.form import Form
    from pipeline.search.confirm import Confirmed
    from pipeline.search.estimators import AccuracySource
    from pipeline.search.stage import SearchOutcome
    from pipeline.train.remembered import Training

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
    file: WrittenFile
    accuracy: float

    @property
    def index(self) -> int:
        """Its place in the search."""
        return self.found.index

    @property
    def latency_ms(self) -> float:
        """Latency as measured after the search."""
        return self.found.measured.value


def train_finalists(
    search: SearchOutcome,
    training: Training,
    *,
    accuracy: AccuracySource,
    form: Form,
    to: Exports,
) -> list[Finalist]:
    """Give the search's finalists their weights and quantise them; the winner comes first.

    The winner is the one whose quantised file is most accurate on the validation split, the
    faster one at equal accuracy; one that only just keeps to the target stands behind those that
    do so with something to spare.

    Args:
        search: whose finalists.
        training: in full, from scratch or a little on top of what a supernet gives.
        accuracy: what the search went by: finalists of a supernet come out of it.
        form: what they are written as.
        to: where the files go.

    Raises:
        TargetError: no finalist survives training and quantisation.
    """
    if accuracy.kind == "proxy":
        networks = _train_anew(search, training, to)
    else:
        networks = _take_out(search, training, accuracy, to)
    finalists: list[Finalist] = []
    reasons: list[str] = []
    for found, network in zip(search.finalists, networks, strict=True):
        made = network if isinstance(network, Failure) else _write(found, network, form, to)
        if isinstance(made, Failure):
            reasons.append(made.reason)
            to.bench.events.say(f"candidate {found.index} is dropped: {made.reason}")
            continue
        finalists.append(made)
    if not finalists:
        raise TargetError(f"no finalist could be used: {reasons[0]}")
    return rank(finalists, search.target_ms)


def rank(finalists: Sequence[Finalist], target_ms: float) -> list[Finalist]:
    """Return finalists best first; see `train_finalists`."""

    def worse(finalist: Finalist) -> tuple[bool, float, float]:
        close = finalist.found.upper_ms > (1 - SPARE) * target_ms
        return close, -finalist.accuracy, finalist.latency_ms

    return sorted(finalists, key=worse)


def _train_anew(search: SearchOutcome, training: Training, to: Exports) -> list[Network | Failure]:
    specs = [found.trial.spec for found in search.finalists]
    title = f"train {len(specs)} finalists"
    with to.bench.events.task(title, len(specs) * training.config.epochs) as task:
        outcomes = train_all(specs, training, data=to.data, memo=to.bench.memo, on_epoch=task.part)
    return [o if isinstance(o, Failure) else o.network for o in outcomes]


def _take_out(
    search: SearchOutcome, training: Training, accuracy: AccuracySource, to: Exports
) -> list[Network | Failure]:
    """Take the networks out of the supernet, re-calibrated; train them on if the recipe says so."""
    data, memo, events = to.data, to.bench.memo, to.bench.events
    supernet = accuracy.open_supernet(search.space, data=data, memo=memo, events=events)
    networks = [supernet.network(found.trial.spec) for found in search.finalists]
    epochs = accuracy.supernet.config.finetune_epochs
    if not epochs:
        return list(networks)
    outcomes: list[Network | Failure] = []
    with events.task(f"fine-tune {len(networks)} finalists", len(networks)) as task:
        for network in networks:
            tuned = finetune_network(network, training, epochs=epochs, data=data, memo=memo)
            outcomes.append(tuned if isinstance(tuned, Failure) else tuned.network)
            task.advance()
    return outcomes


def _write(found: Confirmed, network: Network, form: Form, to: Exports) -> Finalist | Failure:
    try:
        file = export(network, f"finalist-{found.index}", form=form, to=to)
    except (VerificationError, QuantizationError) as error:
        return Failure(str(error))
    return Finalist(found, network, file, file.accuracy)
