"""Passes in order: what one gives, the next takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from device_agents.errors import ConfigError
from device_agents.model_files import ModelFile
from models.model import Model
from models.number_format import (
    DYNAMIC8,
    FLOAT16,
    FLOAT32,
    STATIC8,
    STATIC16X8,
    NumberFormat,
)
from pipeline.compress.passes import create

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from models.network import Network
    from pipeline.compress.api import Needs, Pass


BY_FORMAT: dict[NumberFormat, str] = {
    FLOAT16: "small_weights",
    DYNAMIC8: "small_weights",
    STATIC8: "ptq",
    STATIC16X8: "ptq",
}
"""Number format -> the pass that brings a float32 model into it."""

FOR_STORAGE = frozenset({"sparsify", "share"})
"""Passes whose gain shows in a packed file, not in the model file itself."""


def apply_passes(
    what: Network | Model | ModelFile, passes: Sequence[Pass], needs: Needs
) -> Network | Model | ModelFile:
    """Put a network through passes; before the first that takes a model, it becomes one.

    Raises:
        ConfigError: a pass takes what the one before does not give, or refuses the network.
    """
    for step in passes:
        what = step.apply(_taken(step, what), needs)
    return what


def plan_quantization(
    number_format: NumberFormat,
    *,
    images: int,
    float_layers: Sequence[str] = (),
    others: Mapping[str, Any] | None = None,
) -> tuple[Pass, ...]:
    """Return the passes that bring a float32 model into a number format.

    `images` is how many of the images calibrate, where that is needed; `float_layers` are names
    or patterns of ops that stay float32; `others` are further options of the pass.

    Raises:
        ConfigError: no pass gives that format, or it has no such option.
    """
    if number_format == FLOAT32:
        return ()
    if number_format not in BY_FORMAT:
        have = ", ".join(map(str, (FLOAT32, *BY_FORMAT)))
        raise ConfigError(f"no pass gives {number_format}; have {have}")
    options: dict[str, Any] = {
        **(others or {}),
        "scheme": str(number_format),
        "float_layers": list(float_layers),
    }
    if number_format.is_static:
        options["images"] = images
    return (create(BY_FORMAT[number_format], **options),)


def to_model(what: Network | Model | ModelFile) -> Model:
    """Return what the last pass gave as what writers take.

    Raises:
        ConfigError: it is a file already.
    """
    if isinstance(what, ModelFile):
        raise ConfigError(f"{what.path} is a file already, which no format writes again")
    return what if isinstance(what, Model) else what.model()


def _taken(step: Pass, what: Network | Model | ModelFile) -> Any:
    if isinstance(what, step.takes):
        return what
    if step.takes is Model and not isinstance(what, ModelFile):
        return to_model(what)
    raise ConfigError(
        f"pass {step.name!r} takes a {step.takes.__name__}, and the pass before it gives a "
        f"{type(what).__name__}: put it earlier in the list"
    )
