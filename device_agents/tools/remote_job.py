"""A program on the device that outlives the link: started once by id, asked for until it is done.

Everything is POSIX sh over `Transport.run`, for toybox on phones and dash on boards alike. A job
has a folder of its own: `pid`, `out`, `rc` (written last, in one step), `result` (a file that the
program may write) and `seen` (touched whenever the host asks). Starting an id twice starts it once.
A job ends itself at its limit; one that nobody asked for during a minute is ended by the next one.
"""

from __future__ import annotations

import secrets
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from device_agents.errors import AgentError, DeadlineExceeded, DeviceError, LinkLost, Unreachable

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Sequence

    from device_agents.api import Completed, Transport

_T = TypeVar("_T")

RESULT_NAME = "result"

_CALL_TIMEOUT_S = 20.0
# Each look at the job costs the device a `sleep` process.
_LOOKS_PER_CALL = 20
_BUSY_PAUSE_S = 0.5
_RUN_REJOIN_S = 10.0
_KILLED = 128 + 9
_OUTPUT_LIMIT_BYTES = 4 << 20
_RESULT_LIMIT_BYTES = 1 << 20
_BACKOFF_S = (0.1, 0.25, 0.5, 1.0, 2.0)

# In all scripts: $1 mark, $2 folder of jobs, $3 id.
_STOP_PART = """
stop() {
  pid=$(cat "$1/pid" 2>/dev/null)
  # A number may be another program's by now.
  if [ -n "$pid" ] && grep -q "$1" "/proc/$pid/cmdline" 2>/dev/null; then
    kill -9 "-$pid" 2>/dev/null
    kill -9 "$pid" "$(cat "$1/program" 2>/dev/null)" 2>/dev/null
  fi
  rm -rf "./$1"
}
"""
# $4 limit in seconds, then the command. The job is its own process group where setsid is there.
_START = (
    _STOP_PART
    + """
mark=$1 jobs=$2 id=$3 limit=$4; shift 4
umask 077
mkdir -p "$jobs" 2>/dev/null
cd "$jobs" 2>/dev/null || { echo "@$mark refused cannot make $jobs"; exit 0; }
for other in *; do
  [ -d "$other" ] && [ "$other" != "$id" ] || continue
  pid=$(cat "$other/pid" 2>/dev/null)
  if [ ! -e "$other/rc" ] && [ -n "$pid" ] && grep -q "$other" "/proc/$pid/cmdline" 2>/dev/null
  then
    if [ -n "$(find "$other/seen" -mmin +1 2>/dev/null)" ]; then stop "$other"
    else echo "@$mark busy"; exit 0; fi
  elif [ -n "$(find "$other/seen" -mmin +60 2>/dev/null)" ]; then rm -rf "./$other"
  fi
done
mkdir "$id" 2>/dev/null || { [ -d "$id" ] && echo "@$mark started" && exit 0
  echo "@$mark refused cannot write in $jobs"; exit 0; }
cd "$id" || exit 1
: >seen
job='id=$0 own=$1 limit=$2; shift 2
echo $$ >pid.part && mv pid.part pid
ulimit -f 65536 2>/dev/null
"$@" >out 2>&1 </dev/null &
program=$!
echo $program >program
(sleep "$limit"; kill -9 $program) >/dev/null 2>&1 &
watch=$!
wait $program; echo $? >rc.part
mv rc.part rc
[ "$own" = 1 ] && kill -9 0
kill -9 $watch'
if command -v setsid >/dev/null 2>&1; then
  setsid sh -c "$job" "$id" 1 "$limit" "$@" </dev/null >/dev/null 2>&1 &
elif command -v nohup >/dev/null 2>&1; then
  nohup sh -c "$job" "$id" 0 "$limit" "$@" </dev/null >/dev/null 2>&1 &
else
  (trap "" HUP; exec sh -c "$job" "$id" 0 "$limit" "$@") </dev/null >/dev/null 2>&1 &
fi
echo "@$mark started"
"""
)
# $4 looks. The output and the result file follow the mark with their sizes, then the mark again.
_POLL = f"""
mark=$1
cd "$2/$3" 2>/dev/null || {{ echo "@$mark gone"; exit 0; }}
: >seen
looks=0
while [ ! -e rc ] && [ $looks -lt "$4" ]; do
  sleep 0.1 2>/dev/null || sleep 1
  looks=$((looks + 1))
done
if [ ! -e rc ]; then
  pid=$(cat pid 2>/dev/null)
  if [ -z "$pid" ] || kill -0 "$pid" 2>/dev/null || [ -e rc ]; then echo "@$mark running"
  else echo "@$mark gone"; fi
  exit 0
fi
[ -e {RESULT_NAME} ] || : >{RESULT_NAME}
echo "@$mark ended $(cat rc) $(($(wc -c <out))) $(($(wc -c <{RESULT_NAME})))"
head -c {_OUTPUT_LIMIT_BYTES} out
head -c {_RESULT_LIMIT_BYTES} {RESULT_NAME}
echo "@$mark end"
"""
_REMOVE = f'{_STOP_PART}\ncd "$2" 2>/dev/null && [ -d "$3" ] && stop "$3"\necho "@$1 removed"\n'


@dataclass(frozen=True, slots=True)
class Output:
    """What an ended job left: exit code, its output (both streams) and its result file."""

    rc: int
    text: str
    result: bytes


class Link:
    """The transport of one device, made anew after it was lost. For one thread, but for `abort`.

    `before_start` may refuse any job, by raising, right before it is started on the device.
    """

    def __init__(
        self, name: str, connect: Callable[[], Transport], stopped: threading.Event
    ) -> None:
        self._name = name
        self._connect = connect
        self._stopped = stopped
        self._transport: Transport | None = None
        self.before_start: Callable[[], None] = lambda: None

    @property
    def transport(self) -> Transport:
        """The connected transport; raises what connecting raises, and LinkLost once aborted."""
        if self._stopped.is_set():
            raise LinkLost(f"device {self._name!r}: aborted")
        if self._transport is None:
            self._transport = self._connect()
            if self._stopped.is_set():
                self._transport.abort()
        return self._transport

    def repeat(self, action: Callable[[Transport], _T], *, rejoin_s: float) -> _T:
        """Do something that may be repeated; a lost link is made anew for up to `rejoin_s`."""
        lost_at: float | None = None
        tries = 0
        while True:
            try:
                return action(self.transport)
            except (LinkLost, Unreachable, DeadlineExceeded):
                self.drop()
                lost_at = time.monotonic() if lost_at is None else lost_at
                pause_s = _BACKOFF_S[min(tries, len(_BACKOFF_S) - 1)]
                tries += 1
                if time.monotonic() + pause_s - lost_at > rejoin_s or self.pause(pause_s):
                    raise

    def run(self, argv: Sequence[str], *, stdin: bytes = b"", timeout_s: float) -> Completed:
        """Run a short command that may be repeated; see `Transport.run`."""
        return self.repeat(
            lambda transport: transport.run(argv, stdin=stdin, timeout_s=timeout_s),
            rejoin_s=_RUN_REJOIN_S,
        )

    def pause(self, seconds: float) -> bool:
        """Wait; True as soon as the device is aborted."""
        return self._stopped.wait(seconds)

    def drop(self) -> None:
        """Close the connection; the next use makes a new one."""
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.close()

    def abort(self) -> None:
        """End the connection from any thread, for good."""
        self._stopped.set()
        transport = self._transport
        if transport is not None:
            transport.abort()


def run_job(
    link: Link, jobs: str, argv: Sequence[str], *, job_id: str, deadline_s: float, rejoin_s: float
) -> Output:
    """Run a command on the device to its end, across lost links, and remove its traces.

    Raises AgentError (kinds busy, timeout, crashed, disk_full), LinkLost and what connecting
    raises.
    """
    deadline = time.monotonic() + deadline_s
    try:
        _start(link, jobs, argv, job_id, deadline, limit_s=deadline_s, rejoin_s=rejoin_s)
        while True:
            found = link.repeat(lambda transport: _poll(transport, jobs, job_id), rejoin_s=rejoin_s)
            late = time.monotonic() > deadline
            # At its limit the job is killed by its own watch too, which may be first.
            if found is not None and not (late and found.rc == _KILLED):
                return found
            if late:
                raise AgentError(
                    f"{argv[0]} did not end within {deadline_s:g} s",
                    kind="timeout",
                    retryable=True,
                )
    finally:
        with suppress(DeviceError):
            _call(link.transport, _REMOVE, jobs, job_id)


def _start(
    link: Link,
    jobs: str,
    argv: Sequence[str],
    job_id: str,
    deadline: float,
    *,
    limit_s: float,
    rejoin_s: float,
) -> None:
    def attempt(transport: Transport) -> str:
        link.before_start()
        return _call(transport, _START, jobs, job_id, str(int(limit_s) + 1), *argv)[0]

    while (answer := link.repeat(attempt, rejoin_s=rejoin_s)) != "started":
        if answer != "busy":
            raise AgentError(
                f"no job can be started on the device: {answer.removeprefix('refused ')}; is its "
                "disk full or read-only?",
                kind="disk_full",
            )
        if time.monotonic() > deadline or link.pause(_BUSY_PAUSE_S):
            raise AgentError(
                "another measurement keeps the device busy", kind="busy", retryable=True
            )


def _poll(transport: Transport, jobs: str, job_id: str) -> Output | None:
    """Return the output of an ended job, None while it runs."""
    answer, rest = _call(transport, _POLL, jobs, job_id, str(_LOOKS_PER_CALL))
    if answer == "running":
        return None
    if not answer.startswith("ended "):
        raise AgentError(
            "the job has gone from the device: it rebooted, or its files were removed",
            kind="crashed",
            retryable=True,
        )
    try:
        rc, size, result_size = map(int, answer.split()[1:])
    except ValueError:
        raise AgentError(
            "the device could not write down how the job ended; is its disk full?",
            kind="disk_full",
        ) from None
    if size > _OUTPUT_LIMIT_BYTES or result_size > _RESULT_LIMIT_BYTES:
        raise AgentError(
            f"the program printed {size} bytes, more than {_OUTPUT_LIMIT_BYTES}; is it a "
            "benchmark_model?",
            kind="line_too_long",
        )
    return Output(
        rc, rest[:size].decode("utf-8", "replace"), bytes(rest[size : size + result_size])
    )


def _call(
    transport: Transport, script: str, jobs: str, job_id: str, *more: str
) -> tuple[str, bytes]:
    """Run a script; return the words after its mark, and what follows, up to the closing mark.

    Raises LinkLost when the answer is not whole: some transports end early with exit code 0.
    """
    mark = secrets.token_hex(8)
    argv = ["sh", "-c", script, "edgewright-job", mark, jobs, job_id, *more]
    done = transport.run(argv, timeout_s=_CALL_TIMEOUT_S)
    _, _, after = done.stdout.partition(f"@{mark} ".encode())
    line, newline, rest = after.partition(b"\n")
    answer = line.decode("utf-8", "replace").strip()
    whole = bool(newline)
    if answer.startswith("ended "):
        rest, end, _ = rest.rpartition(f"@{mark} end".encode())
        whole = bool(end)
    if not whole:
        said = (done.stderr or done.stdout)[-200:].decode("utf-8", "replace").strip()
        raise LinkLost(f"the device's shell gave no whole answer (it said {said!r})")
    return answer, rest
