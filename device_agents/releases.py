"""What is deployed on a device: copied there, checked, put in use, and taken back."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from device_agents import inference
from device_agents.delivery import Parcel
from device_agents.errors import DeadlineExceeded, DeviceError, LinkLost
from device_agents.leased import find_model
from device_agents.refusals import blame_answer
from device_agents.rejoin import REJOIN_S, repeat

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from device_agents.api import (
        DeviceDescription,
        Failure,
        Inference,
        Runs,
        Shapes,
        TensorValue,
    )
    from device_agents.leased import Exclusive
    from device_agents.session import Session

_CALL_TIMEOUT_S = 20.0


class Releases:
    """The releases of one device with the agent; `Device.releases`."""

    def __init__(
        self, session: Session, description: DeviceDescription, exclusive: Exclusive
    ) -> None:
        self._session = session
        self._description = description
        self._exclusive = exclusive

    def deploy(
        self,
        artifact: str | Path | Parcel,
        name: str,
        version: str,
        *,
        check: Callable[[Runs], object],
        runtime: str = "",
        threads: int = 0,
        shapes: Shapes | None = None,
    ) -> str:
        """Put a model in use as `name`, `version`; return its path on the device.

        First it is copied there and its hash compared; then `check` is called with what runs that
        copy; only when it returns is the copy put in use, by one rename. What `check` raises is
        raised on, and what was in use stays in use.

        The same call twice changes nothing, but for a damaged file, which it replaces. Raises
        ConfigError for a file that is not there, AgentError for a bad name or a version that holds
        another model, TransferFailed, LinkLost.
        """
        parcel = Parcel.of(artifact)
        path = find_model(parcel.path)
        timeout_s = _CALL_TIMEOUT_S + path.stat().st_size / 1e6
        release = {"name": name, "version": version}

        def run(inputs: Sequence[TensorValue], *, plain: bool = False) -> Inference:
            how = inference.How(runtime, threads, shapes, plain=plain)
            return inference.run(self._session, self._description, {"staged": release}, inputs, how)

        def attempt() -> dict[str, Any]:
            delivery = self._session.deliver(path, packed=parcel.packed)
            parcel.on_delivered(delivery)
            self._session.call(
                "stage",
                timeout_s=timeout_s,
                sha256=delivery.sha256,
                **release,
                extension=path.suffix.lstrip(".") or "bin",
            )
            try:
                check(run)
                return self._session.call("activate", timeout_s=timeout_s, **release)
            except BaseException as error:
                # What is staged goes with the agent, too; a lost link has ended it.
                if not isinstance(error, (LinkLost, DeadlineExceeded)):
                    with suppress(DeviceError):
                        self._session.call("unstage", timeout_s=_CALL_TIMEOUT_S, **release)
                raise

        # Writing, hashing and running a file would disturb a measurement.
        with self._exclusive.hold():
            answer = repeat(self._session, attempt, rejoin_s=REJOIN_S)
        with blame_answer(self._session.name, "activate"):
            return str(answer["path"])

    def infer(
        self,
        name: str,
        version: str,
        inputs: Sequence[TensorValue],
        *,
        runtime: str = "",
        threads: int = 0,
        timeout_s: float = 300.0,
        shapes: Shapes | None = None,
    ) -> Inference | Failure:
        """Run what was deployed as `name`, `version` from where it lies; else as `Device.infer`.

        A file whose bytes are not those that were deployed is not run: `hash_mismatch`.
        """
        how = inference.How(runtime, threads, shapes, timeout_s=timeout_s)
        release = {"release": {"name": name, "version": version}}

        def attempt() -> Inference:
            return inference.run(self._session, self._description, release, inputs, how)

        return self._exclusive.attempt(lambda: repeat(self._session, attempt, rejoin_s=REJOIN_S))

    def list_all(self) -> list[dict[str, Any]]:
        """Return what is deployed: name, version, sha256, file, current."""
        with self._exclusive.lock:
            answer = self._session.call("releases", timeout_s=_CALL_TIMEOUT_S)
        with blame_answer(self._session.name, "releases"):
            return [dict(item) for item in answer["releases"]]

    def rollback(self, name: str, version: str | None = None) -> str:
        """Make `version`, or the release before the current one, current; return it."""
        with self._exclusive.lock:
            answer = self._session.call(
                "rollback", timeout_s=_CALL_TIMEOUT_S, name=name, version=version
            )
        with blame_answer(self._session.name, "rollback"):
            return str(answer["current"])
