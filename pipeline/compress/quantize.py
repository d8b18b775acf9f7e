"""A float model brought into a number format, with what it may lose and what stays in float32."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from device_agents.errors import ConfigError, TargetError
from models.number_format import STATIC8, NumberFormat
from pipeline.compress.api import Needs
from pipeline.compress.back_off import BackedOff, back_off
from pipeline.compress.chain import apply_passes, plan_quantization, to_model
from pipeline.compress.judging import Lost
from pipeline.compress.passes.ptq import spread_rows
from pipeline.compress.sensitivity import rank_layers
from pipeline.compress.simulated import affordable_samples

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from models.model import Model
    from pipeline.compress.judging import Judge
    from pipeline.compress.passes.ptq import PTQOptions
    from pipeline.compress.passes.small_weights import SmallWeightsOptions
    from pipeline.formats.ends import Array


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a model is to become.

    Attributes:
        number_format: any but float32.
        samples: how many of the inputs calibrate, at most.
        float_layers: names or patterns of ops that stay in float32.
        max_drop: points that it may lose; None to ask nothing.
        options: others of the pass that brings it there.
    """

    number_format: NumberFormat
    samples: int
    float_layers: tuple[str, ...] = ()
    max_drop: float | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def by(cls, options: PTQOptions | SmallWeightsOptions, max_drop: float | None = None) -> Wanted:
        """Return what a pass with these options makes of a model."""
        held = {one.name: getattr(options, one.name) for one in fields(options)}
        number_format = NumberFormat.parse(held.pop("scheme"))
        images, float_layers = held.pop("images", 0), held.pop("float_layers")
        return cls(number_format, images, float_layers, max_drop, held)


def quantize(
    model: Model,
    inputs: Mapping[str, Array] | None,
    wanted: Wanted,
    judge: Judge | None,
    tell: Callable[[str], None] = lambda _: None,
) -> BackedOff:
    """Quantise a model; back off layer by layer where it loses more than it may.

    Args:
        model: in real numbers.
        inputs: of the graph by name, N samples in place of the batch dimension of 1; None for a
            format whose scales are not fixed.
        wanted: what it is to become.
        judge: measures what is lost; None only where nothing is asked of that.
        tell: is told how far it is.

    Raises:
        ConfigError: the model is quantised already, or a pass refuses it.
        TargetError: it cannot be kept from losing more.
    """
    refuse_codes(model)
    tell("calibrating")
    made = quantize_throughout(model, inputs, wanted)
    if judge is None:
        return BackedOff(made, (), Lost(0.0), Lost(0.0))
    limit = float("inf") if wanted.max_drop is None else wanted.max_drop
    return hold(made, inputs, limit, judge, tell)


def hold(
    made: Model,
    inputs: Mapping[str, Array] | None,
    limit: float,
    judge: Judge,
    tell: Callable[[str], None] = lambda _: None,
) -> BackedOff:
    """Leave as few layers of a quantised model in real numbers as it takes.

    Args:
        made: with its weights in real numbers.
        inputs: to rank layers by, as of `quantize`.
        limit: points that it may lose.
        judge: measures what is lost.
        tell: is told how far it is.

    Raises:
        TargetError: it cannot be kept from losing more.
    """
    if not made.number_format.is_static:
        tell("measuring what is lost")
        lost = judge.judge(made)
        if not lost.points <= limit:  # NaN is no limit kept
            raise TargetError(
                f"{made.number_format} loses {lost.points:.2f} points, more than {limit:g}; "
                "float16 loses less, and of static8 layers can be left in float32"
            )
        return BackedOff(made, (), lost, lost)
    count = affordable_samples(made.graph)
    few = {name: x[spread_rows(len(x), count)] for name, x in (inputs or {}).items()}

    def measured(candidate: Model) -> Lost:
        tell("measuring what is lost")
        return judge.judge(candidate)

    return back_off(made, measured, lambda: rank_layers(made, few, tell).layers, most=limit)


def quantize_throughout(model: Model, inputs: Mapping[str, Array] | None, wanted: Wanted) -> Model:
    """Return a model in a number format, whatever it loses: as `quantize`, but for `max_drop`.

    Raises:
        ConfigError: a pass refuses it.
    """
    float_layers = (*wanted.float_layers, *slow_as_codes(model, wanted.number_format))
    passes = plan_quantization(
        wanted.number_format,
        images=wanted.samples,
        float_layers=float_layers,
        others=wanted.options,
    )
    return to_model(apply_passes(model, passes, Needs(inputs=inputs)))


def refuse_codes(model: Model) -> None:
    """Raise ConfigError for a model that is quantised already."""
    if model.number_format.is_static:
        raise ConfigError(
            f"the model is {model.number_format} already; give the float model that it was made "
            "from, or export it in another number format (`edgewright export --scheme float32`)"
        )


def slow_as_codes(model: Model, number_format: NumberFormat) -> list[str]:
    """Return the ops that are quicker as real numbers between codes, and no worse.

    XNNPACK has a hard-swish of real numbers only: as codes each one parts the network in two.
    MobileNetV3-Large at 224 took 8.7 ms in 22 partitions so, and 3.3 ms in one without (LiteRT
    2.3, x86, one thread); float32 took 6.0 ms.
    """
    if number_format != STATIC8:
        return []
    return [op.name for op in model.graph.ops if op.act == "hardswish"]
