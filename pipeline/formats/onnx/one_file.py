"""An ONNX model of several files as one: what is deployed must be whole under one hash."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from device_agents.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from device_agents.model_files import ModelFile

_MOST_BYTES = (1 << 31) - 1


@contextmanager
def as_one_file(file: ModelFile) -> Iterator[Path]:
    """Give the path of a model's only file; of one with parts, that of a whole copy.

    The same parts give the same bytes.

    Raises:
        ConfigError: it is too large for one file, or its parts do not fit.
    """
    if not file.parts:
        yield file.path
        return
    import onnx

    sizes = [path.stat().st_size for path in (file.path, *(part.path for part in file.parts))]
    if sum(sizes) > _MOST_BYTES:
        raise ConfigError(
            f"{file.path} has {sum(sizes) / 1e9:.1f} GB with its weights, and one ONNX file holds "
            "2 GB at most; quantise the model, or deploy a smaller one"
        )
    with tempfile.TemporaryDirectory(prefix="edgewright-") as folder:
        whole = Path(folder) / file.path.name
        try:
            network = onnx.load(file.path, load_external_data=False)
            # onnx follows no links, as which download caches keep these files.
            with tempfile.TemporaryDirectory(prefix="parts-", dir=folder) as beside:
                for part in file.parts:
                    copy = Path(beside, part.location)
                    copy.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(part.path, copy)
                onnx.load_external_data_for_model(network, beside)
            whole.write_bytes(network.SerializeToString(deterministic=True))
        except Exception as error:  # protobuf's exceptions differ between its implementations
            raise ConfigError(
                f"the weights beside {file.path} do not fit it: "
                f"{' '.join(str(error).split())[:200]}; save the model again"
            ) from error
        yield whole
