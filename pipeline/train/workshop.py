"""What work on the host has in hand: the recipe, its data, and the memo of what was done."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.data.api import Dataset
    from pipeline.recipe.recipe import Recipe
    from pipeline.store import Store
    from pipeline.store.memo import Memo


@dataclass(frozen=True, slots=True, kw_only=True)
class Workshop:
    """What work on the host needs: the recipe, its data, and the memo of what was done.

    Attributes:
        dataset_digest: of `dataset`, which is hashed once.
    """

    recipe: Recipe
    dataset: Dataset
    dataset_digest: str
    memo: Memo

    @property
    def store(self) -> Store:
        """The store that remembers."""
        return self.memo.store
