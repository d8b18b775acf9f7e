"""Calls and their answers over one stream to an agent, one after the other."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from device_agents.agent import wire
from device_agents.errors import DeadlineExceeded, DeviceError, LinkLost

if TYPE_CHECKING:
    from collections.abc import Callable

    from device_agents.api import Stream

_SKIPPED_LINES = 1000
_STOP_TIMEOUT_S = 0.2
_LARGE_ANSWERS = ("run",)  # the outputs of a model


class Conversation:
    """Numbers the calls over a stream and finds the answer to each; `clock` is in seconds."""

    def __init__(self, name: str, stream: Stream, clock: Callable[[], float]) -> None:
        self._name = name
        self._stream = stream
        self._clock = clock
        self._decoder = wire.Decoder()
        self._number = 0

    def ask(self, op: str, args: dict[str, Any], *, timeout_s: float) -> dict[str, Any]:
        """Make one call and return its answer: {"busy_ns"} with "result" or "error".

        Raises wire.WireError for an answer that cannot be read, LinkLost, DeadlineExceeded; after
        each of them the stream is out of step.
        """
        self._number += 1
        deadline = self._clock() + timeout_s
        self._decoder.limit_chars = (
            wire.MESSAGE_LIMIT_CHARS if op in _LARGE_ANSWERS else wire.ANSWER_LIMIT_CHARS
        )
        call = wire.encode(self._number, {"op": op, "args": args})
        self._stream.write(call, timeout_s=timeout_s)
        answer = self._answer(deadline, op, timeout_s)
        if not isinstance(answer.get("busy_ns"), int) or not isinstance(
            answer.get("error", answer.get("result")), dict
        ):
            raise LinkLost(f"device {self._name!r}: {op}: the answer is not the agent's")
        return answer

    def _answer(self, deadline: float, op: str, timeout_s: float) -> dict[str, Any]:
        for _ in range(_SKIPPED_LINES + wire.MESSAGE_LIMIT_CHARS // wire.PART_CHARS):
            left_s = max(0.0, deadline - self._clock())
            try:
                line = self._stream.read_line(timeout_s=left_s, limit_bytes=wire.LINE_LIMIT_BYTES)
            except DeadlineExceeded:
                raise DeadlineExceeded(
                    f"device {self._name!r} did not answer {op} within {timeout_s:g} s"
                ) from None
            skipped = self._decoder.skipped
            item = self._decoder.feed(line)
            if self._decoder.skipped > _SKIPPED_LINES:
                raise LinkLost(
                    f"device {self._name!r} sent {skipped} lines that are not the agent's; is "
                    f"{line[:60]!r} printed by a login script?"
                )
            if item is not None and item["id"] == self._number:
                message: dict[str, Any] = item["message"]
                return message
        raise LinkLost(f"device {self._name!r} sent no end of its answer to {op}")


def tell_stop(stream: Stream) -> None:
    """Ask the agent to end its job, which may outlive the link; without waiting for it to do so."""
    with suppress(DeviceError):
        stream.write(wire.STOP, timeout_s=_STOP_TIMEOUT_S)
