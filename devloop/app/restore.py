"""`devloop restore`: the workloads of a project as they were before devloop first wrote to them."""

from __future__ import annotations

import contextlib
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING

from devloop.app import connect, only_session
from devloop.app.rollback import leases_of
from devloop.app.session import chosen
from devloop.app.workloads import releases_in, renderings_for, workloads_of
from devloop.base.cancel import Cancel
from devloop.cluster.api.kinds import workload_path
from devloop.cluster.deploy.gitops import GitopsGuard, resume_left
from devloop.cluster.deploy.recovery import recover, recover_abandoned
from devloop.cluster.deploy.restore import Restored, restore, wait_for_rollout
from devloop.cluster.replace.recovery_log import RecoveryLog

if TYPE_CHECKING:
    from collections.abc import Callable

    from devloop.config.loader import LoadedProject
    from devloop.errors import Diagnosis


def restore_workloads(
    loaded: LoadedProject,
    only: tuple[str, ...],
    say: Callable[[str], None],
    *,
    dry_run: bool = False,
) -> tuple[tuple[Restored, str], ...]:
    """Restore all workloads of the services `only`, of all where none is named; what became of each
    and how many of its pods are ready, once they are. `say` gets lines for the user as it goes on.
    Errors: env/session-running, safety/*, cluster/*, pod/deadline, config/unknown-service."""
    project, cancel = loaded.project, Cancel()
    services = chosen(project, only)

    def report(diagnosis: Diagnosis) -> None:
        say(diagnosis.message)

    with contextlib.ExitStack() as stack:
        if not dry_run:
            stack.enter_context(only_session(project))
        connection = stack.enter_context(connect(project))
        renderings = renderings_for(
            project.services.values(), show=loaded.show, namespace=connection.namespace
        )
        workloads = workloads_of(project, services, renderings, connection)
        refs = tuple(dict.fromkeys(chain(*workloads.values())))
        if not dry_run:
            stack.enter_context(leases_of(project, connection, refs, report, cancel))
            # A pause that a killed session left would keep the pods as they are.
            for diagnosis in recover(connection, RecoveryLog(project.state_dir)):
                report(diagnosis)
            for diagnosis in recover_abandoned(connection, refs, own=True):
                report(diagnosis)
            for diagnosis in resume_left(connection, project.state_dir):
                report(diagnosis)
            guard = GitopsGuard(connection, project.state_dir)
            guard.check((connection.find(workload_path(ref)) for ref in refs), report)
        releases = releases_in(project, services, connection)
        # Helm's own record is to say what runs: what it deploys is its to put back.
        for line in filter(None, (release.undo(dry_run=dry_run) for release in releases)):
            say(line)
        look = partial(restore, connection, project.state_dir, dry_run=dry_run)
        # All are written before any is waited for: they may need each other.
        found = [look(ref) for ref in refs]
        timeouts = {
            ref: services[name].deploy.timeout for name, own in workloads.items() for ref in own
        }
        done = []
        for each in found:
            ready = ""
            if each.what == "restored":
                ready = wait_for_rollout(connection, each.workload, timeouts[each.workload], cancel)
            say(in_words(each, ready))
            done.append((each, ready))
    return tuple(done)


def in_words(done: Restored, ready: str) -> str:
    """A line for the user."""
    images = ", ".join(dict.fromkeys(done.images.values()))
    words = {
        "restored": f"as it was before devloop: {images}, {ready}",
        "would": f"would be as it was before devloop: {images}",
        "as-before": "is as it was before devloop",
        "created": "was created by devloop: `devloop down` deletes it",
        "untouched": "devloop has not changed it",
        "gone": "is not there",
        "fixed": f"had {images} before devloop and cannot be changed: delete it and make it again",
    }
    return f"{done.workload}   {words[done.what]}"
