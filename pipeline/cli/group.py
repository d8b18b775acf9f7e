"""Groups of commands: an unknown one gets the nearest shown."""

from __future__ import annotations

import click

from device_agents.near_names import did_you_mean


class Group(click.Group):
    """A group that says of an unknown command which there are."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that the arguments name; raises UsageError."""
        known = self.list_commands(ctx)
        if args and not args[0].startswith("-") and args[0] not in known:
            raise click.UsageError(
                f"no command {args[0]!r}; {did_you_mean(args[0], known)}have {', '.join(known)}",
                ctx=ctx,
            )
        return super().resolve_command(ctx, args)
