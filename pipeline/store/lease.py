"""A lease on a device, as its holder has it: renewed, checked before use, confirmed at the end."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

from device_agents.errors import LeaseLost

if TYPE_CHECKING:
    from collections.abc import Callable

    from pipeline.store.lease_book import Claim, LeaseBook

_LOG = logging.getLogger("edgewright.leases")


class Lease:
    """The right to use a device alone, for the `with` block that `Leases.hold` begins.

    `patiently` repeats what a busy database refuses, for as long as was promised.
    """

    def __init__(
        self,
        claim: Claim,
        book: LeaseBook,
        patiently: Callable[[Callable[[], bool]], bool],
        clock: Callable[[], float],
    ) -> None:
        self.claim = claim
        self._book = book
        self._patiently = patiently
        self._clock = clock
        # Never yet: this process may have been stopped since it was given the device.
        self._seen_s = -math.inf

    @property
    def name(self) -> str:
        """The user's name for the device."""
        return self.claim.name

    @property
    def fence(self) -> int | None:
        """A number that rises with every holder of the device."""
        return self.claim.fence

    def renew(self) -> bool:
        """Say that the holder lives; False if the lease is gone. Raises StoreError."""
        asked_s = self._clock()
        kept = self._book.renew(self.claim)
        if kept:
            self._seen_s = asked_s
        return kept

    def keep(self) -> bool:
        """Renew the lease and tell whoever runs this if it is gone. Raises StoreError."""
        kept = self.renew()
        if not kept:
            _LOG.warning("the lease on %s has expired; its measurement is refused", self.name)
        return kept

    def check(self) -> None:
        """Make sure that the device is still this holder's; for right before it is used.

        Asks the database the first time, and then only when the last renewal is so long ago that
        the lease may have ended.

        Raises:
            LeaseLost: others may have the device.
            StoreError: the database is away for longer than was promised to wait.
        """
        if self._clock() - self._seen_s > self._book.ttl_s / 2:
            self.confirm()

    def confirm(self) -> None:
        """Ask the database whether the lease has lasted until now. Raises as `check` does."""
        if not self._patiently(self.renew):
            raise LeaseLost(
                f"the lease on device {self.name!r} ended before the measurement did: this "
                f"process was suspended or cut off from {self._book.place} for more than "
                f"{self._book.ttl_s:g} s; others may have measured meanwhile, so it is refused; "
                "measure again"
            )
