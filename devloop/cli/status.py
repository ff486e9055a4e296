"""`devloop status`: what runs, and whether a session is at work."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Any

import click

from devloop.cli.options import CommonOptions, load, output_option, project_options
from devloop.errors import ExitStatus

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from devloop.cluster.api.connection import Connection
    from devloop.cluster.deploy.status import WorkloadStatus
    from devloop.config.schema import Project
    from devloop.engine.ports import Rendering


@click.command("status")
@output_option
@project_options
def command(options: CommonOptions, output: str) -> int:
    """Show what runs of each service, and the session if there is one.

    The cluster is asked, and the session; without one its part is what the last wrote down, and
    whether that is still what is on disk. Where a session was killed in the middle of a
    replacement, what it left paused is resumed.
    """
    project, session = _project(options)
    from devloop.app import connect, session_runs  # noqa: PLC0415 - see main.py
    from devloop.app.workloads import renderings_for, workloads_of  # noqa: PLC0415 - as above
    from devloop.cluster.deploy.gitops import resume_left  # noqa: PLC0415 - as above
    from devloop.cluster.deploy.lease import holder_of  # noqa: PLC0415 - as above
    from devloop.cluster.deploy.recovery import (  # noqa: PLC0415 - as above
        recover,
        recover_abandoned,
    )
    from devloop.cluster.deploy.status import read_status  # noqa: PLC0415 - as above
    from devloop.cluster.replace.recovery_log import RecoveryLog  # noqa: PLC0415 - as above

    with connect(project) as connection:
        renderings = renderings_for(project.services.values(), namespace=connection.namespace)
        workloads = workloads_of(project, project.services, renderings, connection)
        refs = tuple(dict.fromkeys(chain(*workloads.values())))
        if session is not None:
            session["running"] = session["running"] and session_runs(project)
            session["killed"] = not session["running"] and "ended" not in session
        notes: list[str] = []
        running = bool(session and session["running"])
        disk: dict[str, str] = {}
        if not running:
            # What a killed session left half done does not wait for the next one.
            recovered = recover(connection, RecoveryLog(project.state_dir))
            recovered += recover_abandoned(connection, refs)
            recovered += resume_left(connection, project.state_dir)
            notes = [diagnosis.message for diagnosis in recovered]
            notes += [
                f"{ref}: {by}, works with it" for ref in refs if (by := holder_of(connection, ref))
            ]
            if session is not None:
                disk = _compared(project, session, renderings, connection)
        found = {name: read_status(connection, own) for name, own in workloads.items()}
        report: dict[str, Any] = {
            "project": project.name,
            "context": connection.context,
            "namespace": connection.namespace,
            "session": session,
            "notes": notes,
            "services": {
                name: _as_json(statuses[0])
                | {"others": list(map(_as_json, statuses[1:])), "disk": disk.get(name)}
                for name, statuses in found.items()
            },
        }
    if output == "json":
        click.echo(json.dumps(report))
        return ExitStatus.DONE
    click.echo(f"{project.name}   context {report['context']}, namespace {report['namespace']}")
    if session is not None and running:
        click.echo(f"session running: {_name_of(session)}")
        if paused := session.get("paused"):
            click.echo(paused["reason"])
        for line in _reloaded(session.get("reloaded") or {}):
            click.echo(line)
    else:
        click.echo("no session is running: `devloop dev` starts one")
        if session is not None and session["killed"]:
            click.echo(f"the last one was killed: {_name_of(session)}")
    for note in notes:
        click.echo(note)
    for name, (status, *others) in found.items():
        _show(name, status, others, session, only_built=project.only_built(name))
        if name in disk:
            click.echo(f"  disk    {disk[name]}")
    return ExitStatus.DONE


def _project(options: CommonOptions) -> tuple[Project, dict[str, Any] | None]:
    """The project, and what `session_of` says. It is in the session's context and namespace where
    the options name none: those of one that runs, or that was killed there."""
    from devloop.control.client import session_of  # noqa: PLC0415 - see main.py

    project = load(options).project
    session = session_of(project.state_dir)
    if session is None or "ended" in session:
        return project, session
    context = options.context or session.get("context")
    namespace = options.namespace or session.get("namespace")
    return load(replace(options, context=context, namespace=namespace)).project, session


def _name_of(session: dict[str, Any]) -> str:
    return f"devloop {session['mode']}, pid {session['pid']}"


def _reloaded(reloaded: dict[str, Any]) -> Iterator[str]:
    """What of devloop.yaml was taken over last, and what is not."""
    if changed := reloaded.get("changed"):
        yield f"devloop.yaml taken over: {', '.join(changed)}"
    if restart := reloaded.get("restart"):
        yield f"devloop.yaml, with a new start only: {', '.join(restart)}"


def _compared(
    project: Project,
    session: dict[str, Any],
    renderings: Mapping[str, Rendering],
    connection: Connection,
) -> dict[str, str]:
    """Whether what the session saw served last is what is on disk, in words, by service; without
    those of which that is not known."""
    from devloop.app.on_disk import fingerprints_on_disk  # noqa: PLC0415 - see main.py

    served = {name: service.get("serving") or {} for name, service in session["services"].items()}
    built = {
        name: (serving.get("fingerprint", ""), serving.get("image", ""))
        for name, serving in served.items()
        # Builds know it by the name it was pushed to, which pods may have another one for.
        if serving.get("image", "").startswith(session.get("registry", ""))
        and name in project.services
        and project.only_built(name)
    }
    mode = session["mode"]
    now = fingerprints_on_disk(project, renderings, connection, mode=mode, built=built)
    found: dict[str, str] = {}
    for name, serving in served.items():
        if name in now and serving.get("fingerprint"):
            same = serving["fingerprint"] == now[name]
            found[name] = f"{'as' if same else 'changed since'} #{serving['iter']}"
    return found


def _as_json(status: WorkloadStatus) -> dict[str, Any]:
    return {
        "workload": str(status.workload),
        "namespace": status.workload.namespace,
        "found": status.found,
        "images": status.images,
        "wanted": status.wanted,
        "ready": status.ready,
        "pods": [
            {
                "name": pod.name,
                "phase": pod.phase,
                "ready": pod.ready,
                "deleting": pod.deleting,
                "image_ids": [c.image_id for c in pod.containers if not c.init],
                "restarts": sum(c.restarts for c in pod.containers),
            }
            for pod in status.pods
        ],
    }


def _show(
    service: str,
    status: WorkloadStatus,
    others: Sequence[WorkloadStatus],
    session: dict[str, Any] | None,
    *,
    only_built: bool,
) -> None:
    if not status.found and only_built:
        click.echo(f"\n{service}   only built, for those that need it")
    elif not status.found:
        click.echo(f"\n{service}   {status.workload} does not exist")
    else:
        click.echo(f"\n{service}   {status.workload}   {_state(status)}")
        _show_pods(status)
    for other in others:
        how = _state(other) if other.found else "does not exist"
        click.echo(f"  also    {other.workload}   {how}")
        _show_pods(other)
    last = ((session or {}).get("services") or {}).get(service) or {}
    if hold := last.get("hold"):
        click.echo(f"  holding {hold['reason']}")
    if outside := last.get("outside"):
        click.echo(f"  outside {outside}; what runs is not what is on disk")
    busy = last.get("state") in ("working", "holding")
    at = f" at {last['step']}" if last.get("step") else ""
    if busy and session is not None and not session["running"]:
        click.echo(f"  last    #{last.get('iter')} broke off{at}")
    elif busy:
        click.echo(f"  now     #{last.get('iter')}{at}")
    elif last.get("outcome"):
        click.echo(f"  last    #{last.get('iter')} {last['outcome']}")


def _state(status: WorkloadStatus) -> str:
    if status.workload.kind == "cronjob":
        return "runs when it is time"
    done = "completed" if status.workload.kind == "job" else "ready"
    return f"{status.ready}/{status.wanted} {done}"


def _show_pods(status: WorkloadStatus) -> None:
    for container, image in status.images.items():
        click.echo(f"  image   {container}: {image}")
    for pod in status.pods:
        state = "ending" if pod.deleting else ("ready" if pod.ready else pod.phase.lower())
        restarts = sum(c.restarts for c in pod.containers)
        times = f", {restarts} restarts" if restarts else ""
        click.echo(f"  pod     {pod.name} {state}{times}")
