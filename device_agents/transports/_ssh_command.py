"""Starts a program by way of a login shell that may be any, and whose start files may print.

A server gives what is to be run to the account's login shell: sh, csh and fish read quotes, line
ends and `!` in ways of their own. So it gets one line that all of them read alike: `sh` and one
word in single quotes, in which the characters that some shell takes as special stand in octal.

The program begins by writing a mark on both outputs. What stands before it is not the program's;
without it there is no program, and what was said instead is the reason.
"""

from __future__ import annotations

import re
import secrets
import shlex
from typing import TYPE_CHECKING

from device_agents.errors import DeviceError, LinkLost
from device_agents.transports._words import quote

if TYPE_CHECKING:
    from collections.abc import Sequence

# What start files print is short. A shell that goes on and on is not waited for.
NOISE_LIMIT_BYTES = 1 << 20

# Special in the quotes of some shell, or in those of the `printf` inside them; and what is no text.
_SPECIAL = re.compile(rb"""['"\\$`!\x00-\x1f\x7f-\xff]""")


class Command:
    """A program to start.

    Attributes:
        program: its name, for sentences.
        line: what the server is given to run.
        mark: what comes first on both outputs once the program runs.
    """

    def __init__(self, argv: Sequence[str]) -> None:
        self.program = argv[0]
        word = secrets.token_hex(16)
        self.mark = f"{word}\n".encode()
        script = f"echo {word} >&2; echo {word}; exec {shlex.join(argv)}"
        plain = _SPECIAL.sub(_octal, script.encode("utf-8", "surrogateescape")).decode("ascii")
        self.line = f"""sh -c 'eval "$(printf %b "{plain}")"'"""

    def own(self, output: bytes) -> bytes:
        """Return what the program itself wrote on an output that may have lost its beginning."""
        _, mark, after = output.partition(self.mark)
        return after if mark else output

    def own_text(self, output: str) -> str:
        """Return the same of an output that was read as text and stripped."""
        return self.own(f"{output}\n".encode()).decode().strip()

    def not_started(self, name: str, code: int, said: bytes) -> DeviceError:
        """Return why device `name` did not start it: what was said instead, and the exit code."""
        words = quote(said[-300:])
        if code < 0:
            return LinkLost(
                f"device {name!r}: the connection ended before {self.program} was started"
                + (f"; it said: {words}" if words else "")
            )
        return DeviceError(
            f"device {name!r}: the account may not run programs there "
            f"({words or f'its shell ended with code {code} and said nothing'}); give it a login "
            "shell such as /bin/sh and no ForceCommand, or correct `user` in the profile"
        )


def _octal(found: re.Match[bytes]) -> bytes:
    return rb"\0%03o" % found[0][0]
