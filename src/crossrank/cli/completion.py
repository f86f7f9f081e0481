"""`crossrank completion`: the script that teaches a shell to complete crossrank's commands, options and model names."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

SHELLS = ("bash", "zsh", "fish")


@click.command(
    "completion",
    short_help="Print the completion script of a shell.",
    epilog="""\b
Examples:
  bash:  echo 'eval "$(crossrank completion bash)"' >> ~/.bashrc
  zsh:   echo 'eval "$(crossrank completion zsh)"' >> ~/.zshrc
  fish:  crossrank completion fish > ~/.config/fish/completions/crossrank.fish
""",
)
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def command(context: click.Context, shell: str) -> None:
    """Print the completion script of SHELL, which may be bash, zsh or fish."""
    complete = get_completion_class(shell)
    assert complete is not None
    program = context.find_root()
    click.echo(complete(program.command, {}, "crossrank", "_CROSSRANK_COMPLETE").source())
