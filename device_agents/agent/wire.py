"""JSON lines with a mark, shared by both ends of the link.

Every line of the protocol begins with `MARK`, so anything else on stdout (login messages, linker
warnings) can be skipped. A message is one or more lines `{"id": n, "part": text}`; the last one
also holds `"end": true`. The parts together are the JSON text of the message, so a long reply needs
no long line, and a stream cut anywhere is a lost link, never a short answer.

What arrives is counted before it is decoded (bounded_json.py): an answer may be anything.
"""

from __future__ import annotations

import json
import os
from typing import Any, Dict, List, Optional

from . import bounded_json

PROTOCOL = 1
MARK = b"\x1eew1 "
# A host that gives up says so before it goes, since a job may outlive its link. No message: nobody
# answers it, and an agent that has no job skips it.
STOP = b"\x1eew-stop\n"
PART_CHARS = 128 * 1024
# JSON escapes (one character may become six bytes) and the envelope.
LINE_LIMIT_BYTES = 6 * PART_CHARS + 1024
# Outputs of a model that was run on a whole data set; every other message is far smaller.
MESSAGE_LIMIT_CHARS = 256 * 1024 * 1024
ANSWER_LIMIT_CHARS = 16 * 1024 * 1024

ERROR_KINDS = (
    "bad_request",  # unknown op, missing or wrong argument
    "no_model",  # the model is not on the device: push it first
    "hash_mismatch",  # a transferred file is not what was announced
    "disk_full",
    "unsafe_directory",  # others could have put something where the agent keeps its files
    "runtime_missing",
    "load_failed",  # the runtime refused the model
    "invoke_failed",  # the runtime loaded the model and failed to run it
    "crashed",  # the child died from a signal
    "timeout",  # the child was killed at its deadline
    "busy",  # other measurements kept the device until the deadline
    "line_too_long",
    "internal",
)


class WireError(Exception):
    """What arrived is not a message of this protocol."""


class Excessive(WireError):
    """A message beyond a bound: it is another program's, so asking again would not help."""


class Refused(Exception):
    """A call that the agent answers with an error: kind (of ERROR_KINDS), one sentence, detail."""

    def __init__(self, kind: str, message: str, detail: str = "") -> None:
        super().__init__(message)
        self.kind = kind
        self.detail = detail


def encode(number: int, message: Dict[str, Any]) -> bytes:
    """Return the lines of one message."""
    text = json.dumps(message, separators=(",", ":"))
    parts = [text[i : i + PART_CHARS] for i in range(0, len(text), PART_CHARS)]
    lines = []
    for index, part in enumerate(parts):
        line: Dict[str, Any] = {"id": number, "part": part}
        if index == len(parts) - 1:
            line["end"] = True
        lines.append(MARK + json.dumps(line, separators=(",", ":")).encode() + b"\n")
    return b"".join(lines)


class Decoder:
    """Puts messages together from lines; lines without the mark are counted and skipped.

    `limit_chars` bounds the message that is waited for.
    """

    def __init__(self, limit_chars: int = MESSAGE_LIMIT_CHARS) -> None:
        self.skipped = 0
        self.limit_chars = limit_chars
        self._number: Optional[int] = None
        self._parts: List[str] = []
        self._chars = 0
        self._marks = 0

    def feed(self, line: bytes) -> Optional[Dict[str, Any]]:
        """Take one line; return {"id": n, "message": …} when it completes a message."""
        # A prompt or a message without a newline may stand before the mark on the same line.
        start = line.find(MARK)
        if start < 0:
            self.skipped += 1
            return None
        try:
            item = bounded_json.loads(line[start + len(MARK) :].decode())
        except ValueError as error:
            raise WireError("not a line of this protocol: %s" % error) from None
        number, part = (item.get("id"), item.get("part")) if isinstance(item, dict) else (0, None)
        if not isinstance(number, int) or not isinstance(part, str):
            raise WireError("not a line of this protocol: no id or no part")
        self._add(number, part)
        if item.get("end") is not True:
            return None
        text, self._number, self._parts = "".join(self._parts), None, []
        return {"id": number, "message": self._decoded(number, text)}

    def _add(self, number: int, part: str) -> None:
        if number != self._number:
            self._number, self._parts, self._chars, self._marks = number, [], 0, 0
        self._chars += len(part)
        self._marks += bounded_json.marks(part)
        if self._chars > self.limit_chars:
            raise Excessive("the message has more than %d characters" % self.limit_chars)
        if self._marks > bounded_json.MARKS_LIMIT:
            raise Excessive("the message has more than %d values" % bounded_json.MARKS_LIMIT)
        self._parts.append(part)

    def _decoded(self, number: int, text: str) -> Dict[str, Any]:
        try:
            message = bounded_json.loads(text, limit_chars=self.limit_chars)
        except bounded_json.JsonRefused as error:
            raise Excessive("the message holds %s" % error) from None
        except ValueError as error:
            raise WireError("message %d is not JSON: %s" % (number, error)) from None
        if not isinstance(message, dict):
            raise WireError("message %d is not a JSON object" % number)
        return message


class LineReader:
    """Reads lines from a file descriptor with its own buffer, so that it can also be polled."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.ended = False
        self._buffer = bytearray()
        self._searched = 0

    def line(self) -> Optional[bytes]:
        """Wait for a line; None at the end of the stream (a partial last line is dropped)."""
        while True:
            found = self._buffer.find(b"\n", self._searched)
            if found >= 0:
                line = bytes(self._buffer[: found + 1])
                del self._buffer[: found + 1]
                self._searched = 0
                return line
            self._searched = len(self._buffer)
            if self._searched > LINE_LIMIT_BYTES:
                raise WireError("line longer than %d bytes" % LINE_LIMIT_BYTES)
            if self.ended:
                return None
            self.poll()

    def asked_to_stop(self) -> bool:
        """Tell whether the host gave up; it may have said so behind half a call."""
        return STOP in self._buffer

    def poll(self) -> None:
        """Read what is there (blocking when nothing is); sets `ended` at the end."""
        chunk = os.read(self.descriptor, 1 << 16)
        if not chunk:
            self.ended = True
        self._buffer += chunk
