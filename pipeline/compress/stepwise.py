"""A model put through passes one by one, each judged as the file that comes of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from device_agents.errors import ConfigError, TargetError, VerificationError
from models.cost import cost
from pipeline.compress.chain import apply_passes, to_model
from pipeline.compress.passes.ptq import PTQ
from pipeline.compress.passes.small_weights import SmallWeights
from pipeline.compress.prune_to_target import PruneToTarget
from pipeline.compress.quantize import Wanted, hold, quantize
from pipeline.compress.remembered import Made, Memory
from pipeline.formats.subjects import ModelSubject

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from models.model import Model
    from pipeline.compress.api import Needs, Pass
    from pipeline.compress.judging import Judge, Worth


@dataclass(frozen=True, slots=True)
class Step:
    """What a model is after a pass.

    Attributes:
        name: the pass as it was asked for.
        done: what it did; empty of the model as it came.
        model: what it gave.
        macs: multiply-accumulates of one inference.
        params: trained numbers.
        worth: beside the model as it came.
        left: ops that were left in float32 so that it loses no more than it may.
        remembered: whether the pass was done before, and only read again.
    """

    name: str
    done: str
    model: Model
    macs: int
    params: int
    worth: Worth
    left: tuple[str, ...] = ()
    remembered: bool = False

    def is_as(self, before: Step) -> bool:
        """Tell whether the pass changed nothing."""
        return self.model.digest() == before.model.digest()


def compress(
    model: Model,
    passes: Sequence[tuple[str, Pass]],
    needs: Needs,
    judge: Judge,
    *,
    max_drop: float | None = None,
    limits: Sequence[float | None] = (),
    memory: Memory | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> tuple[Step, ...]:
    """Put a model through passes and judge what each gives.

    What `memory` knows is not done again, so that a chain that was killed goes on where it was.

    Args:
        model: in real numbers.
        passes: with the words that name them, in order; what makes numbers smaller comes last.
        needs: what they may ask for.
        judge: of files beside the model as it came.
        max_drop: points that the last may lose; int8 leaves layers in float32 for it, any other
            pass that loses more is refused, unless one that trains comes behind it. None to ask
            nothing.
        limits: of each pass, in place of `max_drop`; held whatever comes behind it.
        memory: knows passes and judgements of before, and keeps these; None keeps nothing.
        tell: is told how far it is.

    Returns:
        The model as it came, and what each pass gave.

    Raises:
        ConfigError: the model holds codes, or a pass refuses it.
        TargetError: more is lost than may be.
        VerificationError: the model's own file does not compute what it computes.
    """
    if model.quantization is not None:
        raise ConfigError(
            f"{judge.source.name} is {model.number_format} already; give the float model that it "
            "was made from"
        )
    tell("judging it")
    chain = _Chain(model, needs, judge, memory or Memory(), tell)
    steps = [chain.step("as it came", "", Made(model))]
    if refused := steps[0].worth.lost.refused:
        raise VerificationError(refused)
    asked = limits or (max_drop,) * len(passes)
    for place, ((name, one), limit) in enumerate(zip(passes, asked, strict=True)):
        tell(name)
        steps.append(chain.apply(name, one, steps[-1], limit))
        # What is lost before a training may be got back by it.
        if limits or not any("training" in later.uses for _, later in passes[place + 1 :]):
            chain.check_drop(steps[-1], limit)
    return tuple(steps)


def find_real(passes: Sequence[tuple[str, Pass]], steps: Sequence[Step]) -> Model:
    """Return the network in real numbers that the file after the last pass is held against."""
    last, (_, one) = steps[-1].model, passes[-1]
    if one.quantizes and "training" in one.uses:  # its weights are others than before it
        return replace(last, quantization=None)
    return next(step.model for step in reversed(steps) if step.model.quantization is None)


@dataclass(frozen=True, slots=True)
class _Chain:
    came: Model
    needs: Needs
    judge: Judge
    memory: Memory
    tell: Callable[[str], None]

    def apply(self, name: str, one: Pass, before: Step, limit: float | None) -> Step:
        made = self.make(name, one, before.model, limit)
        step = self.step(name, made.model.history[-1], made)
        told = f"{step.done} ({_came_to(before, step)})"
        model = replace(made.model, history=(*made.model.history[:-1], told))
        return replace(step, model=model)

    def check_drop(self, step: Step, limit: float | None) -> None:
        """Refuse what loses more than it may. Raises TargetError."""
        points = step.worth.lost.points
        if limit is not None and not points <= limit:  # NaN is no limit kept
            raise TargetError(
                f"after {step.name} the model has lost {points:.2f} points of {self.judge.unit}, "
                f"more than {limit:g}; cut less, put a longer finetune behind it, or allow more"
            )

    def make(self, name: str, one: Pass, model: Model, limit: float | None) -> Made:
        if isinstance(one, PruneToTarget):  # it remembers what it measures
            return Made(to_model(apply_passes(model, [one], self.needs)))
        asked: dict[str, Any] = {}
        if one.quantizes and limit is not None:
            judged = self.memory.describe(self.judge, self.came)
            asked = {"max_drop": limit, "judge": judged}

        def work(needs: Needs) -> Made:
            if isinstance(one, PTQ | SmallWeights):
                return self.quantize(name, one, model, needs, limit)
            made = to_model(apply_passes(model, [one], needs))
            if one.quantizes:
                return self.back_off(name, made, needs, limit)
            return Made(made)

        return self.memory.make(one, model, self.needs, work, asked=asked)

    def quantize(
        self, name: str, one: PTQ | SmallWeights, model: Model, needs: Needs, limit: float | None
    ) -> Made:
        wanted = Wanted.by(one.options, limit)
        holds = self.judge.hold_to(ModelSubject(name, model)) if limit is not None else None
        inputs = needs.inputs if isinstance(one, PTQ) else None
        found = quantize(model, inputs, wanted, holds, self.tell)
        return Made(found.model, found.left)

    def back_off(self, name: str, made: Model, needs: Needs, limit: float | None) -> Made:
        """Leave layers of a model that was trained with its codes in float32, as it takes."""
        if limit is None:
            return Made(made)
        judge = self.judge.hold_to(ModelSubject(name, replace(made, quantization=None)))
        found = hold(made, needs.inputs, limit, judge, self.tell)
        return Made(found.model, found.left)

    def step(self, name: str, done: str, made: Made) -> Step:
        found = cost(made.model.graph)
        macs = found.macs + found.se_macs
        worth = self.memory.judge(self.judge, made.model, self.came)
        return Step(name, done, made.model, macs, found.params, worth, made.left, made.remembered)


def _came_to(before: Step, after: Step) -> str:
    """Return what a pass came to, for the history."""
    first, second = before.worth, after.worth
    figures = [f"{first.bytes} to {second.bytes} bytes"]
    if before.macs != after.macs:
        figures.append(f"{before.macs} to {after.macs} MACs")
    if first.score is not None and second.score is not None:
        figures.append(f"score {first.score:.4f} to {second.score:.4f}")
    figures.append(f"agreement {second.agreement:.4f}")
    return "; ".join(figures)
