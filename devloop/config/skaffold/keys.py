"""Every key of skaffold.yaml, and what becomes of it here.

The table is Skaffold's schema (v4beta13, pkg/skaffold/schema/v4beta13/config.go, and what older
versions had that `upgrade` leaves as it is). `[]` stands for the items of a list, `*` for any key.
A key that is not in it is reported as unknown: nothing is ignored in silence.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from devloop.base.lazy_dataclass import dataclass
from devloop.base.yaml_tree import Items, Keys
from devloop.config.problems import nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from devloop.base.yaml_tree import MappingEntry, Node


@dataclass(frozen=True, slots=True)
class Fate:
    """What becomes of a key. `mapped`: devloop has it; `harmless`: `devloop dev` does as well
    without it; `matters`: what runs, or how, differs. `why` is for people: what devloop does
    instead. `needs` is the key of a service that it becomes, where a devloop without that key
    treats it as `otherwise` says."""

    fate: Literal["mapped", "harmless", "matters"]
    why: str = ""
    needs: str = ""
    otherwise: Literal["harmless", "matters"] = "matters"


_MAPPED = Fate("mapped")


def _becomes(key: str, otherwise: Literal["harmless", "matters"] = "matters") -> Fate:
    return Fate("mapped", needs=key, otherwise=otherwise)


def _harmless(why: str) -> Fate:
    return Fate("harmless", why)


def _matters(why: str) -> Fate:
    return Fate("matters", why)


_LOCALLY = "the image is built from its Dockerfile, with docker buildx or Docker"
_KANIKO = _harmless(_LOCALLY)
_ONLY_VERIFY = "only `skaffold verify` and `skaffold exec` run it"
_WATCHED = "all of the context is watched"
_APPLIES = "devloop applies manifests by itself, not with kubectl"
_PINNED = "images are deployed by their digest, whatever their tag"

KEYS: dict[str, Fate] = {
    "apiVersion": _MAPPED,
    "kind": _MAPPED,
    "metadata": _MAPPED,
    "metadata.name": _MAPPED,
    "metadata.labels": _harmless("nothing reads them"),
    "metadata.annotations": _harmless("nothing reads them"),
    # requires
    "requires": _MAPPED,
    "requires[].configs": _MAPPED,
    "requires[].path": _MAPPED,
    "requires[].activeProfiles": _MAPPED,
    "requires[].activeProfiles[].name": _MAPPED,
    "requires[].activeProfiles[].activatedBy": _MAPPED,
    "requires[].git": _MAPPED,
    "requires[].git.repo": _MAPPED,
    "requires[].git.path": _MAPPED,
    "requires[].git.ref": _MAPPED,
    "requires[].git.sync": _MAPPED,
    "requires[].googleCloudStorage": _matters(
        "copy it beside this project and name it with `path`"
    ),
    "requires[].googleCloudBuildRepoV2": _matters("clone it beside this project; name its `path`"),
    # build
    "build": _MAPPED,
    "build.artifacts": _MAPPED,
    "build.hooks": _becomes("hooks"),
    "build.hooks.before": _MAPPED,
    "build.hooks.after": _MAPPED,
    "build.hooks.before[].command": _MAPPED,
    "build.hooks.before[].os": _MAPPED,
    "build.hooks.before[].dir": _MAPPED,
    "build.hooks.after[].command": _MAPPED,
    "build.hooks.after[].os": _MAPPED,
    "build.hooks.after[].dir": _MAPPED,
    "build.insecureRegistries": _harmless("devloop finds out whether its registry speaks HTTPS"),
    "build.tagPolicy": _harmless(_PINNED),
    "build.platforms": _MAPPED,
    "build.local": _MAPPED,
    "build.local.push": _harmless("where there is a registry images are pushed, else loaded"),
    "build.local.tryImportMissing": _harmless("nothing that is built already is built again"),
    "build.local.useDockerCLI": _harmless("devloop uses what is there"),
    "build.local.useBuildkit": _harmless("docker buildx builds where it is there"),
    "build.local.concurrency": _harmless("independent images are built at once"),
    "build.googleCloudBuild": _harmless(_LOCALLY),
    "build.cluster": _harmless(_LOCALLY),
    "build.kaniko": _harmless(_LOCALLY),
    "build.artifacts[].image": _MAPPED,
    "build.artifacts[].context": _MAPPED,
    "build.artifacts[].sync": _MAPPED,
    "build.artifacts[].sync.manual": _MAPPED,
    "build.artifacts[].sync.manual[].src": _MAPPED,
    "build.artifacts[].sync.manual[].dest": _MAPPED,
    "build.artifacts[].sync.manual[].strip": _MAPPED,
    "build.artifacts[].sync.infer": _MAPPED,
    "build.artifacts[].sync.auto": _MAPPED,
    "build.artifacts[].sync.hooks": _becomes("hooks"),
    "build.artifacts[].requires": _becomes("needs"),
    "build.artifacts[].requires[].image": _MAPPED,
    "build.artifacts[].requires[].alias": _MAPPED,
    "build.artifacts[].hooks": _becomes("hooks"),
    "build.artifacts[].platforms": _MAPPED,
    "build.artifacts[].runtimeType": _harmless("it is for `skaffold debug`; see `debug`"),
    "build.artifacts[].docker": _MAPPED,
    "build.artifacts[].docker.dockerfile": _MAPPED,
    "build.artifacts[].docker.target": _MAPPED,
    "build.artifacts[].docker.buildArgs": _MAPPED,
    "build.artifacts[].docker.buildArgs.*": _MAPPED,
    "build.artifacts[].docker.network": _becomes("build.network"),
    "build.artifacts[].docker.addHost": _becomes("build.add_host"),
    "build.artifacts[].docker.cacheFrom": _becomes("build.cache_from", "harmless"),
    # A warning names those that are not taken.
    "build.artifacts[].docker.cliFlags": _MAPPED,
    "build.artifacts[].docker.pullParent": _becomes("build.pull", "harmless"),
    "build.artifacts[].docker.noCache": _becomes("build.no_cache", "harmless"),
    "build.artifacts[].docker.squash": _harmless("the image has the same files in more layers"),
    "build.artifacts[].docker.secrets": _MAPPED,
    "build.artifacts[].docker.secrets[].id": _MAPPED,
    "build.artifacts[].docker.secrets[].src": _MAPPED,
    "build.artifacts[].docker.secrets[].dst": _harmless("the Dockerfile says where a secret goes"),
    "build.artifacts[].docker.secrets[].env": _MAPPED,
    "build.artifacts[].docker.ssh": _MAPPED,
    "build.artifacts[].bazel": _matters("write a `build.command` that calls bazel and pushes"),
    "build.artifacts[].ko": _MAPPED,
    "build.artifacts[].ko.fromImage": _MAPPED,
    "build.artifacts[].ko.dependencies": _MAPPED,
    "build.artifacts[].ko.dependencies.paths": _MAPPED,
    "build.artifacts[].ko.dependencies.ignore": _MAPPED,
    "build.artifacts[].ko.dir": _MAPPED,
    "build.artifacts[].ko.env": _MAPPED,
    "build.artifacts[].ko.flags": _MAPPED,
    "build.artifacts[].ko.labels": _MAPPED,
    "build.artifacts[].ko.labels.*": _MAPPED,
    "build.artifacts[].ko.ldflags": _MAPPED,
    "build.artifacts[].ko.main": _MAPPED,
    "build.artifacts[].jib": _MAPPED,
    "build.artifacts[].jib.project": _MAPPED,
    "build.artifacts[].jib.args": _MAPPED,
    "build.artifacts[].jib.type": _MAPPED,
    "build.artifacts[].jib.fromImage": _MAPPED,
    "build.artifacts[].kaniko": _MAPPED,
    "build.artifacts[].kaniko.dockerfile": _MAPPED,
    "build.artifacts[].kaniko.target": _MAPPED,
    "build.artifacts[].kaniko.buildArgs": _MAPPED,
    "build.artifacts[].kaniko.buildArgs.*": _MAPPED,
    "build.artifacts[].kaniko.contextSubPath": _matters("name the directory as `context`"),
    "build.artifacts[].kaniko.*": _KANIKO,
    "build.artifacts[].buildpacks": _MAPPED,
    "build.artifacts[].buildpacks.builder": _MAPPED,
    "build.artifacts[].buildpacks.runImage": _MAPPED,
    "build.artifacts[].buildpacks.env": _MAPPED,
    "build.artifacts[].buildpacks.buildpacks": _MAPPED,
    "build.artifacts[].buildpacks.trustBuilder": _MAPPED,
    "build.artifacts[].buildpacks.clearCache": _MAPPED,
    "build.artifacts[].buildpacks.forcePull": _harmless("`pack` decides"),
    "build.artifacts[].buildpacks.projectDescriptor": _MAPPED,
    "build.artifacts[].buildpacks.dependencies": _MAPPED,
    "build.artifacts[].buildpacks.dependencies.paths": _MAPPED,
    "build.artifacts[].buildpacks.dependencies.ignore": _MAPPED,
    "build.artifacts[].buildpacks.network": _MAPPED,
    "build.artifacts[].buildpacks.buildArgs": _MAPPED,
    "build.artifacts[].buildpacks.volumes": _MAPPED,
    "build.artifacts[].buildpacks.volumes[].host": _MAPPED,
    "build.artifacts[].buildpacks.volumes[].target": _MAPPED,
    "build.artifacts[].buildpacks.volumes[].options": _MAPPED,
    "build.artifacts[].custom": _MAPPED,
    "build.artifacts[].custom.buildCommand": _MAPPED,
    "build.artifacts[].custom.dependencies": _MAPPED,
    "build.artifacts[].custom.dependencies.dockerfile": _harmless(_WATCHED),
    "build.artifacts[].custom.dependencies.command": _harmless(_WATCHED),
    "build.artifacts[].custom.dependencies.paths": _MAPPED,
    "build.artifacts[].custom.dependencies.ignore": _MAPPED,
    # test
    "test": _becomes("hooks"),
    "test[].image": _MAPPED,
    "test[].context": _MAPPED,
    "test[].custom": _MAPPED,
    "test[].custom[].command": _MAPPED,
    "test[].custom[].timeoutSeconds": _MAPPED,
    "test[].custom[].dependencies": _harmless("tests run after each build"),
    "test[].structureTests": _MAPPED,
    "test[].structureTestsArgs": _MAPPED,
    # manifests
    "manifests": _MAPPED,
    "manifests.rawYaml": _MAPPED,
    "manifests.remoteManifests": _matters("write it into a file that `rawYaml` names"),
    "manifests.kustomize": _becomes("deploy.kustomize"),
    "manifests.kustomize.paths": _MAPPED,
    "manifests.kustomize.buildArgs": _matters("kustomize is called without them"),
    "manifests.helm": _becomes("deploy.helm"),
    "manifests.helm.flags": _matters("helm is called without them"),
    "manifests.helm.releases": _MAPPED,
    "manifests.helm.hooks": _becomes("hooks"),
    "manifests.kpt": _matters("write what kpt renders into a file that `rawYaml` names"),
    "manifests.transform": _matters("transformers of kpt are not run"),
    "manifests.validate": _harmless("the API server validates what is applied"),
    "manifests.output": _harmless("nothing is written"),
    "manifests.hooks": _becomes("hooks"),
    # deploy
    "deploy": _MAPPED,
    "deploy.docker": _matters(
        "devloop deploys to Kubernetes only: Docker containers are out of scope"
    ),
    "deploy.cloudrun": _matters("devloop deploys to Kubernetes only: Cloud Run is out of scope"),
    "deploy.kpt": _matters("devloop applies manifests by itself, not with kpt"),
    "deploy.kptV2": _matters("devloop applies manifests by itself, not with kpt"),
    "deploy.statusCheck": _harmless("devloop follows each rollout"),
    "deploy.statusCheckDeadlineSeconds": _MAPPED,
    "deploy.tolerateFailuresUntilDeadline": _harmless("`devloop dev` never ends on a failure"),
    "deploy.kubeContext": _matters("a project does not choose the cluster"),
    "deploy.logs": _harmless("lines have the names of the service and the pod"),
    "deploy.kubectl": _MAPPED,
    "deploy.kubectl.flags": _harmless(_APPLIES),
    "deploy.kubectl.remoteManifests": _matters("write it into a file that `rawYaml` names"),
    "deploy.kubectl.defaultNamespace": _MAPPED,
    "deploy.kubectl.hooks": _becomes("hooks"),
    "deploy.helm": _becomes("deploy.helm"),
    "deploy.helm.concurrency": _harmless("charts are rendered, not installed"),
    "deploy.helm.flags": _matters("helm is called without them"),
    "deploy.helm.releases": _MAPPED,
    "deploy.helm.hooks": _becomes("hooks"),
    # the rest
    "portForward": _MAPPED,
    "portForward[].resourceType": _MAPPED,
    "portForward[].resourceName": _MAPPED,
    "portForward[].namespace": _MAPPED,
    "portForward[].port": _MAPPED,
    "portForward[].address": _MAPPED,
    "portForward[].localPort": _MAPPED,
    "resourceSelector": _harmless("custom resources count wherever they have containers"),
    "verify": _harmless(_ONLY_VERIFY),
    "customActions": _harmless(_ONLY_VERIFY),
    "profiles": _MAPPED,
}

_RELEASE = {
    "name": _MAPPED,
    "chartPath": _MAPPED,
    "remoteChart": _MAPPED,
    "valuesFiles": _MAPPED,
    "namespace": _MAPPED,
    "version": _MAPPED,
    "setValues": _MAPPED,
    "setValueTemplates": _MAPPED,
    "setFiles": _matters("put the value into a values file"),
    "artifactOverrides": _MAPPED,
    "imageStrategy": _MAPPED,
    "createNamespace": _harmless(
        "a namespace in the manifests is made; `kubectl create namespace`"
    ),
    "wait": _harmless("devloop follows each rollout"),
    "recreatePods": _harmless("pods get each new image"),
    "skipBuildDependencies": _harmless("dependencies are built where they are missing"),
    "skipTests": _MAPPED,
    "useHelmSecrets": _matters("decrypt the values into a file that `valuesFiles` names"),
    "repo": _MAPPED,
    "upgradeOnChange": _harmless("what is rendered counts"),
    "overrides": _MAPPED,
    "packaged": _harmless("the chart is rendered as it stands"),
    "dependsOn": _matters("all charts are deployed at once, in no order"),
}
for _where in ("manifests.helm", "deploy.helm"):
    KEYS |= {f"{_where}.releases[].{name}": fate for name, fate in _RELEASE.items()}
for _where in (
    "manifests.hooks",
    "manifests.helm.hooks",
    "deploy.kubectl.hooks",
    "deploy.helm.hooks",
):
    KEYS |= {f"{_where}.before": _MAPPED, f"{_where}.after": _MAPPED}

# Blocks in which every key is read, or whose keys are the user's own.
_WHOLE = (
    "build.artifacts[].hooks",
    "build.artifacts[].sync.hooks",
    "profiles",
    *(
        f"{where}.before"
        for where in (
            "manifests.hooks",
            "manifests.helm.hooks",
            "deploy.kubectl.hooks",
            "deploy.helm.hooks",
        )
    ),
    *(
        f"{where}.after"
        for where in (
            "manifests.hooks",
            "manifests.helm.hooks",
            "deploy.kubectl.hooks",
            "deploy.helm.hooks",
        )
    ),
    *(
        f"{where}.releases[].{name}"
        for where in ("manifests.helm", "deploy.helm")
        for name in (
            "setValues",
            "setValueTemplates",
            "artifactOverrides",
            "imageStrategy",
            "overrides",
        )
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundKey:
    """A key that is not simply mapped, by its `path` in Skaffold's words; `fate` is None for one
    that nobody knows, of which `meant` may be what was meant."""

    path: str
    entry: MappingEntry
    fate: Fate | None = None
    meant: str = ""


def remarkable(document: Keys, supports: Callable[[str], bool]) -> Iterator[FoundKey]:
    """The keys of an upgraded document that something is to be said of. `supports` says whether
    a key of a service exists in devloop.yaml: `build.network`."""
    yield from _below(document, "", supports)


def _below(node: Node, path: str, supports: Callable[[str], bool]) -> Iterator[FoundKey]:
    if isinstance(node, Items):
        for item in node.items:
            yield from _below(item, f"{path}[]", supports)
        return
    if not isinstance(node, Keys):
        return
    for each in node:
        name = f"{path}.{each.key}" if path else each.key
        if each.key.startswith(".") and not path:
            continue  # for anchors
        fate = KEYS.get(name) or KEYS.get(f"{path}.*")
        if fate is None:
            known = {
                key.rpartition(".")[2].removesuffix("[]")
                for key in KEYS
                if key.rpartition(".")[0] == path
            }
            yield FoundKey(path=name, entry=each, meant=nearest(each.key, known) or "")
        elif fate.needs and not supports(fate.needs):
            why = f"this devloop has no `{fate.needs}` yet"
            yield FoundKey(path=name, entry=each, fate=Fate(fate.otherwise, why))
        elif fate.fate != "mapped":
            yield FoundKey(path=name, entry=each, fate=fate)
        elif name not in _WHOLE:
            yield from _below(each.value, name, supports)
