"""Which of a SavedModel's signatures is meant."""

from __future__ import annotations

from typing import TYPE_CHECKING

from device_agents.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Collection

_USUAL = "serving_default"


def pick_signature(names: Collection[str]) -> str:
    """Return TensorFlow's usual one, else the only one.

    Raises:
        ConfigError: there is none, or there are several; the end of a sentence.
    """
    if _USUAL in names:
        return _USUAL
    if len(names) == 1:
        return next(iter(names))
    known = ", ".join(names) or "none"
    raise ConfigError(
        f"it has no signature {_USUAL!r}; its signatures: {known}; save it with that one by "
        "tf.saved_model.save(model, folder, signatures=…)"
    )
