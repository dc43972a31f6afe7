"""`servd export ENGINE`: writes the configuration for another engine."""

from __future__ import annotations

import importlib

import click

ENGINES = ("compose", "dockerfile", "kubernetes", "ray", "systemd")


class EngineGroup(click.Group):
    """Imports the command of an engine when it runs: `command` in `export_ENGINE`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Returns the names of the engines."""
        return list(ENGINES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Imports the command."""
        if cmd_name not in ENGINES:
            return None
        module = importlib.import_module(f"servd.cli.commands.export_{cmd_name}")
        found: click.Command = module.command
        return found


@click.group("export", cls=EngineGroup)
def command() -> None:
    """Write the configuration for another engine."""
