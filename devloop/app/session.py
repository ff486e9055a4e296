"""A session, started here, run to its end, and taken down in the reverse order."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import threading
from dataclasses import KW_ONLY, replace
from itertools import chain
from typing import TYPE_CHECKING, Literal

from devloop import __version__
from devloop.app import connect, only_session
from devloop.app.config_notice import contents_of
from devloop.app.early_control import EarlyControl
from devloop.app.preflight import preflight_environment, watch_workloads
from devloop.app.trust import check_trust
from devloop.app.workloads import renderings_for, with_used_services, workloads_of
from devloop.base.cancel import Cancel, Cancelled
from devloop.base.current import Current
from devloop.base.lazy_dataclass import dataclass
from devloop.base.platforms import own_platform
from devloop.base.threads import Background, reporting_bugs, supervised
from devloop.cluster.deploy.session_lease import SessionLeases
from devloop.config.files import check_files
from devloop.config.needs import prepared, with_needs
from devloop.config.problems import ConfigErrors, nearest
from devloop.control.event_file import EventFile
from devloop.control.session_file import SessionFile
from devloop.engine.bus import EventBus
from devloop.errors import Code, DevloopError, ExitStatus
from devloop.events import DiagnosticRaised, SessionEnded, SessionStarted
from devloop.ui import make_sink, report_early

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path
    from typing import TextIO

    from devloop.app.wiring import Wiring
    from devloop.cluster.api.connection import Connection
    from devloop.config.loader import LoadedProject
    from devloop.config.schema import Project, Service
    from devloop.engine.loop import Engine
    from devloop.engine.ports import Rendering
    from devloop.model import ImageRef, WorkloadRef
    from devloop.ui import Color, OutputKind
    from devloop.ui.keys import KeyReader


# From a stop to the end, in seconds: first all that closes, then the last events on their way out,
# and then to those who are connected from outside.
_CLOSE = 1.6
_DRAIN = 0.15
_FAREWELL = 0.1

# How many services are called by their names.
_NAMED = 8


@dataclass(eq=False)
class Session:
    """One `devloop dev`, `run` or `deploy`, from loading its project to its last event.

    `run` belongs to the main thread and returns the exit status; `stop` may come from any thread,
    before or while it runs, and makes it end soon."""

    load: Callable[[], LoadedProject]
    _: KW_ONLY
    mode: Literal["dev", "run"]
    only: tuple[str, ...] = ()
    output: OutputKind = "auto"
    color: Color = "auto"
    tail: bool = False
    takeover: bool = False
    suspend_gitops: bool = False
    pull: bool = False
    trust: bool = False
    page: int | None = None  # its port, 0 for the usual one or any; None: no page
    stream: TextIO | None = None  # what is reported goes there; None: standard output
    builds: bool = True  # False: deploys what is built already
    images: Path | None = None  # a file that says which; None: what the registry has of the disk

    def __post_init__(self) -> None:
        self._sink = make_sink(self.output, self.stream, color=self.color, env=os.environ)
        self._bus = EventBus(on_lost=self._reader_gone)
        self._cancel = Cancel()
        self._stopped: tuple[ExitStatus, str] | None = None
        self._engine: Engine | None = None
        self._control: EarlyControl | None = None
        self._keys: KeyReader | None = None
        self._status = ExitStatus.BUG
        self._bug: BaseException | None = None
        self._ending = threading.Event()

    def stop(self, status: ExitStatus, why: str = "") -> None:
        if self._stopped is None:
            self._stopped = (status, why)
        self._ending.set()
        self._cancel.set()
        if self._engine is not None:
            self._engine.stop(status, why)

    def run(self) -> ExitStatus:
        """Raises whatever was a bug, after everything is taken down."""
        self._bus.subscribe("output", self._sink, batch=self._sink.batch)
        # Not in the main thread: that one must be free to run the signal handlers.
        with reporting_bugs(self.report_bug):
            thread = supervised("session", self._run)
            thread.start()
            self._ending.wait()
            # Not for ever: what does not close in time is left behind with its threads.
            thread.join(_CLOSE if self._cancel.is_set() else None)
            status, why = self._stopped or (self._status, "")
            status = ExitStatus.BUG if self._bug is not None else status
            self._bus.publish(SessionEnded(exit_code=int(status), why=why))
            self._bus.close(_DRAIN)
            if self._control is not None:
                self._control.close(_FAREWELL)
            self.release_terminal()
            with contextlib.suppress(OSError):
                self._sink.close()
        if self._bug is not None:
            if isinstance(self._bug, DevloopError):
                # That nobody handled it is the bug.
                raise RuntimeError(_described(self._bug)) from self._bug
            raise self._bug
        return status

    def _checked(self, loaded: LoadedProject) -> dict[str, Service]:
        """The services that are asked for, of a project that can be gone on with. Errors: config/*,
        safety/untrusted."""
        services = needed_by(loaded.project, chosen(loaded.project, self.only))
        if self.images is None and (problems := check_files(loaded)):
            raise ConfigErrors(problems)
        self._check_trust(loaded, services)
        return services

    def _check_trust(self, loaded: LoadedProject, services: Iterable[str]) -> None:
        """Errors: safety/untrusted."""
        if not self.trust:
            check_trust(loaded, services)

    def _recover(self, connection: Connection, left_behind: Iterable[WorkloadRef]) -> None:
        from devloop.cluster.deploy.recovery import recover_abandoned  # noqa: PLC0415 - as the wiring

        for diagnosis in recover_abandoned(connection, left_behind, own=True):
            self._bus.publish(DiagnosticRaised.of(diagnosis))

    def report_bug(self, error: BaseException) -> None:
        """End the session because of an exception that nobody expected; from any thread."""
        self._bug = self._bug or error
        self.stop(ExitStatus.BUG, f"a bug in devloop: {_described(error)}")

    def _lease_lost(self, error: DevloopError) -> None:
        """Another session writes what this one did: from now on it must not."""
        self._bus.publish(DiagnosticRaised.of(error.diagnosis))
        self.stop(error.exit_status, error.diagnosis.message)

    def _report_early(self, text: str) -> None:
        try:
            report_early(text, self.output, self.stream, color=self.color, env=os.environ)
        except OSError as error:
            self._reader_gone("output", error)
            raise Cancelled from error

    def _reader_gone(self, name: str, error: Exception) -> None:
        """Nobody reads what a session says any more (`| head`): it ends as if stopped."""
        del name
        if isinstance(error, OSError):
            self.stop(ExitStatus.DONE, "the reader of the output went away")
        else:
            self.report_bug(error)

    def _run(self) -> None:
        try:
            with contextlib.ExitStack() as stack:
                self._status = self._start_and_run(stack)
        except Cancelled:
            self._status = self._stopped[0] if self._stopped else ExitStatus.BUG
        except DevloopError as error:
            for diagnosis in error.diagnoses:
                self._bus.publish(DiagnosticRaised.of(diagnosis))
            self._status = error.exit_status
        except Exception as error:  # noqa: BLE001 - raised again in the main thread
            self.report_bug(error)
        finally:
            self._ending.set()

    def _let_others_read(
        self, loaded: LoadedProject, services: Mapping[str, Service], stack: contextlib.ExitStack
    ) -> None:
        """Write down what happens, and in `dev` answer at the control socket."""
        project = loaded.project
        self._bus.subscribe("session-file", SessionFile(project.state_dir))
        written = EventFile(project.state_dir)
        self._bus.subscribe("event-file", written, batch=written.batch, capacity=2000)
        if self.mode == "dev":
            self._control = EarlyControl(project.state_dir, self._bus, services, page=self.page)
            # Before the lock is given back; its clients get the last events as well.
            stack.callback(self._control.withdraw)
        for note in loaded.notes:
            if note.severity == "warning":
                self._bus.publish(DiagnosticRaised.of(note))

    def _accept_requests(self, engine: Engine, stack: contextlib.ExitStack) -> None:
        """From now on there is something to steer: over the socket, and with keys where a person
        sees the session on a terminal."""
        if self._control is None:
            return
        control = self._control.opened(self._cancel)
        control.steer(engine)
        if control.problem is not None:
            self._bus.publish(DiagnosticRaised.of(control.problem))
        if not self._sink.interactive:
            return
        # Imported late: whoever has no terminal needs none of it.
        from devloop.app.keys import HINT, SessionKeys  # noqa: PLC0415
        from devloop.ui.keys import KeyReader  # noqa: PLC0415
        from devloop.ui.terminal import TerminalSink  # noqa: PLC0415

        view = self._sink
        assert isinstance(view, TerminalSink)  # noqa: S101 - the only one with keys
        keys = SessionKeys(control, view, self.stop)
        # No terminal to type on, or none at all.
        with contextlib.suppress(OSError, ValueError, AttributeError):
            self._keys = KeyReader(sys.stdin, keys.pressed)
            stack.callback(self._keys.close)
            view.note(f"  {HINT}")

    def release_terminal(self) -> None:
        """Set the terminal as it was, for whoever leaves without waiting for the end."""
        if self._keys is not None:
            self._keys.restore()

    def _start_and_run(self, stack: contextlib.ExitStack) -> ExitStatus:
        loaded = self.load()
        # At once: an edit while all the rest is asked and imported is one to take over.
        contents, project = contents_of(loaded.files), loaded.project
        services = self._checked(loaded)
        images = self._images(loaded, services)
        stack.enter_context(only_session(project))
        asked = "the cluster, its registry and Docker" if self.builds else "the cluster"
        what = f"{names_of(project, services, self.only)}{with_profiles(loaded)}"
        self._report_early(f"{what}: asking {asked}")
        self._let_others_read(loaded, services, stack)
        connection = stack.enter_context(connect(project))

        def meanwhile() -> tuple[Current[str, Rendering], Background[type[Wiring]]]:
            renderings = renderings_for(
                project.services.values(),
                show=loaded.show,
                namespace=connection.namespace,
                cancel=self._cancel,
            )
            adapters = Background("adapters", _import_wiring)
            stack.callback(adapters.close)
            return Current(renderings), adapters

        environment, (renderings, adapters) = preflight_environment(
            project,
            services,
            connection,
            self._cancel,
            stack,
            meanwhile=meanwhile,
            patient=self.mode == "dev",
            images="built" if self.builds else "pushed" if images == "pushed" else "given",
        )
        registry = environment.target.repository("")
        services = with_used_services(project, services, renderings, registry)
        images = self._images(loaded, services)
        self._check_trust(loaded, services)
        services = built_for(services, environment.platforms)
        if self.mode == "run":
            services = as_written(services)
        self._bus.publish(
            SessionStarted(
                version=__version__,
                mode=self.mode if self.builds else "deploy",
                project=project.name,
                root=str(project.root),
                context=connection.context,
                namespace=connection.namespace,
                registry=str(environment.target),
                services=tuple(services),
                pid=os.getpid(),
            )
        )
        if (refused := environment.refused) is not None:
            # A builder may try for a minute before it says so.
            self._bus.publish(DiagnosticRaised.of(replace(refused, severity="warning")))
        workloads = workloads_of(
            project,
            services,
            renderings,
            connection,
            registry=registry,
        )
        refs = tuple(dict.fromkeys(chain(*workloads.values())))
        leases = SessionLeases(
            connection,
            [ref for ref in refs if ref.serves],
            project=project.name,
            takeover=self.takeover,
            on_lost=self._lease_lost,
            report=lambda diagnosis: self._bus.publish(DiagnosticRaised.of(diagnosis)),
        )
        stack.callback(leases.close)
        acquired = Background("acquire leases", leases.acquire, expected=(DevloopError,))
        stack.callback(acquired.close)
        view = watch_workloads(refs, connection, stack)
        wiring = adapters.result(self._cancel)(
            loaded,
            services,
            connection,
            environment,
            view,
            renderings=renderings,
            workloads=workloads,
            mode=self.mode,
            publish=self._bus.publish,
            stack=stack,
            load=self.load,
            contents=contents,
            pull=self.pull,
            images=images,
            check_trust=self._check_trust,
            suspend_gitops=self.suspend_gitops,
        )
        return self._work(wiring, leases, acquired, connection, stack)

    def _work(
        self,
        wiring: Wiring,
        leases: SessionLeases,
        acquired: Background[None],
        connection: Connection,
        stack: contextlib.ExitStack,
    ) -> ExitStatus:
        """What a session does once all it needs is there, to its end."""
        lasting = self.mode == "dev" or self.tail  # until it is stopped
        # What is there now stays: no collection need look through it ever again.
        gc.freeze()
        gc.enable()
        if lasting:
            wiring.open_port_forwards()
            wiring.follow_logs()
        acquired.result(self._cancel)
        if left_behind := leases.left_behind:
            self._recover(connection, left_behind)
        self._engine = wiring.engine(leases, only=self.only)
        self._accept_requests(self._engine, stack)
        status = ExitStatus.DONE
        if self._stopped is None:
            status = self._engine.run()
            if not lasting:
                wiring.hand_over(self._cancel)
            if self.tail and status is ExitStatus.DONE:
                while not self._cancel.wait(3600):
                    pass
        return self._stopped[0] if self._stopped else status

    def _images(
        self, loaded: LoadedProject, services: Mapping[str, Service]
    ) -> Mapping[str, ImageRef] | Literal["pushed"] | None:
        """What `services` are to run; None where that is still to be built. Errors: as
        `images_for`, config/* for manifests that are not there."""
        if self.builds or self.images is None:
            return None if self.builds else "pushed"
        from devloop.app.image_file import images_for  # noqa: PLC0415 - few need it
        from devloop.app.render import check_manifest_files  # noqa: PLC0415 - as above

        check_manifest_files(loaded)
        return images_for(self.images, services)


def _import_wiring(_cancel: Cancel) -> type[Wiring]:
    from devloop.app.wiring import Wiring  # noqa: PLC0415 - half of all modules: while others answer

    return Wiring


def _described(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def chosen(project: Project, only: tuple[str, ...]) -> dict[str, Service]:
    """The services named on the command line, all when none is. Errors: config/unknown-service."""
    for name in only:
        if name not in project.services:
            meant = nearest(name, project.services)
            raise DevloopError.of(
                Code.CONFIG_UNKNOWN_SERVICE,
                f"devloop.yaml has no service {name!r}",
                cause="services: " + ", ".join(project.services),
                suggestions=(f"did you mean {meant}?",) if meant else (),
            )
    return {name: s for name, s in project.services.items() if not only or name in only}


def needed_by(project: Project, services: Mapping[str, Service]) -> dict[str, Service]:
    """`services` and what they need, in the order of the file."""
    names = with_needs(services, project.services)
    return {name: s for name, s in project.services.items() if name in names}


def names_of(project: Project, services: Mapping[str, Service], only: tuple[str, ...] = ()) -> str:
    """What a session works for, in few words; those that were not asked for are needed."""
    asked = [name for name in services if not only or name in only]
    needed = [name for name in services if name not in asked]
    names = ", ".join(asked) if len(asked) <= _NAMED else f"{len(asked)} services"
    if needed:
        names += f" and what is needed: {', '.join(needed)}"
    return names if names == project.name else f"{project.name} ({names})"


def with_profiles(loaded: LoadedProject) -> str:
    """Which profiles count, and why, in a few words; "" where none does."""
    if not loaded.profiles:
        return ""
    return f" with profile {', '.join(map(str, loaded.profiles))}"


def as_written(services: Mapping[str, Service]) -> dict[str, Service]:
    """The services with their Dockerfiles as they stand: a cache is for the inner loop alone."""
    return {n: replace(s, build=replace(s.build, cache=())) for n, s in services.items()}


def built_for(services: Mapping[str, Service], platforms: tuple[str, ...]) -> dict[str, Service]:
    """The services with the nodes' platform, where none is given and this computer's is another,
    and with places for the images that they need.

    Builders make images for their own platform; asking for it by name as well would only keep
    them from the caches that they filled without."""
    own = own_platform()
    services = {n: replace(s, build=prepared(s.build, s.needs)) for n, s in services.items()}
    services = {n: _of_several(s, platforms) for n, s in services.items()}
    if not platforms or own in platforms:
        return services
    return {
        name: replace(
            service, build=replace(service.build, platform=service.build.platform or platforms[0])
        )
        for name, service in services.items()
    }


def _of_several(service: Service, nodes: tuple[str, ...]) -> Service:
    """The service with the platform that it is deployed for, where it is built for several."""
    build = service.build
    of_nodes = next((each for each in build.platforms if each in nodes), None)
    return replace(service, build=replace(build, platform=of_nodes)) if of_nodes else service
