"""Passes of benchmark_model beside the timing: the memory of a model, and what its ops take."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from device_agents.errors import AgentError
from device_agents.tools.op_profile import parse_profile

if TYPE_CHECKING:
    from collections.abc import Mapping

    from device_agents.tools.benchmark_text import TextRun
    from device_agents.tools.op_profile import OpRow


@dataclass(frozen=True, slots=True)
class ToolMemory:
    """Memory of a model's process in MB: after loading, at the end, and the highest seen."""

    init_mb: float | None
    overall_mb: float | None
    peak_mb: float | None
    input_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ToolOps:
    """What each op of a model takes, as the binary's own profiler tells it."""

    ops: tuple[OpRow, ...]
    input_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


def read_memory(run: TextRun, shapes: Mapping[str, tuple[int, ...]]) -> ToolMemory:
    """Return the memory of a model that ran with these input shapes."""
    return ToolMemory(run.memory_init_mb, run.memory_overall_mb, run.memory_peak_mb, shapes)


def read_ops(printed: str, shapes: Mapping[str, tuple[int, ...]], *, device: str) -> ToolOps:
    """Return the ops of a model that ran with these input shapes; raises AgentError for none."""
    found = parse_profile(printed)
    if not found:
        raise AgentError(
            f"device {device!r}: the binary printed no op profile; take one built with profiling",
            kind="bad_request",
        )
    return ToolOps(found, shapes)
