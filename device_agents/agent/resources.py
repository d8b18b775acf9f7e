"""What a job may use: the device's own, or that of a simulated one."""

from typing import Any, Callable, Dict, NamedTuple, Tuple

from .releases import Releases
from .store import ModelStore


class Resources(NamedTuple):
    """What a job may use of the device, so that it opens no descriptor and starts no process.

    `turns` does work in a child process when it is its turn (turns.py), `prepare` imports a runtime
    (runtimes.prepare), `sensors` reads the state (sensors.py), `facts` tells what the device is
    (facts.py).
    """

    store: ModelStore
    releases: Releases
    turns: Any
    prepare: Callable[[str], Tuple[str, str]]
    sensors: Any
    facts: Callable[[], Dict[str, Any]]
