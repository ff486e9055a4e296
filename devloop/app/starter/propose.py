"""From what is in a folder to a devloop.yaml: which services there are, what runs them, and what of
that was assumed.

Reads the folder; the cluster is asked through what is handed in. Writes nothing. Where two answers
fit, that is said instead of taking one: `Proposal.doubts`.
"""

from __future__ import annotations

import os
from dataclasses import field
from typing import TYPE_CHECKING

import yaml

from devloop.app.starter.candidates import Candidate, Told, find_candidates
from devloop.app.starter.dockerfiles import FoundPort, facts
from devloop.app.starter.look import MOST, Found, look
from devloop.app.starter.objects import NewObjects, manifest
from devloop.app.starter.rendered import FoundRenderings
from devloop.app.starter.workloads import (
    FoundManifests,
    FoundWorkload,
    Match,
    is_others,
    match,
    own_images,
    read_workloads,
)
from devloop.base.lazy_dataclass import dataclass
from devloop.config.rules import label_from

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from devloop.app.starter.compose import ComposeService


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposedService:
    """A service as devloop.yaml shall have it; "" and () for what need not stand there. Paths are
    relative to the project's folder, `dockerfile` and `ignore` to the context. `cache` stands for
    `cache: auto`. `why` has a remark for some of the keys."""

    name: str
    context: str = "."
    dockerfile: str = ""
    target: str = ""
    args: tuple[tuple[str, str | None], ...] = ()
    ignore: tuple[str, ...] = ()
    cache: bool = False
    image: str = ""
    workload: str = ""
    manifests: tuple[str, ...] = ()
    kustomize: str = ""
    chart: str = ""
    ports: tuple[int | str, ...] = ()
    why: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """`manifests` are files to write, by path; `env_file` is for the key of that name. `found` and
    `assumed` are lines for a person, `unread` what was found and is not made use of. With `doubts`
    it is more than a person should be surprised with: each is a reason."""

    services: tuple[ProposedService, ...] = ()
    manifests: Mapping[str, str] = field(default_factory=dict)
    env_file: str = ""
    found: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a proposal depends on besides the folder. `running` asks the cluster for what runs in
    it, where devloop may work with it; `is_free` whether a local port is; `own` is where manifests
    go that are made, in place of the folder itself, and `command` what they say they are from.
    `rendered` starts kustomize and helm for what is rendered by them."""

    env: Mapping[str, str] = field(default_factory=dict)
    running: Callable[[], Sequence[FoundWorkload]] = tuple
    rendered: Callable[[Path, Found], FoundRenderings] = lambda _root, _seen: FoundRenderings()
    is_free: Callable[[int], bool] = lambda _: True
    own: str = ""
    command: str = "devloop init"


def propose(root: Path, around: Surroundings, *, name: str = "") -> Proposal:
    """What a devloop.yaml in `root` would say. `name` is what the service is called, where there is
    one."""
    return _Proposing(root, around, name).result()


_LOCAL_LEAST = 1024


class _Proposing:
    def __init__(self, root: Path, around: Surroundings, name: str) -> None:
        self.root = root
        self.around = around
        self.name = name
        self.seen: Found = look(root)
        self.told = Told()
        self._locals: set[int] = set()
        self._rendered = FoundRenderings()

    def result(self) -> Proposal:
        candidates = find_candidates(self.root, self.seen, self.around.env, self.name, self.told)
        manifests = self._manifests()
        if not self.seen.complete:
            self.told.unread.append(f"whatever comes after the first {MOST:,} files")
        if not candidates:
            self.told.doubts.append("there is no Dockerfile here, nor a few folders below")
        matches = self._matches(candidates, manifests)
        used = {each.workload.file for each in matches.values() if each.workload.by}
        inner = {
            file.rpartition("/")[0] or "."
            for folder in used
            for file in self._rendered.made_of.get(folder, ())
        }
        self.told.unread[:0] = [
            each for folder, each in self._tools() if folder not in used | inner
        ]
        made: dict[str, str] = {}
        services = []
        for each in candidates:
            service, objects = self._service(each, matches.get(each.name), candidates, manifests)
            services.append(service)
            made |= objects
        return Proposal(
            services=tuple(services),
            manifests=made,
            env_file=self._env_file(candidates),
            found=tuple(self.told.found),
            assumed=tuple(self.told.assumed),
            unread=tuple(self.told.unread),
            doubts=tuple(self.told.doubts),
        )

    def _env_file(self, candidates: Sequence[Candidate]) -> str:
        """The .env that Compose reads by itself, where a build argument may need it."""
        for each in candidates:
            values = each.compose.args if each.compose else ()
            if each.compose and any("$" in (value or "") for _, value in values):
                path = f"{each.compose.file.rpartition('/')[0]}/.env".removeprefix("/")
                return path if (self.root / path).is_file() else ""
        return ""

    # What runs it

    def _manifests(self) -> FoundManifests:
        kustomizations = self.seen.kustomizations
        left_out = [each for each in kustomizations if not self._plain_kustomization(each)]
        self.told.unread += [f"{path} (Skaffold)" for path in self.seen.skaffold]
        inside = tuple("" if each == "." else f"{each}/" for each in left_out)
        paths = [path for path in self.seen.yaml if not _directly_in(path, inside)]
        found = read_workloads(self.root, paths)
        self.told.unread += found.problems
        return found

    def _tools(self) -> Iterator[tuple[str, str]]:
        """Folders that a tool renders, each with how it is called."""
        tools = (("kustomize", self.seen.kustomizations), ("Helm chart", self.seen.charts))
        return ((folder, f"{folder}/ ({tool})") for tool, folders in tools for folder in folders)

    def _plain_kustomization(self, folder: str) -> bool:
        """Whether its resources can be applied as they stand."""
        for name in ("kustomization.yaml", "kustomization.yml", "Kustomization"):
            try:
                text = (self.root / folder / name).read_text("utf-8")
                document = yaml.safe_load(text)
            except (OSError, ValueError, yaml.YAMLError):
                continue
            return isinstance(document, dict) and document.keys() <= _PLAIN
        return False

    def _matches(
        self, candidates: Sequence[Candidate], manifests: FoundManifests
    ) -> dict[str, Match]:
        found = self._matched(candidates, manifests.workloads, at="manifests")
        if found and not all(map(self._plain_kustomization, self.seen.kustomizations)):
            found = self._built_on(found, candidates)
        if found or manifests.workloads or not candidates:
            return found
        if self.seen.kustomizations or self.seen.charts:
            self._rendered = self.around.rendered(self.root, self.seen)
            self.told.unread += self._rendered.problems
            self.told.doubts += self._rendered.doubts
            if self._rendered.workloads:
                return self._matched(candidates, self._rendered.workloads, at="manifests")
        running = self.around.running()
        found = self._matched(candidates, running, at="cluster")
        self.told.found += [f"{each.workload} in the cluster" for each in found.values()]
        return found

    def _built_on(
        self, found: dict[str, Match], candidates: Sequence[Candidate]
    ) -> dict[str, Match]:
        """With what an overlay makes of a base, in place of the base alone."""
        self._rendered = rendered = self.around.rendered(self.root, self.seen)
        doubts = list(self.told.doubts)
        matched = self._matched(candidates, rendered.workloads, at="manifests")
        self.told.doubts[:] = doubts
        better = {
            name: match
            for name, match in matched.items()
            if name in found
            and found[name].workload.file in rendered.made_of.get(match.workload.file, ())
            and not self._plain_kustomization(match.workload.file)
        }
        return found | better

    def _matched(
        self, candidates: Sequence[Candidate], workloads: Sequence[FoundWorkload], *, at: str
    ) -> dict[str, Match]:
        ranked = {each.name: match(each.name, each.folder, workloads) for each in candidates}
        best = {name: found[0] for name, found in ranked.items() if found}
        if len(candidates) == 1 and not best and at == "manifests":
            best = self._only(candidates[0], workloads)
        # An image has one maker: the one that it fits best.
        taken: dict[str, str] = {}
        for name, found in sorted(best.items(), key=lambda pair: -pair[1].score):
            taken.setdefault(found.image, name)
        best = {name: found for name, found in best.items() if taken[found.image] == name}
        for name, found in best.items():
            equal = {
                (each.image, str(each.workload), each.workload.file)
                for each in ranked[name]
                if each.score == found.score and each.workload.kind == found.workload.kind
            }
            if len({image for image, *_ in equal}) > 1 or len({file for *_, file in equal}) > len(
                {workload for _, workload, _ in equal}
            ):
                these = " or ".join(sorted({f"{w} ({f or 'running'})" for _, w, f in equal}))
                self.told.doubts.append(f"{name} could be {these}")
        return best

    def _only(self, candidate: Candidate, workloads: Sequence[FoundWorkload]) -> dict[str, Match]:
        """The one image that nobody else makes."""
        images = own_images(workloads)
        if len(images) == 1:
            ((_, found),) = images.items()
            found.sort(key=lambda each: each.workload.kind != "deployment")
            return {candidate.name: found[0]}
        if images:
            several = ", ".join(
                f"{found[0].image} ({found[0].workload})" for found in images.values()
            )
            self.told.doubts.append(f"{candidate.path} could make any of {several}")
        return {}

    # The service

    def _service(
        self,
        candidate: Candidate,
        matched: Match | None,
        all_of_them: Sequence[Candidate],
        manifests: FoundManifests,
    ) -> tuple[ProposedService, dict[str, str]]:
        compose = candidate.compose
        told = facts(
            self.root,
            candidate.path,
            context=compose.context if compose else None,
            target=compose.target if compose else "",
        )
        why: dict[str, str] = {}
        name = candidate.name
        if matched and len(all_of_them) == 1 and not self.name:
            name = label_from(matched.workload.name) or name
        ports = self._ports(candidate, told.ports, matched)
        made: dict[str, str] = {}
        files: tuple[str, ...] = ()
        workload = image = kustomize = chart = ""
        if matched is not None:
            image = matched.service_image
            image = "" if image == name else image
            shown = f"{matched.workload} runs {matched.image}"
            if matched.workload.by:
                kustomize = matched.workload.file if matched.workload.by == "kustomize" else ""
                chart = f"./{matched.workload.file}" if matched.workload.by == "helm" else ""
                why["rendered"] = shown
                self.told.found.append(f"{matched.workload.file}/: {shown}")
            elif matched.workload.file:
                files = self._files(matched, manifests, all_of_them)
                why["manifests"] = shown
                self.told.found.append(f"{matched.workload.file}: {shown}")
            else:
                workload = str(matched.workload)
                why["workload"] = f"in the cluster; it runs {matched.image}"
        elif not self._has_others(manifests):
            path = f"{self.around.own}{'k8s' if len(all_of_them) == 1 else f'k8s/{name}'}.yaml"
            new = NewObjects(name=name, image=name, ports=ports)
            made = {path: manifest(new, command=self.around.command)}
            files = (path,)
            why["manifests"] = "written for you"
            what = "a Deployment and a Service" if ports else "a Deployment"
            self.told.assumed.append(f"{what} called {name}, as there are no manifests: {path}")
            if not ports:
                self.told.assumed.append(
                    f"{candidate.path} names no port: add EXPOSE, or `ports` to devloop.yaml and "
                    f"{path}"
                )
        else:
            workload = f"deployment/{name}"
            why["workload"] = "a guess: it has to be in the cluster already"
            self.told.doubts.append(f"nothing that was found runs the image of {candidate.path}")
        dockerfile = os.path.relpath(candidate.path, told.context)
        chosen = self._local_ports(ports, compose)
        if chosen:
            why["ports"] = "; ".join(dict.fromkeys(port.why for port in ports))
        ignore = (
            self._ignore(told.context, candidate.path, (*files, *made)) if told.takes_all else ()
        )
        if ignore:
            why["ignore"] = "there is no .dockerignore"
        service = ProposedService(
            name=name,
            context=told.context,
            dockerfile="" if dockerfile == "Dockerfile" else dockerfile,
            target=compose.target if compose else "",
            args=compose.args if compose else (),
            ignore=ignore,
            image=image,
            workload=workload,
            manifests=files,
            kustomize=kustomize,
            chart=chart,
            ports=chosen,
            why=why,
        )
        return service, made

    def _has_others(self, manifests: FoundManifests) -> bool:
        """Whether the project says somehow else what runs in the cluster."""
        seen = self.seen
        images = [image for w in manifests.workloads for _, image in w.images]
        mine = any(not is_others(image) for image in images)
        return bool(mine or seen.kustomizations or seen.charts or seen.skaffold)

    def _ports(
        self, candidate: Candidate, ports: tuple[FoundPort, ...], matched: Match | None
    ) -> tuple[FoundPort, ...]:
        if matched is not None:
            of_it = [port for name, port in matched.workload.ports if name == matched.container]
            if of_it:
                where = matched.workload.file or str(matched.workload)
                return tuple(FoundPort(number=port, why=where) for port in dict.fromkeys(of_it))
        if candidate.compose and candidate.compose.ports:
            numbers = dict.fromkeys(port for _, port in candidate.compose.ports)
            return tuple(FoundPort(number=n, why=candidate.compose.file) for n in numbers)
        return ports

    def _local_ports(
        self, ports: Iterable[FoundPort], compose: ComposeService | None
    ) -> tuple[int | str, ...]:
        published = {port: local for local, port in compose.ports if local} if compose else {}
        found: list[int | str] = []
        for port in ports:
            local = wanted = published.get(port.number) or port.number
            if local < _LOCAL_LEAST:
                local = wanted = 8000 + local
            while local in self._locals or not self.around.is_free(local):
                local += 1
                if local > wanted + 50:
                    local = wanted
                    break
            if local != wanted:
                self.told.assumed.append(
                    f"local port {local} for {port.number}: {wanted} is in use"
                )
            self._locals.add(local)
            found.append(local if local == port.number else f"{local}:{port.number}")
        return tuple(found)

    def _files(
        self, matched: Match, manifests: FoundManifests, all_of_them: Sequence[Candidate]
    ) -> tuple[str, ...]:
        """The manifests of a service: its folder's, as one pattern where that means the same; of a
        folder that it shares with other services what is its own."""
        folder = matched.workload.file.rpartition("/")[0]
        here = [path for path in manifests.files if path.rpartition("/")[0] == folder]
        images = {matched.image.partition("@")[0]}
        with_mine = {
            w.file for w in manifests.workloads if any(image in images for _, image in w.images)
        }
        if len(all_of_them) > 1:
            with_others = {
                w.file
                for w in manifests.workloads
                if w.file not in with_mine and any(not is_others(i) for _, i in w.images)
            }
            first = min(with_mine | with_others)
            here = [
                path
                for path in here
                if path in with_mine
                or (
                    path not in with_others
                    and (self._about(path, matched, manifests) or first in with_mine)
                )
            ]
        elsewhere = [path for path in sorted(with_mine) if path not in here and not folder]
        here = [*here, *elsewhere]
        every = [p for p in self.seen.yaml if p.rpartition("/")[0] == folder]
        # A wildcard would bring a kustomization along, with a warning.
        plain = folder and folder not in self.seen.kustomizations
        if plain and len(here) > 1 and set(every) == set(here):
            endings = sorted({path.rpartition(".")[2] for path in here})
            return tuple(f"{folder}/*.{ending}" for ending in endings)
        return tuple(here)

    def _about(self, path: str, matched: Match, manifests: FoundManifests) -> bool:
        name = matched.workload.name
        return all(
            each == name or each.startswith(f"{name}-") for each in manifests.objects.get(path, ())
        )

    def _ignore(self, context: str, dockerfile: str, files: Iterable[str]) -> tuple[str, ...]:
        """What an image needs none of, where no .dockerignore says so."""
        where = self.root / context
        if (where / ".dockerignore").is_file():
            return ()
        if (self.root / f"{dockerfile}.dockerignore").is_file():
            return ()
        inside = "" if context == "." else f"{context}/"
        mine = ["devloop.yaml"] if context == "." else []
        mine += [
            path.removeprefix(inside)
            for path in files
            if path.startswith(inside) and not path.startswith(".")
        ]
        there = [name for name in _NEEDLESS if (where / name).exists()]
        return tuple(dict.fromkeys((*mine, *there)))


_PLAIN = {"apiVersion", "kind", "metadata", "resources"}
_NEEDLESS = (".git", ".env", "node_modules", ".venv", "venv", "__pycache__")


def _directly_in(path: str, folders: tuple[str, ...]) -> bool:
    folder = path.rpartition("/")[0]
    return (f"{folder}/" if folder else "") in folders
