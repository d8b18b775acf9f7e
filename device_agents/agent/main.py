"""The agent: JSON-line calls on stdin, answers on stdout, until `quit` or the end of stdin.

stdout is reserved for the protocol: its descriptor is moved away and descriptor 1 becomes stderr,
so that nothing a C library prints can end up between two answers. Nothing that arrives is executed.
"""

import argparse
import os
import sys
import time
import traceback
import warnings
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Tuple

from . import bench, children, facts, infer, runtimes, sensors, store, wire
from .wire import Refused

JOBS: Dict[str, children.Job] = {"bench": bench.bench, "infer": infer.infer}

_KINDS: Dict[str, Tuple[type, ...]] = {
    "text": (str,),
    "number": (int, float),
    "integer": (int,),
    "list": (list,),
    "flag": (bool,),
}


class Arguments:
    """The arguments of one call, each checked when it is asked for."""

    def __init__(self, values: Any) -> None:
        if not isinstance(values, dict):
            raise Refused("bad_request", "args is not an object")
        self._values: Dict[str, Any] = values

    def take(self, name: str, kind: str, default: Any = None) -> Any:
        """Return the argument; without a default it is required."""
        value = self._values.get(name)
        if value is None:
            if default is None:
                raise Refused("bad_request", "argument %s is missing" % name)
            return default
        wrong_flag = isinstance(value, bool) and kind != "flag"
        if wrong_flag or not isinstance(value, _KINDS[kind]):
            raise Refused("bad_request", "argument %s = %.100r is not a %s" % (name, value, kind))
        return value

    def optional(self, name: str) -> Any:
        """Return the argument or None."""
        return self._values.get(name)


class Agent:
    """Answers calls; one at a time, in the order they come."""

    def __init__(self, directory: str, reader: wire.LineReader, out: int, *, fork: bool) -> None:
        self._store = store.Store(directory)
        self._sensors = sensors.Sensors()
        self._reader = reader
        self._out = out
        self._fork = fork
        self._ops: Dict[str, Callable[[Arguments], Dict[str, Any]]] = {
            name[3:]: getattr(self, name) for name in dir(self) if name.startswith("op_")
        }

    def serve(self) -> None:
        """Answer until `quit` or the end of stdin."""
        # Ends whatever partial line a login script left on stdout.
        os.write(self._out, b"\n")
        decoder = wire.Decoder()
        while True:
            line = self._reader.line()
            if line is None:
                return
            call = decoder.feed(line)
            if call is None:
                continue
            start = time.perf_counter_ns()
            answer = self._answer(call["message"])
            answer["busy_ns"] = time.perf_counter_ns() - start
            self._write(wire.encode(call["id"], answer))
            if call["message"].get("op") == "quit":
                return

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._out, view) :]

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
        if name not in self._ops:
            known = ", ".join(sorted(self._ops))
            raise Refused("bad_request", "no op %.100r known; have %s" % (name, known))
        return self._ops[name]

    def op_hello(self, _: Arguments) -> Dict[str, Any]:
        """Who answers: protocol, agent hash, facts of the device, installed runtimes."""
        answer = facts.hello(sys.argv[0])
        answer["directory"] = self._store.directory
        answer["incoming"] = str(self._store.incoming)
        return answer

    def op_prepare(self, args: Arguments) -> Dict[str, Any]:
        """Import {runtime}, so that later children need not."""
        package, version = runtimes.prepare(args.take("runtime", "text"))
        return {"package": package, "version": version}

    def op_sensors(self, args: Arguments) -> Dict[str, Any]:
        """Read the state; tool answers up to {max_age_s} old."""
        age_s = args.take("max_age_s", "number", 0.0)
        return self._sensors.read(self._store.directory, age_s)

    def op_has(self, args: Arguments) -> Dict[str, Any]:
        """Tell whether model {sha256} is here."""
        return {"has": self._store.has(args.take("sha256", "text"))}

    def op_put(self, args: Arguments) -> Dict[str, Any]:
        """Take the transferred file {path} in as {sha256}; keep at most {keep_bytes} of others."""
        self._store.accept(
            args.take("sha256", "text"),
            args.take("path", "text"),
            args.take("keep_bytes", "integer", 1 << 30),
        )
        return {}

    def op_bench(self, args: Arguments) -> Dict[str, Any]:
        """Time {sha256}, interleaved with {reference_sha256} if given, in a fresh child.

        {spent_ns} is device time that preparing this call has cost: timing lasts longer for it.
        """
        reference = args.optional("reference_sha256")
        job = {
            # The clock is the machine's, so the child can tell what starting it has cost.
            "begun_ns": time.perf_counter_ns(),
            "path": str(self._store.path(args.take("sha256", "text"))),
            "reference_path": str(self._store.path(reference)) if reference else None,
            "max_ns": int(args.take("max_s", "number") * 1e9),
            "spent_ns": args.take("spent_ns", "integer", 0),
        }
        for name in ("warmup_min", "warmup_max", "block"):
            job[name + "_ns"] = int(args.take(name + "_ms", "number") * 1e6)
        for name in ("min_samples", "max_samples", "seed"):
            job[name] = args.take(name, "integer")
        job["target_half_width"] = args.take("target_half_width", "number")
        return self._child("bench", job, args)

    def op_run(self, args: Arguments) -> Dict[str, Any]:
        """Run {sha256} or {release} on {inputs}; with {argmax} only the largest class each.

        A release is {"name", "version"}; it runs from where it lies, its bytes are checked first.
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
        release = args.optional("release")
        if release is None:
            return self._store.path(args.take("sha256", "text"))
        if args.optional("sha256") is not None:
            raise Refused("bad_request", "both sha256 and release are given; give one of them")
        wanted = Arguments(release)
        return self._store.release_path(wanted.take("name", "text"), wanted.take("version", "text"))

    def _child(self, name: str, job: Dict[str, Any], args: Arguments) -> Dict[str, Any]:
        job["runtime"] = args.take("runtime", "text")
        job["threads"] = args.take("threads", "integer", 1)
        job["cpus"] = args.take("cpus", "list", [])
        runtimes.prepare(job["runtime"])
        return children.run_child(
            name,
            JOBS[name],
            job,
            deadline_s=args.take("deadline_s", "number"),
            host=self._reader,
            private=[self._out, self._reader.descriptor],
            fork=self._fork,
        )

    def op_deploy(self, args: Arguments) -> Dict[str, Any]:
        """Copy {sha256} to deployed/{name}/{version}/model.{extension} and make it current."""
        return self._store.deploy(
            args.take("sha256", "text"),
            args.take("name", "text"),
            args.take("version", "text"),
            args.take("extension", "text"),
        )

    def op_releases(self, _: Arguments) -> Dict[str, Any]:
        """List what is deployed."""
        return {"releases": self._store.releases()}

    def op_rollback(self, args: Arguments) -> Dict[str, Any]:
        """Make {version}, or the release before the current one, of {name} current."""
        return self._store.rollback(args.take("name", "text"), args.optional("version"))

    def op_quit(self, _: Arguments) -> Dict[str, Any]:
        """End after this answer."""
        return {}


def main(argv: Optional[List[str]] = None) -> int:
    """Run the agent; `--child` is its own use only (children.py)."""
    parser = argparse.ArgumentParser(prog="edgewright-agent")
    parser.add_argument("--directory")
    parser.add_argument("--no-fork", action="store_true")
    parser.add_argument("--child", action="store_true")
    options = parser.parse_args(argv)
    # One thread in the parent: a forked child inherits no other thread's locks.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if options.child:
        return children.serve_child(JOBS)
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
    try:
        Agent(options.directory, wire.LineReader(source), out, fork=fork).serve()
    except (children.HostGone, BrokenPipeError):
        return 0
    except wire.WireError as error:
        print("edgewright-agent: %s" % error, file=sys.stderr)
        return 1
    return 0
