"""The names of the number formats."""

from __future__ import annotations

OTHER_NAMES = {"int8": "static8"}
"""What people call a format -> its name here, which says that its scales are fixed."""
