"""Weights on disk: one .npz of named arrays and a JSON header, never a pickle.

The header carries the digest of spec and arrays, so a damaged file is told from a good one. A
reader never sees half a file: it is written beside its place and then moved there.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from device_agents import bounded
from device_agents.errors import ConfigError
from device_agents.model_files import NETWORK, what_is
from models import npz_file
from models.spec import ArchSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy.typing as npt

Arrays = dict[str, "npt.NDArray[Any]"]

_HEADER = "edgewright.json"


class _Digested(Protocol):
    def digest(self) -> str: ...


Digested = TypeVar("Digested", bound=_Digested)


def digest(what: str, arrays: Mapping[str, npt.NDArray[Any]]) -> str:
    """Return a 16-digit hash of arrays and of what they belong to, such as a spec's digest."""
    sha = hashlib.sha256(what.encode())
    for name, array in sorted(arrays.items()):
        sha.update(f"{name}:{array.dtype}:{array.shape};".encode())
        sha.update(np.ascontiguousarray(array).tobytes())
    return sha.hexdigest()[:16]


def write(path: Path | str, what: str, header: Mapping[str, Any], arrays: Arrays) -> None:
    """Write header and arrays to one .npz; `what` names the contents in the error's sentence.

    Raises:
        ConfigError: if the file cannot be written.
    """
    target = Path(path)
    temporary = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            dir=target.parent, prefix=f".{target.name}.", delete=False
        ) as file:
            temporary = Path(file.name)
            content: dict[str, Any] = {_HEADER: np.array(json.dumps(header)), **arrays}
            np.savez(file, allow_pickle=False, **content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except OSError as error:
        raise ConfigError(f"cannot write the {what} {target}: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def refuse_mismatch(spec: ArchSpec, arrays: Arrays) -> None:
    """Refuse weights that are too few for a spec, before memory is taken for its own.

    Raises:
        ConfigError: a damaged header may ask for any network.
    """
    held = sum(array.size for array in arrays.values())
    if held < spec.weights:
        raise ConfigError(f"{held} weights are not the {spec.weights} of {spec.digest()}")


@dataclass(frozen=True, slots=True)
class _Network:
    spec: ArchSpec
    arrays: Arrays

    def digest(self) -> str:
        return digest(self.spec.digest(), self.arrays)


def check_network(path: Path | str) -> None:
    """Read a network's file, all but its module: without torch, which takes seconds to import.

    Raises:
        ConfigError: as `read`.
    """

    def make(header: dict[str, Any], arrays: Arrays) -> _Network:
        spec = ArchSpec.from_json(header["spec"])
        refuse_mismatch(spec, arrays)
        return _Network(spec, arrays)

    read(path, "network", make)


def read(
    path: Path | str, what: str, make: Callable[[dict[str, Any], Arrays], Digested]
) -> Digested:
    """Return what `make` makes of the header and the arrays that `write` wrote.

    Raises:
        ConfigError: if there is no such file, it is not a `what`, or it is damaged.
    """
    source = Path(path)
    try:
        arrays = npz_file.read(source)
        header = bounded.json_value(str(arrays.pop(_HEADER)))
        made = make(header, arrays)
        good = made.digest() == header["digest"]
    except bounded.Unreadable as error:
        if error.missing:
            raise ConfigError(f"no {what} file {source}") from error
        raise ConfigError(f"cannot read the {what} {source}: {error.reason}") from error
    except (AttributeError, ConfigError, KeyError, TypeError, ValueError, RuntimeError) as error:
        kind = what_is(source)
        if kind == NETWORK:
            raise ConfigError(
                f"{source} is a NumPy archive and not a {what} file of edgewright, or it is "
                "damaged; export or train it again"
            ) from error
        use = kind.advice or "`edgewright bench` times it as it is, `deploy` puts it on a device"
        raise ConfigError(
            f"{source} is not a {what} file of edgewright, a .npz that a run writes: it is "
            f"{kind.words}; {use}"
        ) from error
    if not good:
        raise ConfigError(f"{source} is damaged: its weights do not match their digest")
    return made
