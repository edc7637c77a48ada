"""Groups of commands: singular and plural are the same, and a wrong name gets a suggestion."""

from __future__ import annotations

from difflib import get_close_matches

import click

SAME = {"jobs": "job", "queue": "queues", "schedule": "schedules", "key": "keys", "logs": "log"}
"""Another name of a command -> its name. Help does not list them."""

ELSEWHERE = {
    "ls": "list", "get": "show", "describe": "show", "info": "show", "rm": "delete", "remove": "delete", "add": "set",
    "update": "set", "start": "resume", "unpause": "resume", "stop": "pause", "retry": "redrive", "requeue": "redrive",
    "enqueue": "submit", "push": "submit", "pop": "lease", "reserve": "lease", "done": "ack", "server": "serve",
    "stats": "status", "health": "status", "clear": "purge", "empty": "purge", "new": "create",
}  # fmt: skip
"""What other queues call a command -> its name here, for suggestions."""


class Group(click.Group):
    """A group of commands, or of groups."""

    group_class = type  # groups in it are of this class

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if self.get_command(ctx, args[0]) is None and args[0] in SAME:
            args = [SAME[args[0]], *args[1:]]
        try:
            return super().resolve_command(ctx, args)
        except click.exceptions.NoSuchCommand as error:
            names = self.list_commands(ctx)
            meant = [ELSEWHERE[args[0]]] if ELSEWHERE.get(args[0]) in names else []
            meant += get_close_matches(args[0], [*names, *(name for name in SAME if SAME[name] in names)])
            meant = list(dict.fromkeys(repr(SAME.get(name, name)) for name in meant))
            text = f"No such command {args[0]!r}."
            if meant:
                text += f" Did you mean {' or '.join(meant)}?"
            raise click.UsageError(text, error.ctx) from None
