"""A network with its weights and what was done to it; on disk one .npz, never a pickle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from models import weights_file
from models.build import build
from models.fold import fold
from models.lower import lower
from models.model import Model
from models.spec import ArchSpec

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

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
        return weights_file.digest(self.spec.digest(), self._arrays())

    def model(self) -> Model:
        """Return its ops with their weights, batch normalisation folded into them.

        Raises:
            VerificationError: a layer with which nothing can be computed (`models.fold.fold`).
        """
        graph = lower(self.spec)
        done = "folded batch normalisation into the layers before"
        return Model(graph, fold(graph, self.module), history=(*self.history, done))

    def save(self, path: Path | str) -> None:
        """Write spec, weights and history to one .npz; a reader never sees half a file.

        Raises:
            ConfigError: if the file cannot be written.
        """
        header = {
            "version": _VERSION,
            "spec": self.spec.to_json(),
            "history": self.history,
            "digest": self.digest(),
        }
        weights_file.write(path, "network", header, self._arrays())

    @classmethod
    def load(cls, path: Path | str) -> Network:
        """Read what `save` wrote, into a module in evaluation mode.

        Raises:
            ConfigError: if there is no such file, it is not a network, or it is damaged.
        """

        def make(header: dict[str, Any], arrays: weights_file.Arrays) -> Network:
            spec = ArchSpec.from_json(header["spec"])
            weights_file.refuse_mismatch(spec, arrays)
            module = build(spec, generator=torch.Generator())
            module.load_state_dict({name: torch.from_numpy(a) for name, a in arrays.items()})
            return cls(spec, module.eval(), tuple(header["history"]))

        return weights_file.read(path, "network", make)

    def _arrays(self) -> weights_file.Arrays:
        state = self.module.state_dict()
        return {name: tensor.detach().cpu().numpy() for name, tensor in state.items()}
