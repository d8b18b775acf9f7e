"""Passes as a command line spells them: ``prune:ratio=0.5,multiple=8`` or ``quantize:static8``."""

from __future__ import annotations

import tomllib
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from device_agents.errors import ConfigError
from device_agents.near_names import did_you_mean, nearest_first
from device_agents.plain_values import refuse_unknown
from models.number_format import FLOAT32, NumberFormat
from pipeline.compress.chain import BY_FORMAT, plan_quantization
from pipeline.compress.passes import PASSES, create

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pipeline.compress.api import Pass

QUANTIZE = "quantize"
_LISTS = ("keep", "float_layers", "features")


def parse_passes(words: Sequence[str], *, images: int, multiple: int = 1) -> tuple[Pass, ...]:
    """Return the passes that words name, in their order.

    Args:
        words: NAME or NAME:OPTION=VALUE,… each; lists are joined by ``+``; quantising is
            ``quantize:FORMAT`` or ``quantize:FORMAT,OPTION=VALUE,…``.
        images: samples to calibrate on, where that is not said.
        multiple: of channels, where that is not said.

    Raises:
        ConfigError: a pass or an option is unknown, or comes after numbers were made smaller.
    """
    found = tuple(_parsed(word, images, multiple) for word in words)
    for one, word, next_word in zip(found, words, words[1:], strict=False):
        if one.quantizes:
            raise ConfigError(f"{word} is followed by {next_word}; numbers are made smaller last")
    return found


def spelled() -> list[str]:
    """Return the names that words begin with: of every pass but those of number formats."""
    return [*(name for name in PASSES.names() if name not in BY_FORMAT.values()), QUANTIZE]


def make_pass(name: str, options: Mapping[str, Any], *, images: int, multiple: int) -> Pass:
    """Return the pass of a name that is among `spelled`, no quantiser, with these options.

    Raises:
        ConfigError: an option is unknown or cannot be.
    """
    usual = {"images": images, "multiple": multiple}
    usual = {option: value for option, value in usual.items() if _has(name, option)}
    return create(name, **{**usual, **options})


def make_quantizer(word: str, scheme: str, options: Mapping[str, Any], *, images: int) -> Pass:
    """Return the pass that brings numbers into a format; `word` begins every sentence.

    Raises:
        ConfigError: there is no such format, or an option is unknown or cannot be.
    """
    chosen = NumberFormat.parse(scheme)
    if chosen == FLOAT32:
        raise ConfigError(f"{word} leaves numbers as they are; leave it out")
    (usual,) = plan_quantization(chosen, images=images)
    kept = {field.name: getattr(usual.options, field.name) for field in fields(usual.options)}
    refuse_unknown(options, [name for name in kept if name != "scheme"], word)
    return create(usual.name, **{**kept, **options})


def _parsed(word: str, images: int, multiple: int) -> Pass:
    name, _, rest = word.partition(":")
    if name == QUANTIZE:
        first, _, others = rest.partition(",")
        if "=" in first:
            first, others = "", rest
        said = _options(word, others)
        if "scheme" in said:
            raise ConfigError(f"{word}: write the number format as quantize:{said['scheme']}")
        return make_quantizer(word, first or "static8", said, images=images)
    if name not in spelled():
        raise ConfigError(_unknown(word, name))
    return make_pass(name, _options(word, rest), images=images, multiple=multiple)


def _has(name: str, option: str) -> bool:
    return option in {field.name for field in fields(PASSES.load(name).Options)}


def _unknown(word: str, name: str) -> str:
    spellings = spelled()
    known = nearest_first(name, spellings)
    if name in PASSES.names():
        return f"{word}: the pass {name!r} is spelled quantize:FORMAT here, as quantize:static8"
    if "," in name or "=" in name:
        return f"{word}: options of a pass follow a colon, as in prune:ratio=0.3,importance=l1"
    return f"no pass {name!r} known; {did_you_mean(name, spellings)}known: {', '.join(known)}"


def parse_options(text: str, number_format: NumberFormat) -> dict[str, Any]:
    """Return further options of the pass that brings a model into a format: ``ranges=mse,…``.

    Raises:
        ConfigError: the pass has no such option, the option cannot be, or it is one of the command.
    """
    said = _options("--options", text)
    flags = {"scheme": "--scheme", "images": "--samples", "float_layers": "--float-layers"}
    for name in said.keys() & flags.keys():
        raise ConfigError(f"--options says {name}; say that by {flags[name]}")
    plan_quantization(number_format, images=1, others=said)
    return said


def _options(word: str, text: str) -> dict[str, Any]:
    """Return what ``OPTION=VALUE,…`` says. Raises ConfigError: it says one twice."""
    found: dict[str, Any] = {}
    for part in filter(None, text.split(",")):
        name, value = _option(word, part)
        if name in found:
            raise ConfigError(f"{word} says {name} twice; say it once")
        found[name] = value
    return found


def _option(word: str, text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"{word}: {text!r} is no option; write OPTION=VALUE, as in ratio=0.5")
    if name in _LISTS:
        return name, value.split("+")
    try:
        return name, tomllib.loads(f"x = {value}")["x"]
    except tomllib.TOMLDecodeError:
        return name, value
