"""`fastq completion`."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

NAME, VARIABLE = "fastq", "_FASTQ_COMPLETE"


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script that completes commands and options in SHELL.

    \b
    bash: eval "$(fastq completion bash)"    in ~/.bashrc
    zsh:  eval "$(fastq completion zsh)"     in ~/.zshrc
    fish: fastq completion fish > ~/.config/fish/completions/fastq.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None, "click supports all three shells"
    click.echo(kind(ctx.find_root().command, {}, NAME, VARIABLE).source())
