"""A SavedModel without the state of its optimiser, which TensorFlow 2.16 and later cannot load.

Models that were saved in training keep moments of each weight. Older optimisers are gone from
TensorFlow with Keras 3, and loading ends with "'_UserObject' object has no attribute 'add_slot'".
No inference reads them.
"""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def without_optimizer(path: Path) -> Iterator[Path]:
    """Yield a SavedModel folder that can be loaded: `path` itself where nothing is in the way.

    Raises:
        google.protobuf.message.DecodeError: its saved_model.pb is damaged.
    """
    from tensorflow.core.protobuf import saved_model_pb2

    model = saved_model_pb2.SavedModel()
    model.ParseFromString((path / "saved_model.pb").read_bytes())
    nodes = [node for graph in model.meta_graphs for node in graph.object_graph_def.nodes]
    moments = [node for node in nodes if node.slot_variables]
    if not moments:
        yield path
        return
    for node in moments:
        del node.slot_variables[:]
    with tempfile.TemporaryDirectory(prefix="edgewright-saved-model-") as name:
        folder = Path(name)
        (folder / "saved_model.pb").write_bytes(model.SerializeToString())
        for entry in path.iterdir():
            if entry.name != "saved_model.pb":
                (folder / entry.name).symlink_to(entry.resolve())
        yield folder
