"""A recipe: one TOML file that reproduces a run, as typed, frozen values.

The dataclasses here and of its sections (`pipeline.recipe.sections`) are the only description of a
recipe: their types, defaults and bounds drive the reader (`pipeline.recipe.reader`), its sentences
about mistakes, and the check that docs/recipe.md names every key. `--set section.key=value` goes
through the same checks.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping  # noqa: TC003 - the reader evaluates the annotations
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from device_agents.plain_values import bounds
from pipeline.recipe.reader import RecipeError, build, override, read_toml
from pipeline.recipe.sections import (
    USUAL_TASK,
    DataSection,
    DeviceSection,
    ExportSection,
    ModelSection,
    QuantizeSection,
    ReportSection,
    SearchSection,
    TargetSection,
    TrainSection,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Recipe", "RecipeError"]

QUANTIZERS = ("quantize", "qat")
"""Passes after which numbers are codes, as [[compress]] spells them."""

# A release on a device is called <name>-<run number>-<8 hex digits> and may have 64 characters.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,47}")


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that a run depends on, but the device's own profile.

    `name` is what its runs are called; every random draw comes from `seed`. Not every command
    needs [data], [target] and [search]; `need_data` and so on say who misses them. [model] stands
    in place of [search] and [target]. `compress` are the tables [[compress]], a pass each, read by
    `pipeline.compress.recipe_passes`.
    """

    name: str = field(metadata=bounds(filled=True))
    data: DataSection | None = None
    model: ModelSection | None = None
    target: TargetSection | None = None
    search: SearchSection | None = None
    compress: tuple[Mapping[str, Any], ...] = field(
        default=(), metadata=bounds(checked_by="pipeline.compress.recipe_passes:check_tables")
    )
    seed: int = field(default=0, metadata=bounds(low=0, high=2**32 - 1))
    device: DeviceSection = field(default_factory=DeviceSection)
    train: TrainSection = field(default_factory=TrainSection)
    quantize: QuantizeSection = field(default_factory=QuantizeSection)
    export: ExportSection = field(default_factory=ExportSection)
    report: ReportSection = field(default_factory=ReportSection)

    @classmethod
    def load(cls, path: str | Path, overrides: Sequence[str] = ()) -> Self:
        """Read a recipe file; `overrides` are ``section.key=value``, the value as in TOML.

        Raises:
            RecipeError: no such file, not TOML, an unknown key, a wrong or missing value.
        """
        data = read_toml(Path(path))
        for text in overrides:
            data = override(data, text)
        keys = ", ".join(text.partition("=")[0].strip() for text in overrides)
        return build(cls, data, f"{path} (with --set {keys})" if keys else str(path))

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote. Raises RecipeError as `load` does."""
        return build(cls, data, "the stored recipe")

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values, every key present, None where a key is not given.

        The usual task, no model, no passes, nothing of layers and training on the processor are
        left out: recipes had none, and those of before are still the same.
        """
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        if self.data is not None and self.data.task == USUAL_TASK:
            del plain["data"]["task"]
        if self.model is None:
            del plain["model"]
        if self.train.device == "cpu":
            del plain["train"]["device"]
        if not self.compress:
            del plain["compress"]
        if not self.quantize.of_layers:
            del plain["quantize"]["max_drop"], plain["quantize"]["float_layers"]
        return plain

    def digest(self) -> str:
        """Return a 16-digit hash of every value that a result depends on, defaults included.

        Where the page is written is not one of them: another place is no other run.
        """
        plain = self.to_json()
        del plain["report"]
        text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def quantizes(self) -> bool:
        """Whether the passes of [[compress]] end with one that makes numbers smaller."""
        return bool(self.compress) and self.compress[-1].get("pass") in QUANTIZERS

    def need_data(self, command: str) -> DataSection:
        """Return [data]. Raises RecipeError for `edgewright COMMAND` if there is none."""
        if self.data is None:
            raise self._missing("data", command, 'a name such as "images"')
        return self.data

    def need_search(self, command: str) -> SearchSection:
        """Return [search]. Raises RecipeError for `edgewright COMMAND` if there is none."""
        if self.search is None:
            raise self._missing("search", command, "a space and a strategy")
        return self.search

    def need_target(self, command: str) -> TargetSection:
        """Return [target]. Raises RecipeError for `edgewright COMMAND` if there is none."""
        if self.target is None:
            raise self._missing("target", command, 'a baseline such as "mobilenet-v2"')
        return self.target

    def need_model(self, command: str) -> ModelSection:
        """Return [model]. Raises RecipeError for `edgewright COMMAND` if there is none."""
        if self.model is None:
            raise self._missing("model", command, "its file")
        return self.model

    def _missing(self, section: str, command: str, keys: str) -> RecipeError:
        return RecipeError(
            f"the recipe {self.name!r} has no [{section}], which `edgewright {command}` needs; "
            f"add [{section}] with {keys}"
        )

    def problem(self) -> str | None:
        """Return what is wrong with the name, if anything."""
        if _NAME.fullmatch(self.name) is None:
            return (
                f"name = {self.name!r} is not a name; use up to 48 letters, digits and . _ - "
                "(runs and files are called by it)"
            )
        return self._problem_of_numbers() or self._problem_of_model()

    def _problem_of_numbers(self) -> str | None:
        if self.quantizes and self.quantize != QuantizeSection():
            return (
                "the last table of [[compress]] quantises, and [quantize] says how too: drop one "
                '(what [quantize] says stands in that table, as format = "static8")'
            )
        if self.model is None and self.quantize.of_layers:
            return f"quantize.{self.quantize.of_layers} is for a model of your own: add [model]"
        return None

    def _problem_of_model(self) -> str | None:
        if self.model is None:
            return None if self.data is not None else "data is missing; write [data] with a name"
        if self.search is not None or self.target is not None:
            other = "search" if self.search is not None else "target"
            return f"it has [model] and [{other}], and a model is not searched for: drop one"
        if (self.data is None) == (self.model.data is None):
            return "a [model] needs either [data], for pictures, or model.data, for any inputs"
        return None
