"""`devloop completion`: the script that teaches a shell devloop's commands, options and names."""

from __future__ import annotations

import click

from devloop.errors import ExitStatus

# Where each shell reads it at its start.
_INSTALL = {
    "bash": """add to ~/.bashrc: eval "$(devloop completion bash)" """.strip(),
    "zsh": """add to ~/.zshrc, below compinit: eval "$(devloop completion zsh)" """.strip(),
    "fish": "once: devloop completion fish > ~/.config/fish/completions/devloop.fish",
}


@click.command("completion")
@click.argument("shell", type=click.Choice(list(_INSTALL)))
@click.pass_context
def command(context: click.Context, shell: str) -> int:
    """Print the completion script of SHELL: for commands, options, services and contexts.

    \b
    bash  add to ~/.bashrc: eval "$(devloop completion bash)"
    zsh   add to ~/.zshrc, below compinit: eval "$(devloop completion zsh)"
    fish  devloop completion fish > ~/.config/fish/completions/devloop.fish

    At a TAB devloop reads devloop.yaml and the kubeconfig; it asks neither the network nor a
    cluster.
    """
    from click.shell_completion import get_completion_class  # noqa: PLC0415 - for shells only

    kind = get_completion_class(shell)
    assert kind is not None  # noqa: S101 - click has all three
    root = context.find_root()
    script = kind(root.command, {}, "devloop", "_DEVLOOP_COMPLETE").source()
    click.echo(f"{script.strip()}\n\n# {_INSTALL[shell]}")
    return ExitStatus.DONE
