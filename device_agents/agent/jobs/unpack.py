"""Take a file in that was transferred packed (packed/), as the model that is inside."""

import os
from pathlib import Path
from typing import Any, Callable, Dict

from .. import clock, store
from ..arguments import Argument
from ..resources import Resources
from ..wire import Refused

ARGUMENTS = {
    "sha256": Argument("text"),  # of what is inside
    "path": Argument("text"),
    "keep_bytes": Argument("integer", default=store.KEEP_BYTES),  # of other models
    "deadline_s": Argument("number"),
}


def answer(args: Dict[str, Any], resources: Resources) -> Dict[str, Any]:
    """Return {"unpack_ns"}, the time in the child that unpacked it; neither file stays here.

    Nothing is in the models before the hash of the whole has been compared.
    """
    wanted, source = store.check_sha(args["sha256"]), resources.store.transferred(args["path"])
    target = source.with_name(source.name + ".unpacked")
    order = {
        "sha256": wanted,
        "source": str(source),
        "target": str(target),
        "directory": resources.store.directory,
    }
    call = {"id": "", "rejoin_s": 0.0, "deadline_s": args["deadline_s"]}
    try:
        told: Dict[str, Any] = resources.turns.run("unpack", order, call)
        resources.store.accept(wanted, str(target), args["keep_bytes"])
        return told
    finally:
        for path in (source, target):
            if os.path.lexists(str(path)):
                path.unlink()


def work(order: Dict[str, Any], stage: Callable[[str], None]) -> Dict[str, Any]:
    """Unpack it; what stands at the target after an error is worthless."""
    stage("importing numpy")
    try:
        from ..packed import container
        from ..packed.cursor import Damaged, Newer
    except ImportError as error:
        sentence = "no numpy, which unpacking takes: %s; send the file as it is" % error
        raise Refused("bad_request", sentence) from error
    stage("unpacking")
    begun_ns = clock.current().now_ns()
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with Path(order["source"]).open("rb") as source:
            size = os.fstat(source.fileno()).st_size
            # Before a byte is written: it may be another model's.
            inside = container.read_header(source, size).sha256
            if inside != order["sha256"]:
                sentence = "what arrived packed is %s instead of %s"
                raise Refused("hash_mismatch", sentence % (inside[:12], order["sha256"][:12]))
            source.seek(0)
            with os.fdopen(os.open(order["target"], flags, 0o600), "w+b") as target:
                container.unpack(source, size, target)
    except Newer as error:
        raise Refused("bad_request", "the packed file cannot be unpacked: %s" % error) from error
    except Damaged as error:
        sentence = "the packed file did not arrive as it was: %s; deleted, send again"
        raise Refused("hash_mismatch", sentence % error) from error
    except FileNotFoundError:
        sentence = "nothing was transferred to %s" % order["source"]
        raise Refused("bad_request", sentence) from None
    except OSError as error:
        raise store.disk_error(error, order["directory"]) from error
    return {"unpack_ns": clock.current().now_ns() - begun_ns}
