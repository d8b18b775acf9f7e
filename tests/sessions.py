"""Sessions with agents, closed when the block ends."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from device_agents import transports
from device_agents.session import Session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from profiles.schema import DeviceProfile


@contextmanager
def open_sessions() -> Iterator[Callable[..., Session]]:
    """Give what makes a session with a device, by its profile and the agent's flags."""
    with ExitStack() as stack:

        def make(profile: DeviceProfile, *flags: str) -> Session:
            session = Session(
                profile.name,
                lambda: transports.connect(profile),
                directory=profile.directory,
                agent_flags=flags,
            )
            stack.callback(session.close)
            return session

        yield make
