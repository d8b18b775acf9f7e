"""Latency from a table: the sum of a network's ops, with the table's own error.

For a search that cannot wait for the device, and for gradient search, which needs the cost of
every option at once. Finalists are measured whole all the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from models.lower import lower
from pipeline.search.api import Estimate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from models.spec import ArchSpec
    from profiles.table import LatencyTable


@dataclass(frozen=True, slots=True)
class TableLatency:
    """Estimator of ``latency_ms`` from a latency table.

    A missing key is no failed candidate but a table for something else: it ends the search with
    the error that names it.
    """

    table: LatencyTable
    metric: str = "latency_ms"

    def estimate(self, specs: Sequence[ArchSpec]) -> list[Estimate]:
        """Return the table's sum for each spec.

        Raises:
            MissingKeysError: some op is not in the table.
        """
        return [
            Estimate(*self.table.latency_ms(op.key for op in lower(spec).ops), source="table")
            for spec in specs
        ]
