"""How a process says that it lives, beside its work, to those who wait for what it holds."""

from __future__ import annotations

import getpass
import logging
import os
import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from device_agents.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TTL_S = 15.0
"""After this long a silent holder has lost what it held."""

_LOG = logging.getLogger("edgewright.store")


@contextmanager
def keep_beating(beat: Callable[[], bool], *, every_s: float, what: str) -> Iterator[None]:
    """Call `beat` again and again in a thread, for a `with` block or until it returns False.

    A database that is away is told of, by what is not renewed, and asked again.
    """
    ended = threading.Event()

    def keep_on() -> None:
        while not ended.wait(every_s):
            try:
                if not beat():
                    return
            except StoreError as error:
                _LOG.warning("%s is not renewed: %s", what, error)

    thread = threading.Thread(target=keep_on, name=what, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def this_process() -> str:
    """Return user, computer and process, for who waits for this one."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}, process {os.getpid()}"
