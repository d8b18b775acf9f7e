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
from typing import Any, Callable, Dict, List, Optional

from . import (
    agents,
    bench,
    canary,
    children,
    clock,
    facts,
    infer,
    launcher,
    parts,
    passes,
    releases,
    sensors,
    shapes,
    store,
    supervisor,
    sustain,
    wire,
)
from .arguments import Arguments
from .jobs import Answers, Jobs
from .wire import Refused

JOBS: Dict[str, children.Job] = {
    "bench": bench.bench,
    "infer": infer.infer,
    "memory": passes.memory,
    "profile": passes.profile,
    "sustain": sustain.sustain,
}


class Agent:
    """Answers calls; one at a time, in the order they come.

    Knows no descriptor and starts no process itself: `jobs`, `state` and `tell` (the facts of
    `hello`) are the device's, or those of a simulated one.
    """

    def __init__(
        self,
        kept: store.Store,
        released: releases.Releases,
        jobs: Any,
        *,
        state: Any,
        tell: Callable[[], Dict[str, Any]],
    ) -> None:
        self._store = kept
        self._releases = released
        self._jobs = jobs
        self._sensors = state
        self._tell = tell
        self._ops: Dict[str, Callable[[Arguments], Dict[str, Any]]] = {
            name[3:]: getattr(self, name) for name in dir(self) if name.startswith("op_")
        }

    def answer(self, message: Dict[str, Any]) -> Dict[str, Any]:
        """Return the answer to one call, with the time that it took; raises HostGone."""
        start = clock.current().now_ns()
        answer = self._answer(message)
        answer["busy_ns"] = clock.current().now_ns() - start
        return answer

    def _answer(self, message: Dict[str, Any]) -> Dict[str, Any]:
        try:
            return {"result": self._op(message.get("op"))(Arguments(message.get("args")))}
        except Refused as error:
            return {"error": {"kind": error.kind, "message": str(error), "detail": error.detail}}
        except children.HostGone:
            raise
        except OSError as error:
            refused = store.disk_error(error, self._store.directory)
            detail = traceback.format_exc()[-4096:]
            return {"error": {"kind": refused.kind, "message": str(refused), "detail": detail}}
        except Exception as error:  # noqa: BLE001  # one bad call must not end the agent
            sentence = "%s: %s" % (type(error).__name__, error)
            detail = traceback.format_exc()[-4096:]
            return {"error": {"kind": "internal", "message": sentence, "detail": detail}}

    def _op(self, name: Any) -> Callable[[Arguments], Dict[str, Any]]:
        if not isinstance(name, str) or name not in self._ops:
            known = ", ".join(sorted(self._ops))
            raise Refused("bad_request", "no op %.100r known; have %s" % (name, known))
        return self._ops[name]

    def op_hello(self, _: Arguments) -> Dict[str, Any]:
        """Who answers: protocol, agent hash, facts of the device, installed runtimes."""
        answer = self._tell()
        answer["directory"] = self._store.directory
        answer["incoming"] = str(self._store.incoming)
        return answer

    def op_prepare(self, args: Arguments) -> Dict[str, Any]:
        """Import {runtime}, so that later children need not."""
        package, version = self._jobs.prepare(args.take("runtime", "text"))
        return {"package": package, "version": version}

    def op_sensors(self, args: Arguments) -> Dict[str, Any]:
        """Read the state; tool answers up to {max_age_s} old."""
        age_s = args.take("max_age_s", "number", 0.0)
        return self._sensors.read(self._store.directory, age_s)  # type: ignore[no-any-return]

    def op_has(self, args: Arguments) -> Dict[str, Any]:
        """Tell whether model {sha256} is here."""
        return {"has": self._store.has(args.take("sha256", "text"))}

    def op_put(self, args: Arguments) -> Dict[str, Any]:
        """Take the transferred file {path} in as {sha256}; keep at most {keep_bytes} of others."""
        self._store.accept(
            args.take("sha256", "text"),
            args.take("path", "text"),
            args.take("keep_bytes", "integer", store.KEEP_BYTES),
        )
        return {}

    def op_bench(self, args: Arguments) -> Dict[str, Any]:
        """Time {sha256}, interleaved with {reference_sha256} if given, in a fresh child.

        {shapes} and {reference_shapes} are of inputs that a file leaves open (shapes.py).
        {spent_ns} is device time that preparing this call has cost: timing lasts longer for it.
        """
        reference = args.optional("reference_sha256")
        job = {
            # The clock is the machine's, so the child can tell what starting it has cost.
            "begun_ns": clock.current().now_ns(),
            "path": str(self._store.path(args.take("sha256", "text"))),
            "reference_path": str(self._store.path(reference)) if reference else None,
            "reference_parts": self._parts(args, "reference_parts"),
            "reference_shapes": shapes.checked(args.take("reference_shapes", "object", {})),
            "max_ns": int(args.take("max_s", "number") * 1e9),
            "spent_ns": args.take("spent_ns", "integer", 0),
        }
        for name in ("warmup_min", "warmup_max", "block"):
            job[name + "_ns"] = int(args.take(name + "_ms", "number") * 1e6)
        for name in ("min_samples", "max_samples", "seed"):
            job[name] = args.take(name, "integer")
        job["target_half_width"] = args.take("target_half_width", "number")
        return self._child("bench", job, args)

    def op_canary(self, args: Arguments) -> Dict[str, Any]:
        """Time the canary on {cpus}: nanoseconds now, and at best so far."""
        return canary.canary(self._store.directory, args.take("cpus", "list", []))

    def op_profile(self, args: Arguments) -> Dict[str, Any]:
        """Time every op of {sha256} over {invokes}, with the runtime's own profiler."""
        return self._child("profile", self._pass(args), args)

    def op_memory(self, args: Arguments) -> Dict[str, Any]:
        """Tell the memory that {sha256} takes, loaded and over {invokes}."""
        return self._child("memory", self._pass(args), args)

    def op_sustain(self, args: Arguments) -> Dict[str, Any]:
        """Run {sha256} at full rate for {duration_s}, or until {trip_celsius} is passed."""
        job = {
            "path": str(self._store.path(args.take("sha256", "text"))),
            "duration_ns": int(args.take("duration_s", "number") * 1e9),
            "interval_ns": int(args.take("interval_s", "number") * 1e9),
            "trip_celsius": args.optional("trip_celsius"),
            "seed": args.take("seed", "integer", 0),
        }
        return self._child("sustain", job, args)

    def _pass(self, args: Arguments) -> Dict[str, Any]:
        return {
            "path": str(self._store.path(args.take("sha256", "text"))),
            "invokes": args.take("invokes", "integer"),
        }

    def op_run(self, args: Arguments) -> Dict[str, Any]:
        """Run {sha256}, {release} or {staged} on {inputs}; {argmax}: only the largest class each.

        The latter two are {"name", "version"}; they run from where they lie, checked first.
        """
        inputs = []
        for item in args.take("inputs", "list", []):
            given = Arguments(item)
            part = {"dtype": given.take("dtype", "text"), "shape": given.take("shape", "list")}
            if given.optional("sha256"):
                part["path"] = str(self._store.path(given.take("sha256", "text")))
            else:
                part["data"] = given.take("data", "text")
            inputs.append(part)
        job = {
            "path": str(self._subject(args)),
            "inputs": inputs,
            "argmax": args.take("argmax", "flag", default=False),
        }
        return self._child("infer", job, args)

    def _subject(self, args: Arguments) -> Path:
        given = [
            name for name in ("sha256", "release", "staged") if args.optional(name) is not None
        ]
        if len(given) > 1:
            raise Refused("bad_request", "%s are given; give one of them" % " and ".join(given))
        if given in (["release"], ["staged"]):
            wanted = Arguments(args.optional(given[0]))
            find = self._releases.path if given == ["release"] else self._releases.staged_path
            return find(wanted.take("name", "text"), wanted.take("version", "text"))
        return self._store.path(args.take("sha256", "text"))

    def _parts(self, args: Arguments, name: str) -> Dict[str, str]:
        """Return the files that a model of several finds beside it."""
        return parts.checked(args.take(name, "object", {}), self._store.path)

    def _child(self, name: str, job: Dict[str, Any], args: Arguments) -> Dict[str, Any]:
        job["runtime"] = args.take("runtime", "text")
        job["threads"] = args.take("threads", "integer", 1)
        job["cpus"] = args.take("cpus", "list", [])
        job["parts"] = self._parts(args, "parts")
        job["shapes"] = shapes.checked(args.take("shapes", "object", {}))
        job["xnnpack"] = args.take("xnnpack", "flag", default=True)
        job["optimised"] = args.take("optimised", "flag", default=True)
        self._jobs.prepare(job["runtime"])
        call = {
            "id": args.take("id", "text", ""),
            "rejoin_s": args.take("rejoin_s", "number", 0.0),
            "deadline_s": args.take("deadline_s", "number"),
        }
        try:
            return self._jobs.run(name, JOBS[name], job, call)  # type: ignore[no-any-return]
        finally:
            self._store.job_done()

    def op_stage(self, args: Arguments) -> Dict[str, Any]:
        """Copy {sha256} to where it runs as {name}, {version} and is not in use yet."""
        return self._releases.stage(
            args.take("sha256", "text"),
            args.take("name", "text"),
            args.take("version", "text"),
            args.take("extension", "text"),
        )

    def op_unstage(self, args: Arguments) -> Dict[str, Any]:
        """Forget what is staged as {name}, {version}."""
        self._releases.unstage(args.take("name", "text"), args.take("version", "text"))
        return {}

    def op_activate(self, args: Arguments) -> Dict[str, Any]:
        """Move what is staged as {name}, {version} to deployed/ and make it current."""
        return self._releases.activate(args.take("name", "text"), args.take("version", "text"))

    def op_releases(self, _: Arguments) -> Dict[str, Any]:
        """List what is deployed."""
        return {"releases": self._releases.list()}

    def op_rollback(self, args: Arguments) -> Dict[str, Any]:
        """Make {version}, or the release before the current one, of {name} current."""
        return self._releases.rollback(args.take("name", "text"), args.optional("version"))

    def op_usage(self, args: Arguments) -> Dict[str, Any]:
        """Tell what the models take, and may take at most for a host that keeps {keep_bytes}."""
        return self._store.usage(args.take("keep_bytes", "integer", store.KEEP_BYTES))

    def op_quit(self, _: Arguments) -> Dict[str, Any]:
        """End after this answer; all answers before it have arrived."""
        self._jobs.forget()
        return {}


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
        view = memoryview(wire.encode(call["id"], agent.answer(call["message"])))
        while view:
            view = view[os.write(out, view) :]
        if call["message"].get("op") == "quit":
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
        return children.serve_child(JOBS)
    if options.supervise:
        write = lambda folder, job_id, answer: Answers(folder).write(job_id, answer)  # noqa: E731
        return supervisor.serve_supervisor(JOBS, write)
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
        kept = store.Store(options.directory)
        released = releases.Releases(kept)
        jobs = Jobs(kept.directory, reader, [out, source, kept.lock], fork=fork)
    except (OSError, launcher.Unsafe) as error:
        serve_refusal(error, options.directory, reader, out)
        return 1
    agents.retire(Path(sys.argv[0]))
    tell = lambda: facts.hello(sys.argv[0])  # noqa: E731
    try:
        serve(Agent(kept, released, jobs, state=sensors.Sensors(), tell=tell), reader, out)
    except (children.HostGone, BrokenPipeError):
        return 0
    except wire.WireError as error:
        print("edgewright-agent: %s" % error, file=sys.stderr)
        return 1
    finally:
        kept.close()
    return 0
