"""A model put through passes one by one, each judged as the file that comes of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from device_agents.errors import ConfigError, TargetError, VerificationError
from models.cost import cost
from models.number_format import NumberFormat
from pipeline.compress.chain import apply_passes, to_model
from pipeline.compress.passes.ptq import PTQ
from pipeline.compress.passes.small_weights import SmallWeights
from pipeline.compress.quantize import Wanted, quantize
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
    """

    name: str
    done: str
    model: Model
    macs: int
    params: int
    worth: Worth
    left: tuple[str, ...] = ()

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
    tell: Callable[[str], None] = lambda _: None,
) -> tuple[Step, ...]:
    """Put a model through passes and judge what each gives.

    Args:
        model: in real numbers.
        passes: with the words that name them, in order; what makes numbers smaller comes last.
        needs: what they may ask for.
        judge: of files beside the model as it came.
        max_drop: points that the last may lose; int8 leaves layers in float32 for it, any other
            pass that loses more is refused. None to ask nothing.
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
    steps = [_step("as it came", "", model, judge)]
    if refused := steps[0].worth.lost.refused:
        raise VerificationError(refused)
    for name, one in passes:
        tell(name)
        steps.append(_applied(name, one, steps[-1], needs, judge, max_drop, tell))
    return tuple(steps)


def _applied(
    name: str,
    one: Pass,
    before: Step,
    needs: Needs,
    judge: Judge,
    max_drop: float | None,
    tell: Callable[[str], None],
) -> Step:
    model, left = before.model, ()
    if isinstance(one, PTQ | SmallWeights):
        options = one.options
        static = isinstance(one, PTQ)
        wanted = Wanted(
            NumberFormat.parse(options.scheme),
            one.options.images if isinstance(one, PTQ) else 0,
            options.float_layers,
            max_drop,
        )
        holds = judge.hold_to(ModelSubject(name, model)) if max_drop is not None else None
        found = quantize(model, needs.inputs if static else None, wanted, holds, tell)
        made, left = found.model, found.left
    else:
        made = to_model(apply_passes(model, [one], needs))
    step = _step(name, made.history[-1], made, judge, left)
    points = step.worth.lost.points
    if max_drop is not None and not points <= max_drop:  # NaN is no limit kept
        raise TargetError(
            f"after {name} the model has lost {points:.2f} points of {judge.unit}, more "
            f"than {max_drop:g}; cut less, or allow more: nothing is trained in between"
        )
    told = f"{step.done} ({_came_to(before, step)})"
    return replace(step, model=replace(made, history=(*made.history[:-1], told)))


def _step(name: str, done: str, model: Model, judge: Judge, left: tuple[str, ...] = ()) -> Step:
    found = cost(model.graph)
    macs = found.macs + found.se_macs
    return Step(name, done, model, macs, found.params, judge.measure(model), left)


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
