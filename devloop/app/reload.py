"""An edit of devloop.yaml, taken over by the session that runs: what changed is worked out key by
key, and the services that it is about get other parts, other ports, other logs; the rest goes on.

The data flow is one way: the watcher's thread, in which all of this runs, makes the parts and hands
them to the engine with a fact; hints wait meanwhile, so that no look at the disk comes in between.
What a key asks for is said in config/schema.py.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING

from devloop.app.session import built_for
from devloop.app.workloads import renderings_for, with_used_services, workloads_of
from devloop.builders.preflight import preflight
from devloop.cluster.deploy.recovery import recover_abandoned
from devloop.config.difference import difference
from devloop.engine.facts import Reconfigured, Removed
from devloop.errors import Code, DevloopError, Diagnosis
from devloop.events import ConfigReloaded, DiagnosticRaised, ServiceChanges

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from devloop.app.service_parts import ServiceParts
    from devloop.app.wiring import Wiring
    from devloop.base.cancel import Cancel
    from devloop.cluster.deploy.deployments import Deployments
    from devloop.cluster.deploy.session_lease import SessionLeases
    from devloop.config.difference import ChangedKey
    from devloop.config.loader import LoadedProject
    from devloop.config.schema import Project, Service
    from devloop.engine.loop import Engine
    from devloop.engine.ports import Rendering
    from devloop.errors import Location
    from devloop.model import WorkloadRef


# What needs other parts, and what is not proven to be served with them.
_PARTS = frozenset({"build", "deploy", "rollout", "sync"})
_PROVES = frozenset({"build", "deploy", "sync"})


class Reload:
    """Takes configurations over, for the session of `wiring`; in one thread."""

    def __init__(
        self,
        wiring: Wiring,
        parts: ServiceParts,
        deployments: Deployments,
        leases: SessionLeases,
        engine: Engine,
        *,
        only: tuple[str, ...],
    ) -> None:
        self._wiring = wiring
        self._parts = parts
        self._deployments = deployments
        self._leases = leases
        self._engine = engine
        self._only = only
        self._project = wiring.loaded.project
        self._services = dict(wiring.services)
        self._refs = {name: wiring.workloads.get(name, ()) for name in self._services}
        self._restart: tuple[str, ...] = ()
        self._registry = wiring.environment.target.repository("")

    def take(self, loaded: LoadedProject, cancel: Cancel) -> tuple[Diagnosis, ...]:
        """Have the session go on with `loaded`, as far as it can; what is to be said of the rest.
        What cannot be had now, as a port, is as it was before, and tried again with the next call.
        Raises Cancelled."""
        self._parts.tidy()
        found = difference(self._project, loaded.project)
        notes = _needs_restart(loaded, found.restart)
        if not found:
            self._report((), (), {}, found.restart)
            return notes
        project = _keeping(loaded.project, self._project, found.restart)
        renderings = self._rendered(project)
        try:
            services = self._of_session(project, renderings)
            self._wiring.check_trust(loaded, services)
        except DevloopError as error:
            return (*error.diagnoses, *notes)
        added = [name for name in services if name not in self._services]
        changed = {n: keys for n, keys in found.keys.items() if n in services and n not in added}
        # What runs the others is as the last deploy found it.
        moved = [n for n, keys in changed.items() if any(map(_moves, keys))]
        refs, refused = self._have_leases(project, renderings, (*added, *moved), loaded, cancel)
        if refused:
            project = self._as_before(project, refused)
            renderings = self._rendered(project)
            services = self._of_session(project, renderings)
            changed = {name: keys for name, keys in changed.items() if name not in refused}
            added = [name for name in added if name not in refused]
        removed = [name for name in self._services if name not in services]

        self._use(project, services, renderings)
        for name in removed:
            self._remove(name)
        busy = self._open_ports(services, refs, loaded)
        if busy is not None:
            project, services = self._with_ports_of_before(project), self._with_old_ports(services)
            changed = {
                n: tuple(k for k in keys if not _opens_port(k)) for n, keys in changed.items()
            }
        self._project = project
        # Before anything happens of a service that is new: readers know it from then on.
        self._report(added, removed, changed, found.restart)
        for name, own in refs.items():
            self._wiring.feed.follow(name, own)
        for name in added:
            self._begin(services[name], refs[name], cancel)
        for name, keys in changed.items():
            self._change(services[name], keys)
        self._give_back(removed, refs)
        self._services = services
        self._wiring.debuggers.use(services)
        self._refs = {name: refs.get(name) or self._refs.get(name, ()) for name in services}
        return (*refused.values(), *((busy,) if busy is not None else ()), *notes)

    def _report(
        self,
        added: Iterable[str],
        removed: Iterable[str],
        changed: Mapping[str, tuple[ChangedKey, ...]],
        restart: tuple[ChangedKey, ...],
    ) -> None:
        settings = {name: keys for name, keys in changed.items() if keys}
        services = ServiceChanges(
            added=tuple(added), removed=tuple(removed), changed=tuple(settings)
        )
        names = (
            *(f"services.{name}" for name in (*services.added, *services.removed)),
            *(str(key) for keys in settings.values() for key in keys),
        )
        before, self._restart = self._restart, tuple(map(str, restart))
        if names or self._restart != before:
            self._wiring.publish(
                ConfigReloaded(changed=names, services=services, restart=self._restart)
            )

    # --- what it comes to ----------------------------------------------------------------------

    def _rendered(self, project: Project) -> dict[str, Rendering]:
        """The renderings of the project's services; of those whose manifests are the same, the ones
        that there are."""
        known = self._wiring.renderings
        new = {
            name
            for name, service in project.services.items()
            if name not in self._project.services
            or _rendered_from(service) != _rendered_from(self._project.services[name])
        }
        made = renderings_for(
            (project.services[name] for name in new),
            show=self._wiring.loaded.show,
            namespace=self._wiring.connection.namespace,
        )
        kept = {n: each for n, each in known.items() if n in project.services and n not in new}
        return {**kept, **made}

    def _of_session(
        self, project: Project, renderings: Mapping[str, Rendering]
    ) -> dict[str, Service]:
        """The services that the session works for. Errors: config/value."""
        only = self._only
        asked = {n: s for n, s in project.services.items() if not only or n in only}
        wanted = with_used_services(project, asked, renderings, self._registry)
        return built_for(wanted, self._wiring.environment.platforms)

    def _have_leases(
        self,
        project: Project,
        renderings: Mapping[str, Rendering],
        names: Iterable[str],
        loaded: LoadedProject,
        cancel: Cancel,
    ) -> tuple[dict[str, tuple[WorkloadRef, ...]], dict[str, Diagnosis]]:
        """The workloads of the services, whose leases are had; and why not, of the others."""
        refs = workloads_of(
            project, names, renderings, self._wiring.connection, registry=self._registry
        )
        refused: dict[str, Diagnosis] = {}
        for name, own in refs.items():
            try:
                self._leases.extend([ref for ref in own if ref.serves], cancel)
            except DevloopError as error:
                where = loaded.locate("services", name)
                refused[name] = replace(error.diagnosis, location=where)
        return {name: own for name, own in refs.items() if name not in refused}, refused

    def _as_before(self, project: Project, names: Iterable[str]) -> Project:
        """`project` with these services as the session has them, or not at all."""
        before = self._project.services
        services = {n: before.get(n, s) if n in names else s for n, s in project.services.items()}
        new = {name for name in names if name not in before}
        return replace(project, services={n: each for n, each in services.items() if n not in new})

    # --- making it so --------------------------------------------------------------------------

    def _use(
        self,
        project: Project,
        services: Mapping[str, Service],
        renderings: Mapping[str, Rendering],
    ) -> None:
        """What all services share, before any of them has other parts."""
        self._parts.project = project
        self._deployments.use(project)
        self._wiring.renderings.replace(renderings)
        self._wiring.bases.use({name: service.build for name, service in services.items()})

    def _begin(self, service: Service, refs: tuple[WorkloadRef, ...], cancel: Cancel) -> None:
        """As at a session's start."""
        wiring = self._wiring
        for ref in refs:
            wiring.view.begin(ref)
        try:
            preflight((service,), cancel)
        except DevloopError as error:
            # Its build waits for what is not there, and says so then.
            wiring.publish(DiagnosticRaised.of(error.diagnosis, service=service.name))
        if left := self._leases.left_behind.intersection(refs):
            self._recover(left)
        self._show_logs(service)
        ports = self._parts.make(service, self._deployments)
        self._engine.take_over(self._fact(service, (), ports.syncer is not None), ports)

    def _recover(self, left: Iterable[WorkloadRef]) -> None:
        """Put right what a session that was killed left half done."""
        try:
            found = recover_abandoned(self._wiring.connection, left, own=True)
        except DevloopError as error:
            found = error.diagnoses
        for diagnosis in found:
            self._wiring.publish(DiagnosticRaised.of(diagnosis))

    def _change(self, service: Service, keys: tuple[ChangedKey, ...]) -> None:
        asked = {key.change for key in keys}
        if "logs" in asked:
            self._show_logs(service)
        if "ports" in asked:
            self._parts.connect_to(service)
        if asked.isdisjoint(_PARTS):
            return
        left = self._parts.held(service.name)
        ports = self._parts.make(service, self._deployments, first=False)
        syncs = ports.syncer is not None
        # A new syncer knows nothing of what runs, until that is proven again.
        proves = syncs or not asked.isdisjoint(_PROVES)
        fact = self._fact(service, tuple(map(str, keys)), syncs, proves=proves)
        self._parts.leave(self._engine.take_over(fact, ports), left)

    def _fact(
        self, service: Service, keys: tuple[str, ...], syncs: bool, *, proves: bool = True
    ) -> Reconfigured:
        return Reconfigured(
            service=service.name,
            keys=keys,
            proves=proves,
            roll_back=self._parts.rolls_back(service),
            syncs=syncs,
        )

    def _remove(self, name: str) -> None:
        released = self._engine.take_over(Removed(name), None)
        self._parts.forget(name)
        self._wiring.feed.forget(name)
        if self._wiring.follower is not None:
            self._wiring.follower.show(name, ())
        self._wiring.publish(DiagnosticRaised.of(_stays(name, self._refs.get(name, ()))))
        self._deployments.forget(name)
        self._parts.leave(released, self._parts.held(name))

    def _give_back(
        self, removed: Iterable[str], refs: Mapping[str, tuple[WorkloadRef, ...]]
    ) -> None:
        """The leases of workloads that no service has any more."""
        gone = set(removed)
        now = {n: own for n, own in {**self._refs, **refs}.items() if n not in gone}
        used = {ref for own in now.values() for ref in own}
        before = {ref for own in self._refs.values() for ref in own}
        self._leases.release(before - used)

    def _show_logs(self, service: Service) -> None:
        feed, follower = self._wiring.feed, self._wiring.follower
        if follower is not None:
            follower.show(service.name, service.logs.containers)
            follower.pods_changed(service.name, feed.current(service.name))

    # --- ports ---------------------------------------------------------------------------------

    def _open_ports(
        self,
        services: Mapping[str, Service],
        refs: Mapping[str, tuple[WorkloadRef, ...]],
        loaded: LoadedProject,
    ) -> Diagnosis | None:
        """Why not, where they cannot be opened; those of before are open then."""
        forwards = self._wiring.forwards
        if forwards is None:
            return None
        try:
            forwards.use(services, refs)
        except DevloopError as error:
            with contextlib.suppress(DevloopError):
                forwards.use(self._with_old_ports(services), refs)
            return replace(error.diagnosis, location=_port_location(error, services, loaded))
        return None

    def _with_old_ports(self, services: Mapping[str, Service]) -> dict[str, Service]:
        before = self._services
        return {
            name: replace(
                service,
                ports=before[name].ports if name in before else (),
                debug=before[name].debug if name in before else None,
            )
            for name, service in services.items()
        }

    def _with_ports_of_before(self, project: Project) -> Project:
        return replace(project, services=self._with_old_ports(project.services))


def _rendered_from(service: Service) -> tuple[object, ...]:
    deploy = service.deploy
    return deploy.manifests, deploy.kustomize, deploy.helm


def _moves(key: ChangedKey) -> bool:
    """Whether other workloads may run the service's image."""
    return key.change == "deploy" or key.path[2:] == ("image",)


def _opens_port(key: ChangedKey) -> bool:
    return key.change == "ports" or key.path[2:3] == ("debug",)


def _keeping(project: Project, before: Project, keys: Iterable[ChangedKey]) -> Project:
    """`project` with what a session cannot change as it was."""
    fields = [str(key.path[0]) for key in keys]
    return replace(project, **{name: getattr(before, name) for name in fields})


def _needs_restart(loaded: LoadedProject, keys: tuple[ChangedKey, ...]) -> tuple[Diagnosis, ...]:
    if not keys:
        return ()
    names = " and ".join(f"`{key}`" for key in keys)
    return (
        Diagnosis(
            code=Code.CONFIG_NEEDS_RESTART,
            severity="warning",
            message=f"{names} changed: restart devloop to use it",
            location=loaded.locate(*keys[0].path),
            cause="the session goes on with what it began with",
        ),
    )


def _stays(name: str, refs: Iterable[WorkloadRef]) -> Diagnosis:
    by_namespace: dict[str, list[str]] = {}
    for ref in refs:
        by_namespace.setdefault(ref.namespace, []).append(str(ref))
    commands = [f"kubectl -n {n} delete {' '.join(own)}" for n, own in by_namespace.items()]
    what = ", ".join(str(ref) for ref in refs) or "what runs of it"
    how = f"{' && '.join(commands)} deletes it" if commands else None
    return Diagnosis(
        code=Code.CONFIG_SERVICE_REMOVED,
        severity="info",
        message=f"devloop.yaml has no service `{name}` any more: {what} stays as it is",
        cause=how,
    )


def _port_location(
    error: DevloopError, services: Mapping[str, Service], loaded: LoadedProject
) -> Location:
    """Where the port stands that the error is about, else the first one."""
    first: Location | None = None
    for name, service in services.items():
        for position, port in enumerate(service.ports):
            where = loaded.locate("services", name, "ports", position)
            if f" {port.local} " in f"{error.diagnosis.message} ":
                return where
            first = first or where
        if service.debug and f" {service.debug.port} " in f"{error.diagnosis.message} ":
            return loaded.locate("services", name, "debug", "port")
    return first or loaded.locate("services")
