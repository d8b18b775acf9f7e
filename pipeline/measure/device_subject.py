"""A model file in its runtime on a device, as something that can be asked for outputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from device_agents.errors import DeviceError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from device_agents.runner import Device
    from pipeline.formats.api import Numbers
    from pipeline.formats.ends import Arrays, FileEnds
    from pipeline.formats.subjects import FileSubject


@dataclass(frozen=True, slots=True)
class DeviceSubject:
    """A model file in its runtime on a device."""

    file: FileSubject
    device: Device
    runtime: str
    shapes: Mapping[str, tuple[int, ...]]

    @property
    def name(self) -> str:
        """The file's name."""
        return self.file.name

    @property
    def ends(self) -> FileEnds:
        """Those of the file."""
        return self.file.ends

    @property
    def numbers(self) -> Numbers:
        """Those of the file."""
        return self.file.numbers

    def run(self, inputs: Arrays) -> Arrays:
        """Run samples one by one there; see `Subject.run`."""
        sent = self.ends.to_device(inputs)
        try:
            found = self.device.runs(
                self.file.path, runtime=self.runtime, shapes=dict(self.shapes)
            )(sent)
        except DeviceError as error:
            raise DeviceError(f"{self.name} cannot be run on the device: {error}") from error
        outputs = {}
        for end, value in zip(self.ends.outputs, found.outputs, strict=True):
            raw = np.frombuffer(value.data, np.dtype(value.dtype)).reshape(value.shape)
            outputs[end.name] = raw
        return self.ends.decode(outputs)
