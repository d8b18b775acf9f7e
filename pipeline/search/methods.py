"""What `search.strategy` of a recipe may name: a strategy that is asked, or a gradient search."""

from __future__ import annotations

from device_agents.errors import ConfigError
from device_agents.near_names import did_you_mean, nearest_first
from pipeline.search.gradient import GRADIENTS
from pipeline.search.strategy import STRATEGIES


class Methods:
    """Both plugin folders behind one name, as the recipe's reader asks a folder."""

    def names(self) -> list[str]:
        """Return the names of all strategies and gradient searches in alphabetical order."""
        return sorted([*STRATEGIES.names(), *GRADIENTS.names()])

    def resolve(self, name: str) -> str:
        """Return the name as its file spells it.

        Raises:
            ConfigError: neither folder has it; lists the known ones, the nearest first.
        """
        stem = name.replace("-", "_")
        if stem in GRADIENTS.names():
            return stem
        try:
            return STRATEGIES.resolve(name)
        except ConfigError as error:
            known = ", ".join(nearest_first(stem, self.names()))
            raise ConfigError(
                f"no search strategy {name!r} known; {did_you_mean(stem, self.names())}have "
                f"{known}; a new one is one file in pipeline/search/strategy/ or, if it owns its "
                "training, pipeline/search/gradient/"
            ) from error


METHODS = Methods()
