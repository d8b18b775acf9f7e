"""A network with its weights and what was done to it; on disk one .npz, never a pickle."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from device_agents.errors import ConfigError
from models.build import build
from models.spec import ArchSpec

if TYPE_CHECKING:
    import numpy.typing as npt
    from torch import nn

_HEADER = "edgewright.json"
_VERSION = 1


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """A trained or trainable network.

    Attributes:
        spec: what it is.
        module: its weights, with the state of `models.build.build(spec)`.
        history: what was done to it, in order, a readable line each.
    """

    spec: ArchSpec
    module: nn.Module
    history: tuple[str, ...] = ()

    def digest(self) -> str:
        """Return a 16-digit hash of spec and weights (not of the history)."""
        sha = hashlib.sha256(self.spec.digest().encode())
        for name, array in sorted(self._arrays().items()):
            sha.update(f"{name}:{array.dtype}:{array.shape};".encode())
            sha.update(np.ascontiguousarray(array).tobytes())
        return sha.hexdigest()[:16]

    def save(self, path: Path | str) -> None:
        """Write spec, weights and history to one .npz; a reader never sees half a file.

        Raises:
            ConfigError: if the file cannot be written.
        """
        target = Path(path)
        header = {
            "version": _VERSION,
            "spec": self.spec.to_json(),
            "history": self.history,
            "digest": self.digest(),
        }
        temporary = None
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(
                dir=target.parent, prefix=f".{target.name}.", delete=False
            ) as file:
                temporary = Path(file.name)
                arrays: dict[str, Any] = {_HEADER: np.array(json.dumps(header)), **self._arrays()}
                np.savez(file, allow_pickle=False, **arrays)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
        except OSError as error:
            raise ConfigError(
                f"cannot write the network {target}: {error.strerror or error}"
            ) from error
        finally:
            if temporary is not None:
                temporary.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: Path | str) -> Network:
        """Read what `save` wrote, into a module in evaluation mode.

        Raises:
            ConfigError: if there is no such file, it is not a network, or it is damaged.
        """
        source = Path(path)
        try:
            with source.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
                header = json.loads(str(file[_HEADER]))
                arrays = {name: file[name] for name in file.files if name != _HEADER}
            spec = ArchSpec.from_json(header["spec"])
            module = build(spec, generator=torch.Generator())
            module.load_state_dict({name: torch.from_numpy(a) for name, a in arrays.items()})
            network = cls(spec, module.eval(), tuple(header["history"]))
        except FileNotFoundError as error:
            raise ConfigError(f"no network file {source}") from error
        except OSError as error:
            raise ConfigError(
                f"cannot read the network {source}: {error.strerror or error}"
            ) from error
        except (
            *(ConfigError, EOFError, KeyError, TypeError, ValueError, RuntimeError),
            zipfile.BadZipFile,
        ) as error:
            raise ConfigError(
                f"{source} is not a network file of edgewright, or it is damaged; "
                "export or train it again"
            ) from error
        if network.digest() != header.get("digest"):
            raise ConfigError(f"{source} is damaged: its weights do not match their digest")
        return network

    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        state = self.module.state_dict()
        return {name: tensor.detach().cpu().numpy() for name, tensor in state.items()}
