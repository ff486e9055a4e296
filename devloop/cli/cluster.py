"""`devloop cluster up|down|status`: a local kind cluster with a registry beside it."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from typing import TYPE_CHECKING, Any, TypeVar

import click

from devloop.cli.signals import interruptible
from devloop.errors import DevloopError, ExitStatus
from devloop.ui import wants_color

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from devloop import local_cluster
    from devloop.base.cancel import Cancel


T = TypeVar("T")

_name = click.option(
    "--name", default="devloop", show_default=True, metavar="NAME", help="The cluster's name."
)


@click.group("cluster")
def command() -> None:
    """Create, remove or look at a local kind cluster with a registry."""


@command.command()
@_name
@click.option("--node-image", metavar="IMAGE", help="Node image; default: kind's own.")
@click.option(
    "--registry-image",
    default="registry:3",
    show_default=True,
    metavar="IMAGE",
    help="Image of a new registry.",
)
@click.option(
    "--registry-port",
    type=click.IntRange(1, 65535),
    metavar="PORT",
    help="Port of the registry on 127.0.0.1; default: the one it has, else 5001.",
)
@click.option("--recreate", is_flag=True, help="Delete the cluster first; the registry stays.")
@click.option(
    "--yes", is_flag=True, help="Let --recreate delete a cluster that devloop did not make."
)
def up(*, recreate: bool, yes: bool, **wanted: Any) -> None:
    """Create the cluster and its registry, or repair what is missing."""
    from devloop import local_cluster  # noqa: PLC0415 - see main.py: help must stay quick
    from devloop.port_forward.listeners import owner_of  # noqa: PLC0415 - as above

    ready = _with_docker(
        lambda docker: local_cluster.up(
            docker,
            local_cluster.Wanted(**wanted, port_owner=owner_of),
            report=_show,
            read_context=_read_context,
            recreate=recreate,
            yes=yes,
        )
    )
    click.echo(
        f"{_mark(True)} cluster {wanted['name']} is ready in {ready.seconds:.1f} s:"
        f" context {ready.context}, registry {ready.registry}"
    )
    click.echo("next: devloop dev")


@command.command()
@_name
@click.option("--yes", is_flag=True, help="Delete also a cluster that devloop did not make.")
def down(*, name: str, yes: bool) -> None:
    """Remove what `up` made and nothing else."""
    from devloop import local_cluster  # noqa: PLC0415 - see main.py: help must stay quick

    gone = _with_docker(lambda docker: local_cluster.down(docker, name, report=_show, yes=yes))
    click.echo(f"removed: {', '.join(gone.removed)}" if gone.removed else "nothing to remove")
    if gone.kept_cluster:
        click.echo(
            f"kept: cluster {gone.kept_cluster}, which devloop did not make"
            " (--yes deletes it as well)"
        )


@command.command()
@_name
@click.option(
    "-o", "--output", type=click.Choice(["text", "json"]), default="text", help="How to print."
)
def status(*, name: str, output: str) -> None:
    """Show the state of cluster and registry; exit status 0 when all is up, 3 otherwise."""
    from devloop import local_cluster  # noqa: PLC0415 - see main.py: help must stay quick

    seen = _with_docker(
        lambda docker: local_cluster.status(docker, name, read_context=_read_context)
    )
    if output == "json":
        click.echo(json.dumps({"v": 1, **dataclasses.asdict(seen), "ok": seen.ok}))
    else:
        click.echo("\n".join(_lines(seen)))
    if not seen.ok:
        raise SystemExit(ExitStatus.ENVIRONMENT)


def _lines(seen: local_cluster.Status) -> Iterator[str]:
    if not seen.exists:
        yield f"{_mark(False)} there is no cluster {seen.cluster}; create it: devloop cluster up"
        return
    made = "made by devloop" if seen.created_by_devloop else "not made by devloop"
    yield f"{_mark(seen.api_reachable)} cluster   {seen.cluster} (context {seen.context}, {made})"
    for node in seen.nodes:
        state = "ready" if node.ready else "running" if node.running else "stopped"
        yield f"{_mark(node.ready and node.wired)} node      {node.name} {state}"
    if seen.registry:
        yield f"{_mark(seen.registry_reachable)} registry  {seen.registry}"
    for problem in seen.problems:
        yield f"  {problem}"
    if seen.problems:
        yield f"repair: devloop cluster up --name {seen.cluster}"


def _show(progress: local_cluster.ClusterProgress) -> None:
    if progress.state == "done":
        took = f"{progress.seconds:.1f} s".rjust(7)
        click.echo(f"{_mark(True)} {progress.step:<11} {took}  {progress.detail}")
    else:
        indent = "  " if progress.state == "started" else "    "
        click.echo(_styled(f"{indent}{progress.detail} ...", "bright_black"))


def _mark(good: bool) -> str:
    return _styled("✓", "green") if good else _styled("✗", "red")


def _styled(text: str, colour: str) -> str:
    coloured = wants_color(sys.stdout, "auto", os.environ)
    return click.style(text, fg=colour) if coloured else text


def _read_context(name: str) -> local_cluster.KnownContext:
    from devloop.cluster.api.kubeconfig import read  # noqa: PLC0415 - see main.py
    from devloop.local_cluster import KnownContext  # noqa: PLC0415 - as above

    try:
        kubeconfig = read(os.environ)
    except DevloopError:
        return KnownContext()
    try:
        cluster = kubeconfig.resolve(name).cluster
    except DevloopError:
        return KnownContext(current=kubeconfig.current)
    return KnownContext(server=cluster.server, ca=cluster.ca, current=kubeconfig.current)


def _with_docker(work: Callable[[local_cluster.DockerHost], T]) -> T:
    from devloop.app.docker import docker_host  # noqa: PLC0415 - see main.py

    def connected(cancel: Cancel) -> T:
        with docker_host(cancel) as docker:
            return work(docker)

    return interruptible(connected)
