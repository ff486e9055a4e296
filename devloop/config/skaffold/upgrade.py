"""A skaffold.yaml of any version since v1beta1 in the shape of the newest one. Pure.

Each step knows one change that Skaffold made; it looks for the old key and leaves a document
without it alone. What the versions changed is written down in Skaffold's own
pkg/skaffold/schema/*/upgrade.go.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from devloop.base.yaml_tree import Items, Keys
from devloop.config.skaffold.tree import (
    at,
    entries,
    entry,
    entry_at,
    given,
    is_true,
    items,
    listed,
    mapped,
    put,
    put_at,
    text_of,
    without,
    without_at,
)

if TYPE_CHECKING:
    from devloop.base.yaml_tree import Node


_VERSION = re.compile(r"skaffold/v([0-9]+)(?:(alpha|beta)([0-9]+))?")
_STAGES = {"alpha": 0, "beta": 1, None: 2}

OLDEST = "skaffold/v1beta1"
NEWEST_KNOWN = "skaffold/v4beta14"


def version_of(text: str) -> tuple[int, int, int] | None:
    """A version in the order of Skaffold's releases; None for what is none."""
    found = _VERSION.fullmatch(text)
    if found is None:
        return None
    major = int(found[1])
    stage = _STAGES[found[2]]
    # v1 came out after v1beta17, and v2alpha1 after that.
    return major, stage, int(found[3] or 0)


def one_deployer(text: str) -> bool:
    """Whether the version has one deployer at a time, so that a profile's takes the place of the
    one before."""
    version = version_of(text)
    return version is not None and version < (2, 1, 5)


def upgraded(document: Keys) -> Keys:
    """The document, whose profiles were put over it, in the newest shape."""
    for step in (_artifacts, _kustomize, _releases, _manifests):
        document = step(document)
    return document


def _artifacts(document: Keys) -> Keys:
    found = at(document, "build", "artifacts")
    if not isinstance(found, Items):
        return document
    new = listed(
        found.location,
        (_artifact(each) if isinstance(each, Keys) else each for each in found.items),
    )
    return put_at(document, ("build", "artifacts"), new)


def _artifact(artifact: Keys) -> Keys:
    renamed = {"imageName": "image", "workspace": "context", "buildpack": "buildpacks"}
    for before, after in renamed.items():
        artifact = _renamed(artifact, before, after)
    sync = entry_at(artifact, "sync")
    if sync is not None and _is_old_sync(sync.value):
        rules = (_sync_rule(each.key, each.value) for each in entries(sync.value))
        manual = listed(sync.value.location, rules)
        new = mapped(sync.value.location, entry("manual", manual, sync.location))
        artifact = put(artifact, "sync", new)
    artifact = _jib(artifact)
    secret = entry_at(artifact, "docker", "secret")
    if secret is not None:
        secrets = listed(secret.value.location, [secret.value])
        artifact = put_at(artifact, ("docker", "secrets"), secrets, secret.location)
        artifact = without_at(artifact, "docker", "secret")
    return artifact


def _is_old_sync(node: Node) -> bool:
    """Whether it maps patterns to destinations, as before v1beta10."""
    names = {each.key for each in entries(node)}
    return bool(names) and not names & {"manual", "infer", "auto", "hooks"}


def _sync_rule(pattern: str, dest: Node) -> Keys:
    place = dest.location
    before, stars, _ = pattern.partition("***")
    return mapped(
        place,
        entry("src", given(pattern.replace("***", "**"), place)),
        entry("dest", dest),
        entry("strip", given(before, place)) if stars and before else None,
    )


def _jib(artifact: Keys) -> Keys:
    for old, project in (("jibMaven", "module"), ("jibGradle", "project")):
        found = entry_at(artifact, old)
        if found is None:
            continue
        args = [*items(at(found.value, "args"))]
        if profile := text_of(at(found.value, "profile")):
            place = found.location
            args += [given("--activate-profiles", place), given(profile, place)]
        named = entry_at(found.value, project)
        kind = "maven" if old == "jibMaven" else "gradle"
        new = mapped(
            found.location,
            entry("project", named.value, named.location) if named else None,
            entry("args", listed(found.location, args)) if args else None,
            entry("type", given(kind, found.location)),
        )
        artifact = put(without(artifact, old), "jib", new, found.location)
    return artifact


def _kustomize(document: Keys) -> Keys:
    """`deploy.kustomize` of v1 and v2 is `manifests.kustomize`."""
    found = entry_at(document, "deploy", "kustomize")
    if found is None:
        return document
    old = found.value if isinstance(found.value, Keys) else mapped(found.value.location)
    if (path := entry_at(old, "path")) is not None:
        old = without(old, "path")
        paths = listed(path.value.location, [path.value])
        old = put(old, "paths", paths, path.location)
    if not items(at(old, "paths")):
        here = listed(old.location, [given(".", old.location)])
        old = put(old, "paths", here, found.location)
    for name in ("hooks", "defaultNamespace", "flags"):
        if (moved := entry_at(old, name)) is not None:
            old = without(old, name)
            if at(document, "deploy", "kubectl", name) is None:
                document = put_at(
                    document, ("deploy", "kubectl", name), moved.value, moved.location
                )
    document = without_at(document, "deploy", "kustomize")
    return put_at(document, ("manifests", "kustomize"), old, found.location)


def _releases(document: Keys) -> Keys:
    for where in (("deploy", "helm", "releases"), ("manifests", "helm", "releases")):
        found = at(document, *where)
        if isinstance(found, Items):
            new = (_release(each) if isinstance(each, Keys) else each for each in found.items)
            document = put_at(document, where, listed(found.location, new))
    return document


def _release(release: Keys) -> Keys:
    release = _renamed(release, "values", "artifactOverrides")
    if is_true(at(release, "remote")):
        release = _renamed(release, "chartPath", "remoteChart")
    return without(release, "remote")


def _manifests(document: Keys) -> Keys:
    """`deploy.kubectl.manifests` of v1 and v2 is `manifests.rawYaml`."""
    found = entry_at(document, "deploy", "kubectl", "manifests")
    if found is None:
        return document
    document = without_at(document, "deploy", "kubectl", "manifests")
    patterns = listed(found.value.location, items(found.value))
    return put_at(document, ("manifests", "rawYaml"), patterns, found.location)


def _renamed(keys: Keys, old: str, new: str) -> Keys:
    found = keys.get(old)
    if found is None or keys.get(new) is not None:
        return keys
    return put(without(keys, old), new, found.value, found.location)
