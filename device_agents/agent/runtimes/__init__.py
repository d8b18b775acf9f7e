"""The inference runtimes; one file here is one runtime, found by listing this folder.

A runtime file holds:

    PACKAGES    (import name, distribution names) in order of preference
    install     pip requirement for this machine's bitness
    Model       class with the interface below; with packed/ the only place that may import numpy

    Model(path, threads, shapes)
                              load; `shapes` (agent/shapes.py) are of inputs that the file leaves
                              open; raises Refused for those, any exception for a refused model
    .package, .version        which package runs it
    .inputs(), .outputs()     list of {"name", "dtype", "shape", "scale", "zero_point"}; of an
                              output that the file leaves open -1 stands until a run is done
    .fill(seed)               random inputs
    .set_inputs(list[bytes])  raw little-endian arrays, in the order of inputs()
    .invoke()                 the only call that is timed
    .read() -> list[bytes]    outputs, in the order of outputs()
    .partitions() -> int|None delegate partitions
    .ops() -> dict            op name -> count; empty when unknown

It may also hold:

    SETTINGS    names of further keyword arguments of Model, such as xnnpack
    Model.delegation()        {"delegate", "share", "left"}: see `read_delegation`
    Model.settings()          the settings that change the figure, as texts
    profile(path, threads, shapes, *, invokes, folder, data)
                              -> list of {"name", "kind", "where", "samples_ns"}, one per op in
                              execution order; `data` as for set_inputs, empty for random inputs
"""

import functools
import importlib
import importlib.metadata
import importlib.util
import pkgutil
import sys
from typing import Any, Dict, List, Optional, Sequence, Tuple

from ..wire import Refused


def names() -> List[str]:
    """Return the runtimes this agent knows, installed or not."""
    found = (item.name for item in pkgutil.iter_modules(__path__))
    return sorted(name for name in found if not name.startswith("_"))


def module(name: str) -> Any:
    """Return the runtime's module; importing it does not import the runtime itself."""
    if name not in names():
        raise Refused("bad_request", "no runtime %r known; have %s" % (name, ", ".join(names())))
    return importlib.import_module("." + name, __name__)


def find_installed(name: str) -> Optional[Tuple[str, str]]:
    """Return (import name, version) of the package that would run, without importing it."""
    if not module(name).PACKAGES:  # needs none: null
        return name, str(module(name).VERSION)
    for package, distributions in module(name).PACKAGES:
        if importlib.util.find_spec(package) is not None:
            return package, version_of(distributions)
    return None


def version_of(distributions: Sequence[str]) -> str:
    """Return the version of the first of these distributions that is installed, or unknown."""
    for distribution in distributions:
        try:
            return importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "unknown"


def versions() -> Dict[str, str]:
    """Return runtime name -> "package version" of every installed runtime that runs networks."""
    found = {}
    for name in names():
        package = find_installed(name) if module(name).PACKAGES else None
        if package is not None:
            found[name] = "%s %s" % package
    return found


def random_array(seed: int, dtype: Any, shape: Sequence[int]) -> Any:
    """Return a seeded numpy array, which every runtime of networks brings.

    Floats are in [0, 1), 8-bit integers over their range, other integers 0 or 1.
    """
    import numpy as np

    rng = np.random.default_rng(seed)
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return rng.random(tuple(shape), np.float32).astype(kind)
    if kind.itemsize == 1 and kind.kind in "iu":
        limits = np.iinfo(kind)
        return rng.integers(limits.min, limits.max, tuple(shape), kind, endpoint=True)
    # Wider integers are usually indices: 0 and 1 are in range of nearly every table.
    return rng.integers(0, 2, tuple(shape)).astype(kind)


def read_delegation(model: Any) -> Dict[str, Any]:
    """Return who runs the ops of a loaded model.

    `delegate` is its name, empty for none; `share` of the ops that it runs, None when the runtime
    does not tell; `left` the ops that it does not run, name -> count.
    """
    tell = getattr(model, "delegation", None)
    return tell() if tell else {"delegate": "", "share": None, "left": {}}


def read_settings(model: Any) -> Dict[str, str]:
    """Return the settings of a loaded model that differ from its runtime's defaults."""
    tell = getattr(model, "settings", None)
    return tell() if tell else {}


@functools.lru_cache(maxsize=None)
def prepare(name: str) -> Tuple[str, str]:
    """Import the runtime in this process, so that a forked child costs milliseconds.

    Returns (package, version); raises Refused("runtime_missing") with the command that helps.
    """
    known = module(name)
    package = find_installed(name)
    advice = "run `%s -m pip install %s` on the device" % (sys.executable, known.install())
    if package is None:
        looked = ", ".join(import_name for import_name, _ in known.PACKAGES)
        raise Refused(
            "runtime_missing",
            "%s (Python %s, %s bit) has no %s runtime, looked for %s; %s"
            % (
                sys.executable,
                sys.version.split()[0],
                64 if sys.maxsize > 2**32 else 32,
                name,
                looked,
                advice,
            ),
        )
    try:
        known.load(package[0])
    except Exception as error:  # a runtime's import fails in many ways, numpy's ABI among them
        raise Refused(
            "runtime_missing",
            "%s %s is installed for %s and cannot be imported; %s"
            % (package[0], package[1], sys.executable, advice),
            "%s: %s" % (type(error).__name__, error),
        ) from error
    return package
