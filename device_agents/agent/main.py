"""The agent: JSON-line calls on stdin, answers on stdout, until `quit` or the end of stdin.

stdout is reserved for the protocol: its descriptor is moved away and descriptor 1 becomes stderr,
so that nothing a C library prints can end up between two answers. Nothing that arrives is executed.
"""

import argparse
import os
import sys
import traceback
import warnings
from pathlib import Path
from typing import Any, Dict, List, Optional

from . import agents, children, clock, facts, jobs, launcher, runtimes, store, supervisor, wire
from .answers import Answers
from .arguments import OF_EVERY_CALL, check
from .releases import Releases
from .resources import Resources
from .sensors import Sensors
from .turns import Turns
from .wire import Refused


class Agent:
    """Answers calls; one at a time, in the order they come."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources

    def answer(self, message: Dict[str, Any]) -> Dict[str, Any]:
        """Return the answer to one call, with the time that it took; raises HostGone."""
        start = clock.current().now_ns()
        answer = self._answer(message)
        answer["busy_ns"] = clock.current().now_ns() - start
        return answer

    def _answer(self, message: Dict[str, Any]) -> Dict[str, Any]:
        try:
            op: Any = message.get("op")
            job = jobs.module(op)
            args = check(op, message.get("args"), dict(job.ARGUMENTS, **OF_EVERY_CALL))
            return {"result": job.answer(args, self._resources)}
        except Refused as error:
            return {"error": {"kind": error.kind, "message": str(error), "detail": error.detail}}
        except children.HostGone:
            raise
        except OSError as error:
            refused = store.disk_error(error, self._resources.store.directory)
            detail = traceback.format_exc()[-4096:]
            return {"error": {"kind": refused.kind, "message": str(refused), "detail": detail}}
        except Exception as error:  # noqa: BLE001  # one bad call must not end the agent
            sentence = "%s: %s" % (type(error).__name__, error)
            detail = traceback.format_exc()[-4096:]
            return {"error": {"kind": "internal", "message": sentence, "detail": detail}}


def serve(agent: Agent, reader: wire.LineReader, out: int) -> None:
    """Answer until `quit` or the end of stdin."""
    # Ends whatever partial line a login script left on stdout.
    os.write(out, b"\n")
    decoder = wire.Decoder()
    while True:
        line = reader.line()
        if line is None:
            return
        call = decoder.feed(line)
        if call is None:
            continue
        answer = agent.answer(call["message"])
        view = memoryview(wire.encode(call["id"], answer))
        while view:
            view = view[os.write(out, view) :]
        if call["message"].get("op") == "quit" and "result" in answer:
            return


def serve_refusal(error: Exception, directory: str, reader: wire.LineReader, out: int) -> None:
    """Answer the first call with the reason why there is no agent."""
    refused = Refused("unsafe_directory", str(error))
    if isinstance(error, OSError):
        refused = store.disk_error(error, directory)
    line = reader.line()
    call = wire.Decoder().feed(line) if line is not None else None
    if call is not None:
        said = {"kind": refused.kind, "message": str(refused), "detail": ""}
        os.write(out, b"\n" + wire.encode(call["id"], {"error": said, "busy_ns": 0}))


def main(argv: Optional[List[str]] = None) -> int:
    """Run the agent; `--child` and `--supervise` are its own use only."""
    parser = argparse.ArgumentParser(prog="edgewright-agent")
    parser.add_argument("--directory")
    parser.add_argument("--no-fork", action="store_true")
    parser.add_argument("--child", action="store_true")
    parser.add_argument("--supervise", action="store_true")
    options = parser.parse_args(argv)
    # One thread in the parent: a forked child inherits no other thread's locks.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if options.child or options.supervise:
        # Those who started this process may end before it does.
        launcher.keep(Path(sys.argv[0]))
    if options.child:
        return children.serve_child()
    if options.supervise:
        write = lambda folder, job_id, answer: Answers(folder).write(job_id, answer)  # noqa: E731
        return supervisor.serve_supervisor(write)
    if not options.directory:
        parser.error("--directory is needed")
    # onnxruntime starts a thread on import; the child runs nothing that it holds.
    warnings.filterwarnings("ignore", message=".*multi-threaded.*fork", category=DeprecationWarning)
    out = os.dup(1)
    os.dup2(2, 1)
    source = os.dup(0)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    fork = children.can_fork() and not options.no_fork
    reader = wire.LineReader(source)
    os.umask(0o077)
    try:
        kept = store.ModelStore(options.directory)
        resources = Resources(
            store=kept,
            releases=Releases(kept),
            turns=Turns(kept.directory, reader, [out, source, kept.lock], fork=fork),
            prepare=runtimes.prepare,
            sensors=Sensors(),
            facts=lambda: facts.hello(sys.argv[0]),
        )
    except (OSError, launcher.Unsafe) as error:
        serve_refusal(error, options.directory, reader, out)
        return 1
    agents.retire(Path(sys.argv[0]))
    try:
        serve(Agent(resources), reader, out)
    except (children.HostGone, BrokenPipeError):
        return 0
    except wire.WireError as error:
        print("edgewright-agent: %s" % error, file=sys.stderr)
        return 1
    finally:
        kept.close()
    return 0
