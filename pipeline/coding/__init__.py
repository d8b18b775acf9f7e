"""Lossless coding of tensors and of the files that hold them.

`pack` makes a packed file, in which each weight tensor of a model file is in the smallest coding
that was found for it (`smallest`). The decoder is device_agents/agent/packed, which says how
everything is laid out and is made to run on devices too; what is written here is unpacked by it
before it is handed over.
"""

from pipeline.coding.container import Packed, PackedTensor, pack
from pipeline.coding.pieces import Shape, smallest

__all__ = ["Packed", "PackedTensor", "Shape", "pack", "smallest"]
