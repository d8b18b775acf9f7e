"""What every device does alike: one call at a time, under its lease, failures as values."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar

from device_agents import bounded
from device_agents.api import Failure
from device_agents.errors import AgentError, ConfigError, DeviceError, RuntimeMissing
from device_agents.measure.steps import Sent, silent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from device_agents.api import DeviceDescription, Lease, Leases
    from device_agents.measure.steps import Step

_T = TypeVar("_T")

_LEASE_TIMEOUT_S = 3600.0


class Exclusive:
    """The calls to one device: they wait for each other, and for who else holds the device.

    `device_id` returns what tells the device from all others, empty when it does not tell; it is
    called with the lock held.
    """

    def __init__(self, name: str, device_id: Callable[[], str], leases: Leases | None) -> None:
        self.lock = threading.RLock()
        self._name = name
        self._device_id = device_id
        self._leases = leases
        self._held: Lease | None = None

    def attempt(self, work: Callable[[], _T]) -> _T | Failure:
        """Do it alone on the device; what the device raises comes back as a Failure."""
        try:
            with self.hold():
                return work()
        except AgentError as error:
            return Failure(str(error), error.detail, error.retryable, error.kind)
        except RuntimeMissing as error:
            return Failure(str(error), kind="runtime_missing")
        except DeviceError as error:
            return Failure(str(error), "", error.retryable, "link")

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Be alone on the device for a `with` block; raises DeviceError when others keep it."""
        with self.lock:
            if self._leases is None:
                yield
                return
            # Its own identity, since others may know the same device by another name or address.
            key = self._device_id() or self._name
            with self._leases.hold(key, timeout_s=_LEASE_TIMEOUT_S, name=self._name) as lease:
                self._held = lease
                try:
                    yield
                finally:
                    self._held = None

    def check(self) -> None:
        """Raise LeaseLost if the device is others' by now; for right before it is used.

        A process that was suspended for a while goes on where it was, as if nothing had happened.
        """
        held = self._held
        if held is not None:
            held.check()


class LeasedDevice(ABC):
    """A device whose calls are exclusive."""

    def __init__(
        self,
        description: DeviceDescription,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        leases: Leases | None = None,
        on_step: Callable[[Step | Sent], object] = silent,
    ) -> None:
        self._description = description
        self._clock = clock
        self._exclusive = Exclusive(self.name, self._device_id, leases)
        # Called as a file is sent, and with each process of a measurement before it begins.
        self.on_step = on_step

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def name(self) -> str:
        """The user's name for the device."""
        return self._description.name

    @abstractmethod
    def close(self) -> None:
        """End the connection and what runs over it."""

    @abstractmethod
    def _device_id(self) -> str:
        """Return what tells the device from all others; empty when it does not tell."""

    def _on_sent(self, sent_bytes: int, of_bytes: int) -> None:
        self.on_step(Sent(sent_bytes, of_bytes))


def find_model(path: str | Path) -> Path:
    """Return the path of a model file that is there; raises ConfigError."""
    path = Path(path)
    try:
        with bounded.open_file(path, limit_bytes=bounded.MODEL_BYTES):
            return path
    except bounded.Unreadable as error:
        if error.missing:
            raise ConfigError(f"no model file {str(path)!r}; export one first") from error
        raise ConfigError(f"{error}; give a model file") from error
