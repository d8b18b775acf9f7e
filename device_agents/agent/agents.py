"""Agents of other versions on this device: files that nobody needs any more are removed.

Hosts with other versions may take turns here, so the ones that were used last stay, and any that is
at work: its process holds the file (`launcher.keep`), of which it still imports parts. As of models
the times of the files count uses, since a board without a clock of its own jumps by years.
"""

import contextlib
import os
from pathlib import Path

from . import launcher

_STAY = 3
_NAMES = "edgewright-agent-*.pyz"


def retire(path: Path) -> None:
    """Count a use of the agent at `path`, and remove those used longest ago."""
    if not path.match(_NAMES):
        return
    # What cannot be removed costs a little of the disk, and nothing else.
    with contextlib.suppress(OSError, OverflowError), launcher.mutex(path.parent):
        files = [other for other in path.parent.glob(_NAMES) if other != path]
        others = sorted((int(other.lstat().st_mtime), other) for other in files)
        if others and int(path.lstat().st_mtime) <= others[-1][0]:
            os.utime(path, (others[-1][0] + 1, others[-1][0] + 1))
        for _, other in others[: max(0, len(others) + 1 - _STAY)]:
            if not launcher.is_held(other):
                launcher.remove(other)
