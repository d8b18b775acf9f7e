"""What a model file holds, read from the file itself: of any format, graph or not, and at once.

One file for each format; none imports torch, TensorFlow or a runtime.
"""

from __future__ import annotations
