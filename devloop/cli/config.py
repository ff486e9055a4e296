"""`devloop config`: the configuration as it holds."""

from __future__ import annotations

import contextlib
import json
import os
from typing import TYPE_CHECKING

import click

from devloop.cli.options import CommonOptions, load_or_assume, output_option, project_options
from devloop.cli.session import tell_assumed
from devloop.errors import DevloopError, ExitStatus

if TYPE_CHECKING:
    from devloop.config.schema import Project


@click.command("config")
@click.option("--sources", is_flag=True, help="Say behind each value where it comes from.")
@output_option
@project_options
def command(options: CommonOptions, sources: bool, output: str) -> int:
    """Show the configuration as it holds, as a valid devloop.yaml.

    What flags, DEVLOOP_* variables, devloop.yaml with its active profiles, your own config.yaml and
    the defaults say, in this order. A value with ${VARIABLES} is shown as it is written, without
    what they hold. Asks neither Docker nor a cluster.
    """
    # Imported late, see main.py: help must stay quick.
    from devloop.config.effective import as_yaml, effective  # noqa: PLC0415

    loaded = load_or_assume(options, tell_assumed)
    settings = effective(loaded, os.environ, _known(loaded.project))
    if output == "text":
        if sources and loaded.profiles:
            click.echo(f"# with profile {', '.join(map(str, loaded.profiles))}")
        click.echo(as_yaml(settings, sources=sources), nl=False)
        return ExitStatus.DONE
    click.echo(
        json.dumps(
            {
                "v": 1,
                "file": loaded.locations.file.path,
                "profiles": [each.name for each in loaded.profiles],
                "settings": [
                    {"path": each.path, "value": each.value, "source": each.source}
                    for each in settings
                ],
            },
            indent=2,
        )
    )
    return ExitStatus.DONE


def _known(project: Project) -> dict[str, tuple[str, str]]:
    """What the kubeconfig says of what nobody gave."""
    from devloop.cluster.api.kubeconfig import read  # noqa: PLC0415 - see above

    with contextlib.suppress(DevloopError):
        kubeconfig = read(os.environ)
        context = kubeconfig.resolve(project.context)
        found = {"context": (context.name, "the kubeconfig's current context")}
        return found | {"namespace": (context.namespace, f"the context {context.name}")}
    return {}
