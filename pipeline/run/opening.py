"""Opening a run: its devices, its record in the store, and the lock on it."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path  # noqa: TC003 - of a dataclass
from typing import TYPE_CHECKING, Any, Protocol

from device_agents.errors import ConfigError
from device_agents.runner import Device
from pipeline.measure.bench import DeviceBench
from pipeline.store.memo import Memo
from pipeline.store.run_folder import run_folder
from pipeline.store.run_lock import hold_run
from pipeline.train.loop import use_threads

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from device_agents.api import Leases
    from pipeline.recipe.sections import DeviceSection
    from pipeline.store import Run, Store
    from pipeline.store.events import Events
    from profiles.schema import DeviceProfile


class Plan(Protocol):
    """What is to be done in a run, by which the run is known again: a recipe, say."""

    @property
    def name(self) -> str:
        """What its runs are called."""

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values, to be kept with the run."""

    def digest(self) -> str:
        """Return a hash of every value that a result depends on."""


@dataclass(frozen=True, slots=True)
class OpenRun:
    """A run that this process holds.

    Attributes:
        run: its record.
        bench: its own device.
        others: further devices, in the order in which they were named.
        folder: of its files.
    """

    run: Run
    bench: DeviceBench
    others: tuple[DeviceBench, ...]
    folder: Path


@contextmanager
def open_run(
    plan: Plan,
    profiles: Sequence[DeviceProfile],
    *,
    store: Store,
    leases: Leases,
    events: Events,
    fresh: bool = False,
) -> Iterator[OpenRun]:
    """Open devices and take up the last run of a plan on the first of them, alone.

    Args:
        plan: what is to be done.
        profiles: the run's own device, with its runtime and threads, and others.
        store: where everything is remembered.
        leases: each measurement holds its device alone.
        events: is told how far it is.
        fresh: start a new run instead.

    Raises:
        EdgewrightError: a device that cannot be opened, a run that is being worked on.
    """
    use_threads(1)  # the other cores are for a device on this host and for training processes
    with ExitStack() as stack:
        devices = [stack.enter_context(Device.open(p, leases=leases)) for p in profiles]
        chosen = choose_run(plan, profiles[0], store, fresh=fresh)
        memo = Memo(store, check=stack.enter_context(hold_run(store, chosen)))
        own, *others = (
            DeviceBench(
                device=device,
                digest=device.digest,
                profile=profile,
                memo=memo,
                run_id=chosen.id,
                events=events,
            )
            for device, profile in zip(devices, profiles, strict=True)
        )
        names = " and ".join(device.name for device in devices)
        events.say(f"run {chosen.id} on {names}, stored in {store.place}")
        yield OpenRun(chosen, own, tuple(others), run_folder(store, chosen))


def set_up(profile: DeviceProfile, section: DeviceSection) -> DeviceProfile:
    """Return a device's profile with the runtime and the threads that [device] asks for."""
    return replace(
        profile,
        runtime=section.runtime or profile.runtime,
        threads=section.threads or profile.threads,
    )


def check_different(profiles: Sequence[DeviceProfile]) -> None:
    """Refuse a device that a recipe names twice. Raises ConfigError."""
    names = [profile.name for profile in profiles]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ConfigError(
            f"device {twice[0]!r} is named twice, by device.name and search.also; give each once"
        )


def choose_run(plan: Plan, profile: DeviceProfile, store: Store, *, fresh: bool) -> Run:
    """Return the last run of this plan on this device, or a new one."""
    digest = plan.digest()
    if not fresh and (latest := store.latest_run(digest, profile.name)):
        return latest
    return store.new_run(
        plan.name,
        recipe=plan.to_json(),
        digest=digest,
        device=profile.name,
        version=version("edgewright"),
    )
