"""devloop.yaml version 1 and the user's own config.yaml, key by key: the one list of keys.

A key that is not here does not exist. Texts are written for an editor's hover.
"""

from __future__ import annotations

from typing import Final

from devloop.config.grammar import Block, Choice, Flag, Key, List, Map, Number, Text
from devloop.config.rules import (
    ANY_TEXT,
    ARGUMENT,
    CONTAINER,
    CONTEXT_PATTERN,
    DURATION,
    IMAGE,
    LABEL,
    PLATFORM,
    PORT,
    REGISTRY,
    SYNC_DEST,
    SYNC_SOURCE,
    VARIABLE_NAME,
    WORKLOAD,
    Fault,
)
from devloop.errors import Code

__all__ = ["NEWEST_VERSION", "PROJECT", "USER"]

NEWEST_VERSION: Final = 1


def _version_fault(version: int) -> Fault:
    newer = version > NEWEST_VERSION
    return Fault(
        message=f"version {version} of devloop.yaml is {'newer than' if newer else 'not one that'} "
        + ("this devloop reads" if not newer else f"the {NEWEST_VERSION} that this devloop reads"),
        suggestions=("update devloop",) if newer else (f"version: {NEWEST_VERSION}",),
    )


_PATH = Text(rule=ANY_TEXT)

_BUILD = Block(
    about="How the service's image is made. A bare path is short for `context`.",
    short="context",
    keys={
        "context": Key(
            kind=_PATH,
            about="The folder that is sent to the build, relative to devloop.yaml.",
            default="the folder of devloop.yaml",
        ),
        "dockerfile": Key(
            kind=_PATH, about="The Dockerfile, relative to the context.", default="Dockerfile"
        ),
        "target": Key(
            kind=Text(rule=ANY_TEXT), about="The stage to build.", default="the last stage"
        ),
        "args": Key(
            kind=Map(
                key=VARIABLE_NAME,
                value=Text(rule=ARGUMENT, scalar=True),
                noun="build argument",
                null=True,
            ),
            about="Build arguments. One without a value takes it from the environment, if set.",
        ),
        "secrets": Key(
            kind=List(item=Text(rule=ANY_TEXT)),
            about=(
                "Build secrets as buildx has them: id=NAME,src=FILE or id=NAME,env=VARIABLE. "
                "FILE is relative to devloop.yaml."
            ),
        ),
        "ssh": Key(
            kind=List(item=Text(rule=ANY_TEXT)),
            about="SSH agents for the build as buildx has them: default, or NAME=SOCKET_OR_KEY.",
        ),
        "platform": Key(
            kind=Text(rule=PLATFORM),
            about="The platform to build for, as OS/ARCH.",
            default="that of the cluster's nodes",
        ),
        "ignore": Key(
            kind=List(item=Text(rule=ANY_TEXT)),
            about="Patterns of files to leave out, on top of .dockerignore and in its syntax.",
        ),
        "builder": Key(
            kind=Choice(words=("auto", "buildx", "classic", "command")),
            about="What builds the image: docker buildx, Docker's classic builder or `command`.",
            default="auto: buildx where it is installed, else classic",
        ),
        "command": Key(
            kind=List(item=Text(rule=ANY_TEXT, for_shell=True), least=1),
            about=(
                "The program and its arguments, run in devloop.yaml's folder, for `builder: "
                "command`. It gets DEVLOOP_IMAGE and must leave that image in the registry."
            ),
        ),
    },
    extra={
        "allOf": [
            {
                "if": {"required": ["builder"], "properties": {"builder": {"const": "command"}}},
                "then": {"required": ["command"]},
            },
            {
                "if": {
                    "properties": {"builder": {"enum": ["auto", "buildx", "classic"]}},
                },
                "then": {"properties": {"command": False}},
            },
        ]
    },
)

_DEPLOY = Block(
    about="Where the service runs.",
    keys={
        "workload": Key(
            kind=Text(rule=WORKLOAD),
            about="The workload as KIND/NAME: a deployment, statefulset or daemonset.",
            default="deployment/<service>",
        ),
        "container": Key(
            kind=Text(rule=CONTAINER),
            about="The container that runs the image.",
            default="the one whose image matches, or the only one",
        ),
        "manifests": Key(
            kind=List(item=_PATH),
            about=(
                "Manifests to apply first, as paths or patterns (*, **) relative to devloop.yaml. "
                "Without any, the workload must exist already and only its image is patched."
            ),
        ),
        "kustomize": Key(kind=None, about="A kustomization to apply first.", later="kustomize"),
        "helm": Key(kind=None, about="A chart to install first.", later="helm"),
        "timeout": Key(
            kind=Text(rule=DURATION, number=True),
            about="How long a rollout may take: 120s, 2m, 500ms; a bare number counts seconds.",
            default="120s",
        ),
        "replace": Key(
            kind=Choice(words=("auto", "in-place", "rolling", "fast")),
            about=(
                "How pods get the new image: `in-place` restarts their containers where that is "
                "the same thing and rolls otherwise, `rolling` makes new pods as the workload "
                "says, `fast` makes all of them at once and stops the old ones at once."
            ),
            default=("auto: in-place in `devloop dev` on a local cluster, rolling everywhere else"),
        ),
        "on_failure": Key(
            kind=Choice(words=("rollback", "keep")),
            about="What happens when a rollout fails: go back to the last good image, or stay.",
            default="keep in `devloop dev`, rollback in `devloop run`",
        ),
    },
)

_SYNC = Block(
    about="Files to copy into running containers.",
    keys={
        "src": Key(
            kind=Text(rule=SYNC_SOURCE),
            about=(
                "A file, a folder (with all in it) or a pattern (*, ?, [a-z], and ** for any "
                "number of folders), relative to the build context."
            ),
            required=True,
        ),
        "dest": Key(
            kind=Text(rule=SYNC_DEST),
            about=(
                "The folder in the container. What of a path comes after the part of `src` that "
                "has no wildcard is appended: templates/** and /app/templates bring "
                "templates/a/b.html to /app/templates/a/b.html."
            ),
            required=True,
        ),
        "restart": Key(
            kind=Flag(),
            about="Whether the process has to start anew when one of these files changed.",
            default="false",
        ),
    },
)

_SERVICE = Block(
    about="One image and the workload that runs it.",
    keys={
        "image": Key(
            kind=Text(rule=IMAGE),
            about="The image's name without registry, tag and digest.",
            default="the service's name",
        ),
        "build": Key(kind=_BUILD, about=_BUILD.about, required=True),
        "needs": Key(
            kind=None, about="Services to be built and ready first.", later="needs between services"
        ),
        "test": Key(
            kind=None, about="A command to run in the fresh image.", later="tests before a deploy"
        ),
        "deploy": Key(kind=_DEPLOY, about=_DEPLOY.about),
        "sync": Key(
            kind=List(item=_SYNC, word="auto"),
            about=(
                "Files to copy into the running containers when they change, instead of a new "
                "image at once. `auto` takes the Dockerfile's COPY lines for rules."
            ),
            default="none: every change becomes an image",
        ),
        "ports": Key(
            kind=List(item=Text(rule=PORT, number=True)),
            about=(
                "Ports to keep open on 127.0.0.1 for the whole session: PORT, or LOCAL:CONTAINER "
                "in quotes."
            ),
        ),
        "logs": Key(
            kind=Block(
                about="Which logs to follow.",
                keys={
                    "containers": Key(
                        kind=List(item=Text(rule=ANY_TEXT), least=1),
                        about="Containers by name or pattern (*, ?).",
                        default='["*"]: all of them',
                    )
                },
            ),
            about="Which logs to follow.",
        ),
        "hooks": Key(kind=None, about="Commands to run around a build or deploy.", later="hooks"),
    },
    elsewhere={
        "dockerfile": "it belongs under `build`",
        "context": "it belongs under `build`",
        "manifests": "it belongs under `deploy`",
        "workload": "it belongs under `deploy`",
        "timeout": "it belongs under `deploy`",
        "namespace": "it belongs at the top: all services share one namespace",
        "registry": "it belongs at the top: all services share one registry",
    },
)

_REGISTRY = Key(
    kind=Text(rule=REGISTRY),
    about="Where images are pushed, as HOST[:PORT][/PATH].",
    default="the cluster's local registry, if it announces one (KEP-1755)",
)
_NAMESPACE = Key(
    kind=Text(rule=LABEL), about="The namespace of the workloads.", default="the context's"
)
_ALLOW_CONTEXTS = Key(
    kind=List(item=Text(rule=CONTEXT_PATTERN)),
    about="Kubernetes contexts, by name, that devloop may change although they are not local.",
)

PROJECT = Block(
    about="devloop.yaml",
    keys={
        "version": Key(
            kind=Number(
                least=1, most=NEWEST_VERSION, code=Code.CONFIG_VERSION, otherwise=_version_fault
            ),
            about="The version of this file's format: 1.",
            required=True,
        ),
        "name": Key(
            kind=Text(rule=LABEL), about="The project's name.", default="the folder's name"
        ),
        "namespace": _NAMESPACE,
        "registry": _REGISTRY,
        "allow_contexts": _ALLOW_CONTEXTS,
        "env_file": Key(
            kind=_PATH,
            about=(
                "A file of variables for ${NAME} in this file, relative to it, in the syntax of "
                "Docker Compose. The environment's own variables win."
            ),
        ),
        "services": Key(
            kind=Map(key=LABEL, value=_SERVICE, noun="service", least=1, closed=True),
            about="The services by name.",
            required=True,
        ),
        "profiles": Key(
            kind=None, about="Changes to this file, chosen by --profile.", later="profiles"
        ),
    },
    elsewhere={
        "context": (
            "a project does not choose the cluster: use --context, DEVLOOP_CONTEXT or "
            "~/.config/devloop/config.yaml"
        )
    },
)

USER = Block(
    about="~/.config/devloop/config.yaml",
    keys={
        "registry": _REGISTRY,
        "context": Key(
            kind=Text(rule=CONTEXT_PATTERN),
            about="The Kubernetes context to use.",
            default="the kubeconfig's current one",
        ),
        "namespace": _NAMESPACE,
        "allow_contexts": _ALLOW_CONTEXTS,
    },
)
