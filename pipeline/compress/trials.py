"""Chains of passes tried on a device: made, judged, and timed as the files that would be deployed.

Which there are, and which is taken, `choosing.py` says.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from device_agents.errors import ConfigError, NotMeasured, TargetError, VerificationError
from pipeline.compress.back_off import BackedOff
from pipeline.compress.chain import apply_passes, plan_quantization, to_model
from pipeline.compress.choosing import (
    FINETUNE,
    Choice,
    Figures,
    Goal,
    Tried,
    choose,
    propose_formats,
    propose_pruning,
)
from pipeline.compress.judging import Lost
from pipeline.compress.passes import create
from pipeline.compress.quantize import Wanted, quantize, slow_as_codes
from pipeline.compress.remembered import Made, Memory
from pipeline.compress.to_latency import prune_to_latency
from pipeline.formats.subjects import ModelSubject

if TYPE_CHECKING:
    from collections.abc import Callable

    from models.model import Model
    from models.number_format import NumberFormat
    from pipeline.compress.api import Needs
    from pipeline.compress.choosing import Chain, Skipped
    from pipeline.compress.judging import Judge
    from pipeline.compress.passes.prune import PruneOptions
    from pipeline.compress.to_latency import Care, Measure, Target, Timed


_ROOM = 0.99
"""Share of the target that is pruned to before training: the trained file is timed anew."""


@dataclass(frozen=True, slots=True)
class Effort:
    """What is wanted, and how hard to try.

    Attributes:
        target: latency to be met; None for as fast as can be.
        max_drop: points that may be lost; None to ask nothing.
        pruning: options of the chains that prune.
        images: samples that calibrate, at most.
    """

    target: Target | None
    max_drop: float | None
    pruning: PruneOptions
    images: int


@dataclass(frozen=True, slots=True, eq=False)
class Changed:
    """What a chain makes of a model.

    Attributes:
        model: what is written.
        real: what that computes in real numbers, before numbers were made smaller.
        left: ops that were left in float32 so that it loses no more than it may.
        sha256: of the file that was timed.
        throughout: what it takes with none of them left; None where none is.
    """

    model: Model
    real: Model
    left: tuple[str, ...]
    sha256: str
    throughout: Timed | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """A chain that was tried, what it came to, and what it gave; None where it gave nothing."""

    tried: Tried
    changed: Changed | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Trials:
    """All chains that were tried.

    Attributes:
        goal: what was wanted, in milliseconds.
        trials: the model as it came first, then in the order in which they were tried.
        skipped: chains that were not tried.
        choice: what is taken of them.
    """

    goal: Goal
    trials: tuple[Trial, ...]
    skipped: tuple[Skipped, ...]
    choice: Choice

    @property
    def taken(self) -> Trial | None:
        """The chain that is taken."""
        return next((one for one in self.trials if one.tried is self.choice.taken), None)


def try_chains(
    model: Model,
    needs: Needs,
    judge: Judge,
    measure: Measure,
    effort: Effort,
    *,
    memory: Memory | None = None,
    tell: Callable[[str], None],
) -> Trials:
    """Try number formats, then what prunes where none of them is enough, and choose.

    Args:
        model: in real numbers.
        needs: with inputs where there are samples to calibrate on, with lessons where a pruned
            network can be trained.
        judge: of files beside the model as it came.
        measure: times files on the device; the model as it came first.
        effort: what is wanted, and how hard to try.
        memory: knows trainings of before, and goes on with one that was killed; None keeps nothing.
        tell: is told how far it is.

    Raises:
        ConfigError: the model holds codes.
        NotMeasured: the model as it came cannot be measured.
        VerificationError: its own file does not compute what it computes.
        DeviceError: the device does not answer any more.
    """
    if model.quantization is not None:
        raise ConfigError(
            f"{judge.source.name} is {model.number_format} already; give the float model that it "
            "was made from"
        )
    work = _Trying(model, needs, judge, measure, effort, memory or Memory(), tell)
    chains, skipped = propose_formats(
        judge.format_.number_formats, calibrates=needs.inputs is not None
    )
    work.try_as_it_came(chains[0])
    goal = work.goal
    for chain in chains[1:]:
        work.try_format(chain)
    trains = needs.lessons is not None and needs.lessons.truths is not None
    chains, more = propose_pruning(work.tried, goal, trains=trains)
    for chain in chains:
        work.try_pruning(chain)
    return Trials(goal, tuple(work.trials), (*skipped, *more), choose(work.tried, goal))


@dataclass(slots=True, eq=False)
class _Trying:
    model: Model
    needs: Needs
    judge: Judge
    measure: Measure
    effort: Effort
    memory: Memory
    tell: Callable[[str], None]
    trials: list[Trial] = field(default_factory=list)
    whole_ms: float = 0.0

    @property
    def tried(self) -> list[Tried]:
        return [one.tried for one in self.trials]

    @property
    def goal(self) -> Goal:
        """What is wanted, in milliseconds: a share is known once the model has been measured."""
        target = None if self.effort.target is None else self.effort.target.of(self.whole_ms)
        return Goal(None if target is None else target.latency_ms, self.effort.max_drop)

    def try_as_it_came(self, chain: Chain) -> None:
        self.tell("as it came")
        timed = self.measure(self.model, "whole")
        self.whole_ms = timed.latency_ms
        self.tell("judging it")
        trial = self._figure(chain, self.model, _as_it_is(self.model), timed)
        if trial.tried.refused:
            raise VerificationError(trial.tried.refused)
        self.trials.append(trial)

    def try_format(self, chain: Chain) -> None:
        self._try(chain, lambda: self.model)

    def try_pruning(self, chain: Chain) -> None:
        self._try(chain, lambda: self._cut(chain))

    def _try(self, chain: Chain, make: Callable[[], Model]) -> None:
        """Put what `make` gives in the chain's number format; keep what that comes to."""
        self.tell(chain.name)
        try:
            real = make()
            found = self._encode(chain, real)
            self.tell(f"{chain.name}: timing it")
            timed = self.measure(found.model, "whole")
            codes = None if found.throughout is None else self.measure(found.throughout, "whole")
            self.tell(f"{chain.name}: judging it")
            trial = self._figure(chain, real, found, timed, codes)
        except (ConfigError, TargetError, VerificationError, NotMeasured) as error:
            trial = Trial(Tried(chain, None, str(error)))
        self.trials.append(trial)

    def _figure(
        self, chain: Chain, real: Model, found: BackedOff, timed: Timed, codes: Timed | None = None
    ) -> Trial:
        holds = self.judge.hold_to(ModelSubject(chain.name, real)) if chain.prunes else self.judge
        worth = holds.measure(found.model)
        figures = Figures(
            timed.latency_ms,
            timed.ci95_ms,
            timed.verdict,
            worth.bytes,
            worth.lost.points,
            worth.score,
        )
        tried = Tried(chain, figures, worth.lost.refused)
        return Trial(tried, Changed(found.model, real, found.left, timed.sha256, codes))

    def _encode(self, chain: Chain, real: Model) -> BackedOff:
        """Return the model in the chain's number format, with the ops left in float32 for it.

        Only of static formats layers are left: what another loses too much is refused by figures.
        """
        number_format = chain.number_format
        if number_format is None:
            return _as_it_is(real)
        static = number_format.is_static
        wanted = Wanted(
            number_format, self.effort.images, (), self.effort.max_drop if static else None
        )
        judge = None
        if wanted.max_drop is not None:
            judge = self.judge.hold_to(ModelSubject(chain.name, real))
        return quantize(real, self.needs.inputs if static else None, wanted, judge, self.tell)

    def _cut(self, chain: Chain) -> Model:
        """Return the model with fewer channels, trained where the chain says so."""
        target = self.effort.target
        if target is None:
            raise ConfigError("nothing says how far to cut")
        target = target.of(self.whole_ms)
        if FINETUNE in chain.words:
            target = replace(target, latency_ms=_ROOM * target.latency_ms)
        number_format = chain.number_format
        measure = self.measure if number_format is None else self._measure_in(number_format)
        fitted = prune_to_latency(self.model, self.effort.pruning, target, measure, self.tell)
        if FINETUNE not in chain.words:
            return fitted.model
        self.tell(f"{chain.name}: training it")
        training, cut = create(FINETUNE), fitted.model

        def train(needs: Needs) -> Made:
            return Made(to_model(apply_passes(cut, [training], needs)))

        return self.memory.make(training, cut, self.needs, train, asked={}).model

    def _measure_in(self, number_format: NumberFormat) -> Measure:
        """Return what times networks in a number format, given those in real numbers.

        Those of the table are timed in real numbers, as those of other chains, and scaled by what
        the number format made of the whole network: what that is off by, the rounds correct, whose
        networks are encoded and timed as the files that they would be.
        """
        alone = next(one for one in self.trials if one.tried.chain.number_format == number_format)
        latency_ms = alone.tried.figures.latency_ms if alone.tried.figures else self.whole_ms
        share = latency_ms / self.whole_ms
        left = () if alone.changed is None else alone.changed.left
        floats = (*left, *slow_as_codes(self.model, number_format))
        passes = plan_quantization(number_format, images=self.effort.images, float_layers=floats)

        def measure(model: Model, care: Care) -> Timed:
            if care == "table":
                return _scaled(self.measure(model, care), share)
            return self.measure(to_model(apply_passes(model, passes, self.needs)), care)

        return measure


def _as_it_is(model: Model) -> BackedOff:
    return BackedOff(model, (), Lost(0.0), Lost(0.0))


def _scaled(timed: Timed, share: float) -> Timed:
    low, high = timed.ci95_ms
    return replace(timed, latency_ms=share * timed.latency_ms, ci95_ms=(share * low, share * high))
