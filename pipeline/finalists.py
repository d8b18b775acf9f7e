"""From the search's trials to the winner: train the best few in full, quantise, choose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from device_agents.api import Failure
from device_agents.errors import TargetError, VerificationError
from pipeline.compress.quantization import QuantizationError
from pipeline.outputs import ModelFile, export
from pipeline.search.estimate.measured import HALF_WIDTHS_PER_STDERR
from pipeline.train.parallel import train_all

if TYPE_CHECKING:
    from collections.abc import Sequence

    from models.network import Network
    from models.spec import ArchSpec
    from pipeline.context import Context
    from pipeline.search.api import Trial


@dataclass(frozen=True, slots=True)
class Finalist:
    """A candidate trained in full.

    Attributes:
        index: its place in the search.
        accuracy: of the quantised file on the validation split, 0..1.
    """

    index: int
    trial: Trial[ArchSpec]
    network: Network
    file: ModelFile
    accuracy: float

    @property
    def latency_ms(self) -> float:
        """Latency measured in the search."""
        return self.trial.estimates["latency_ms"].value


def on_target(
    trials: Sequence[Trial[ArchSpec]], target_ms: float
) -> list[tuple[int, Trial[ArchSpec]]]:
    """Return (index, trial) of the candidates that meet the target, best score first.

    A candidate meets it when the upper end of its 95 % interval does; repeats count once.

    Raises:
        TargetError: none does; says how close the best came.
    """
    first: dict[str, tuple[int, Trial[ArchSpec]]] = {}
    for index, trial in enumerate(trials):
        if trial.failure is None:
            first.setdefault(str(trial.spec), (index, trial))
    meeting = [(index, trial) for index, trial in first.values() if upper_ms(trial) <= target_ms]
    if meeting:
        return sorted(meeting, key=lambda item: -item[1].score)
    if not first:
        reason = trials[0].failure.reason if trials and trials[0].failure else "nothing was tried"
        raise TargetError(f"every one of the {len(trials)} candidates failed: {reason}")
    fastest = min((trial for _, trial in first.values()), key=upper_ms)
    raise TargetError(
        f"no candidate meets the target of {target_ms:.4g} ms: the fastest of {len(first)} "
        f"measured took {fastest.estimates['latency_ms'].value:.4g} ms "
        f"(up to {upper_ms(fastest):.4g} ms, proxy accuracy "
        f"{fastest.estimates['accuracy'].value:.1%}); raise target.latency_ratio, "
        "offer fewer or narrower stages, or search longer"
    )


def upper_ms(trial: Trial[ArchSpec]) -> float:
    """Return the upper end of the 95 % interval of a trial's latency."""
    latency = trial.estimates["latency_ms"]
    return latency.value + HALF_WIDTHS_PER_STDERR * latency.stderr


def train_finalists(
    ctx: Context, trials: Sequence[Trial[ArchSpec]], target_ms: float
) -> list[Finalist]:
    """Train the best candidates on target in full and quantise them; the winner comes first.

    The winner is the one whose quantised file is most accurate on the validation split, the
    faster one at equal accuracy.

    Raises:
        TargetError: no candidate meets the target, or none survives training and quantisation.
    """
    chosen = on_target(trials, target_ms)[: ctx.recipe.search.finalists]
    finalists: list[Finalist] = []
    reasons: list[str] = []
    title = f"train {len(chosen)} finalists"
    with ctx.progress.task(title, len(chosen) * ctx.recipe.train.epochs) as task:
        specs = [trial.spec for _, trial in chosen]
        outcomes = train_all(ctx, specs, on_epoch=task.part)
    for (index, trial), trained in zip(chosen, outcomes, strict=True):
        if isinstance(trained, Failure):
            reasons.append(trained.reason)
            ctx.progress.say(f"candidate {index} is dropped: {trained.reason}")
            continue
        try:
            scheme = ctx.recipe.quantize.scheme
            name = f"finalist-{index}"
            file = export(ctx, trained.network, name, ctx.profile.runtime, scheme)
        except (VerificationError, QuantizationError) as error:
            reasons.append(str(error))
            ctx.progress.say(f"candidate {index} is dropped: {error}")
            continue
        finalists.append(Finalist(index, trial, trained.network, file, file.accuracy))
    if not finalists:
        raise TargetError(f"no finalist could be used: {reasons[0]}")
    return sorted(finalists, key=lambda f: (-f.accuracy, f.latency_ms))
