"""Groups whose commands are imported when they are run: none waits for what the others need."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from types import MappingProxyType

import click


class LazyGroup(click.Group):
    """``modules``: where each command is, a module that has it in ``COMMANDS``."""

    modules: Mapping[str, str] = MappingProxyType({})

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Their names, in alphabetical order."""
        return sorted({*self.modules, *self.commands})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, imported; None when there is none."""
        if cmd_name in self.modules and cmd_name not in self.commands:
            module = importlib.import_module(self.modules[cmd_name])
            for command in module.COMMANDS:
                self.add_command(command)
        return super().get_command(ctx, cmd_name)

    def every(self) -> dict[str, click.Command]:
        """All commands by name, imported."""
        with click.Context(self) as ctx:
            found = {name: self.get_command(ctx, name) for name in self.list_commands(ctx)}
        return {name: command for name, command in found.items() if command is not None}
