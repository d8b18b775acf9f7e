"""What numbers a network computes with, in the field's terms; imports next to nothing.

    weights       float32 | float16 | int16 | int8 | int4
    activations   float32 | float16 | int16 | int8
    granularity   of the weights' scales: none | tensor | channel (of the output) | codebook
    mode          float         real numbers throughout
                  static        integer activations, whose scales are fixed by calibration
                  dynamic       integer activations, whose scales are found while running
                  weight-only   weights are stored small and computed with as real numbers

A format that people have a short name for is written with that name, any other one as
``mode-weights-activations-granularity``. Names are keys in stores and tables: they stay.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from device_agents.errors import ConfigError

_KNOWN = {
    "weights": ("float32", "float16", "int16", "int8", "int4"),
    "activations": ("float32", "float16", "int16", "int8"),
    "granularity": ("none", "tensor", "channel", "codebook"),
    "mode": ("float", "static", "dynamic", "weight-only"),
}

OTHER_NAMES = {"int8": "static8"}
"""What people call a format -> its name here, which says that its scales are fixed."""


@dataclass(frozen=True, slots=True)
class NumberFormat:
    """The number format of a network: what its files hold and compute with.

    The words are those of the module's table; a word that is none raises ConfigError.
    """

    weights: str = "float32"
    activations: str = "float32"
    granularity: str = "none"
    mode: str = "float"

    def __post_init__(self) -> None:
        """Refuse unknown words."""
        for field in fields(self):
            word, known = getattr(self, field.name), _KNOWN[field.name]
            if word not in known:
                raise ConfigError(
                    f"number format: {field.name} {word!r} is not known; have {', '.join(known)}"
                )

    @property
    def is_static(self) -> bool:
        """Whether the scales of activations are fixed, for which images are needed."""
        return self.mode == "static"

    def __str__(self) -> str:
        """Return the name, as recipes, tables and stores hold it."""
        for name, value in NAMED.items():
            if value == self:
                return name
        return f"{self.mode}-{self.weights}-{self.activations}-{self.granularity}"

    @classmethod
    def parse(cls, text: str) -> NumberFormat:
        """Read a name that `str` gives, or that people use.

        Raises:
            ConfigError: it is none; lists the names.
        """
        name = OTHER_NAMES.get(text, text)
        if name in NAMED:
            return NAMED[name]
        parts = text.rsplit("-", 3)
        if len(parts) != len(_KNOWN):
            names = ", ".join((*NAMED, *OTHER_NAMES))
            raise ConfigError(
                f"no number format {text!r} known; have {names}, or one written as "
                "mode-weights-activations-granularity"
            )
        mode, weights, activations, granularity = parts
        return cls(weights, activations, granularity, mode)


FLOAT32 = NumberFormat()
FLOAT16 = NumberFormat("float16", "float32", "none", "weight-only")
"""Weights of half the size; runtimes that compute in float32 turn them back as they load."""

DYNAMIC8 = NumberFormat("int8", "int8", "channel", "dynamic")
"""int8 weights, beside which activations are made int8 anew at every inference (dynamic range)."""

STATIC8 = NumberFormat("int8", "int8", "channel", "static")
"""Full-integer int8, as TFLite calls it: one scale for each output channel of a convolution."""

STATIC16X8 = NumberFormat("int8", "int16", "channel", "static")
"""int16 activations with int8 weights: nearly as exact as float32, and slow on most processors."""

NAMED = {
    "float32": FLOAT32,
    "float16": FLOAT16,
    "dynamic8": DYNAMIC8,
    "static8": STATIC8,
    "static16x8": STATIC16X8,
}
"""Short names, in the order in which tables show them."""
