"""Where torch computes a training: the processor, or an accelerator that is there."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

import torch

from device_agents.errors import ConfigError
from pipeline.recipe.sections import TrainDevice

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

__all__ = ["TrainDevice", "choose_device", "mixed_precision", "there_are"]


def there_are() -> tuple[str, ...]:
    """Return the names of what is here, the quickest first."""
    found = []
    if torch.cuda.is_available():
        found.append("cuda")
    if torch.backends.mps.is_available():
        found.append("mps")
    return (*found, "cpu")


def choose_device(name: TrainDevice) -> torch.device:
    """Return the device of a name. Raises ConfigError: it is not there."""
    here = there_are()
    if name == "auto":
        return torch.device(here[0])
    if name not in here:
        raise ConfigError(
            f"torch has no device {name!r} on this machine; it has {', '.join(here)}: name one of "
            'them, or "auto"'
        )
    return torch.device(name)


def mixed_precision(device: torch.device) -> AbstractContextManager[object]:
    """Return where forward passes run: in bfloat16 as far as that is safe, if it is quick here.

    bfloat16 has the range of float32, so that gradients need no scaling. On the processor and on
    GPUs without it all stays float32.
    """
    if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.autocast("cuda", torch.bfloat16)
    return nullcontext()
