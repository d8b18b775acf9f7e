"""What LiteRT prints on stderr although nothing is wrong, swallowed where it is printed.

It comes from C++, past `sys.stderr`, so the descriptor itself is caught. Everything else that was
written meanwhile, by whomever, is written on afterwards.
"""

from __future__ import annotations

import os
import sys
import tempfile
from contextlib import contextmanager
from typing import TYPE_CHECKING

from device_agents.agent.words import NOISE

if TYPE_CHECKING:
    from collections.abc import Iterator

_STDERR = 2


@contextmanager
def without_noise() -> Iterator[None]:
    """Drop the runtime's usual lines from stderr within a `with` block."""
    try:
        kept = os.dup(_STDERR)
    except OSError:  # closed: then nothing can be printed there
        yield
        return
    try:
        with tempfile.TemporaryFile() as caught:
            if sys.stderr is not None:
                sys.stderr.flush()
            os.dup2(caught.fileno(), _STDERR)
            try:
                yield
            finally:
                os.dup2(kept, _STDERR)
                caught.seek(0)
                said = NOISE.sub("", caught.read().decode("utf-8", "surrogateescape"))
                if said:
                    os.write(_STDERR, said.encode("utf-8", "surrogateescape"))
    finally:
        os.close(kept)
