"""Refuses a figure of ops that were not run where they were meant to run.

A delegate that takes only a part of a network, or nothing, says so at most in a log; the figure
looks as good as any. So what was delegated is told with every figure, and a share can be asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from device_agents.errors import AgentError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from device_agents.api import DeviceDescription


def refuse_undelegated(description: DeviceDescription, answer: Mapping[str, Any]) -> None:
    """Raise AgentError of kind `not_delegated` when less was delegated than the device asks for."""
    wanted, share = description.min_delegated_share, answer["delegated_share"]
    if wanted <= 0 or (share is not None and share >= wanted):
        return
    if share is None:
        found = f"{answer['package']} does not tell which ops a delegate runs"
    else:
        left = ", ".join(f"{count} {name}" for name, count in sorted(answer["left"].items()))
        delegate = answer["delegate"]
        found = f"{delegate} runs {share:.0%} of the ops" if delegate else "no delegate runs any op"
        found += f"; left to the CPU kernels: {left}"
    raise AgentError(
        f"device {description.name!r}: {found}; at least {wanted:.0%} must be delegated: change "
        "these ops, or lower `min_delegated_share`",
        kind="not_delegated",
    )
