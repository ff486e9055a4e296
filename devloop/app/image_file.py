"""The file by which one stage hands its images to the next: what `build` made, for `test`, `render`
and `deploy`.

    {"version": 1, "builds": [{"service": "web", "image": "registry.example/shop/web",
     "tag": "devloop-0a1b", "digest": "sha256:…", "ref": "registry.example/shop/web@sha256:…"}]}

`image` is where it was pushed to, `ref` what pods are to have: the name that the nodes know, with
the digest; of an image that was not pushed `digest` is "" and `ref` has the tag. The file of
`skaffold build --file-output` is read as well: {"builds": [{"imageName": …, "tag": …}]}.
"""

from __future__ import annotations

import errno
import json
import os
import re
import tempfile
from typing import TYPE_CHECKING, Any

from devloop.base.lazy_dataclass import dataclass
from devloop.base.state_file import replace_file
from devloop.cluster.deploy.image_owners import owner
from devloop.errors import Code, DevloopError, Location
from devloop.model import ImageRef

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from devloop.config.schema import Service


_VERSION = 1
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_MAKE_ONE = "devloop build --push --file-output {} writes one"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """One image of a file; `service` is "" where the file knows only `name`, an image's."""

    service: str
    name: str
    image: ImageRef


def write_images(path: Path, images: Mapping[str, ImageRef]) -> None:
    """Replace the file at once; directories are made. `images` are by service. Errors: env/*."""
    builds = [
        {
            "service": service,
            "image": image.repository,
            "tag": image.tag,
            "digest": image.digest,
            "ref": image.pinned,
        }
        for service, image in images.items()
    ]
    text = json.dumps({"version": _VERSION, "builds": builds}, indent=2) + "\n"
    write_file(path, text.encode())


def write_file(path: Path, data: bytes) -> None:
    """Replace a file of the user's at once, as readable as any other. Errors: env/*."""
    try:
        replace_file(path, data)
        path.chmod(_mode())
    except OSError as error:
        raise cannot_write(path, error) from error


def check_place(path: Path) -> None:
    """Find out before a long build whether the file can be written; makes its directory, as
    writing it does. Errors: env/*."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise cannot_write(path, error) from error


def cannot_write(path: Path, error: OSError) -> DevloopError:
    """env/* for a file that a command was asked to write."""
    full = error.errno == errno.ENOSPC
    return DevloopError.of(
        Code.ENV_DISK_FULL if full else Code.ENV_FILE_UNREADABLE,
        f"cannot write {path}",
        location=Location(str(path)),
        cause=error.strerror or str(error),
        suggestions=() if full else ("name another place, or make its directory writable",),
    )


def read_images(path: Path, services: Mapping[str, Service]) -> dict[str, ImageRef]:
    """The images of the file by service, as far as it has those of `services`. Errors: env/*,
    config/parse, config/value with the place."""
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        raise DevloopError.of(
            Code.CONFIG_FILE_MISSING,
            f"{path} does not exist",
            suggestions=(_MAKE_ONE.format(path),),
        ) from None
    except OSError as error:
        raise DevloopError.of(
            Code.ENV_FILE_UNREADABLE,
            f"cannot read {path}",
            location=Location(str(path)),
            cause=error.strerror or str(error),
            suggestions=(_MAKE_ONE.format(path),),
        ) from error
    except UnicodeDecodeError as error:
        raise _wrong(path, "", "", "it is not text in UTF-8") from error
    names = {service.name: service.image for service in services.values()}
    found: dict[str, ImageRef] = {}
    for entry in _entries(path, text):
        name = entry.service or owner(entry.name, names) or ""
        if name in services:
            found[name] = entry.image
    return found


def images_for(path: Path, services: Mapping[str, Service]) -> dict[str, ImageRef]:
    """An image for each of `services`. Errors: as `read_images`, config/value where one is
    missing."""
    found = read_images(path, services)
    if missing := [name for name in services if name not in found]:
        raise DevloopError.of(
            Code.CONFIG_VALUE,
            f"{path} has no image of {', '.join(missing)}",
            location=Location(str(path)),
            cause="it has those of " + (", ".join(found) or "no service of this project"),
            suggestions=(
                _MAKE_ONE.format(path) + " with all of them",
                "or name the services that are meant on the command line",
            ),
        )
    return {name: found[name] for name in services}


def _entries(path: Path, text: str) -> list[_Entry]:
    try:
        value = json.loads(text)
    except ValueError as error:
        line, column = getattr(error, "lineno", 1), getattr(error, "colno", 1)
        raise DevloopError.of(
            Code.CONFIG_PARSE,
            f"{path} is not JSON: {getattr(error, 'msg', error)}",
            location=Location(str(path), line, column),
            suggestions=(_MAKE_ONE.format(path),),
        ) from error
    builds = value.get("builds") if isinstance(value, dict) else None
    if not isinstance(builds, list):
        raise _wrong(path, text, "", "it has no list `builds`")
    version = value.get("version", _VERSION)
    if version != _VERSION:
        raise _wrong(path, text, '"version"', f"version {version} is not known, only {_VERSION}")
    return [_entry(path, text, position, each) for position, each in enumerate(builds)]


def _entry(path: Path, text: str, position: int, value: Any) -> _Entry:
    if not isinstance(value, dict):
        raise _wrong(path, text, "", f"builds[{position}] is not an object")
    fields = {key: each for key, each in value.items() if isinstance(each, str)}
    if "imageName" in fields and "tag" in fields:
        image, name = _of_reference(fields["tag"]), fields["imageName"]
        if image is not None:
            return _Entry(service="", name=name, image=image)
        raise _wrong(path, text, fields["tag"], f"builds[{position}].tag is no image with a tag")
    for key in ("service", "image", "tag", "digest", "ref"):
        if key not in fields:
            raise _wrong(path, text, "", f"builds[{position}] has no text `{key}`")
    digest = fields["digest"]
    if digest and not _DIGEST.fullmatch(digest):
        raise _wrong(path, text, digest, f"builds[{position}].digest is not sha256:… in full")
    pull = fields["ref"].partition("@")[0] if digest else ""
    image = ImageRef(
        repository=fields["image"], tag=fields["tag"], digest=digest, pull_repository=pull
    )
    if image.pinned != fields["ref"]:
        raise _wrong(path, text, fields["ref"], f"builds[{position}].ref is not of its image")
    return _Entry(service=fields["service"], name=fields["image"], image=image)


def _of_reference(reference: str) -> ImageRef | None:
    """`host:5000/app:tag@sha256:…`, `app:tag`."""
    name, at, digest = reference.partition("@")
    head, slash, last = name.rpartition("/")
    repository, _, tag = last.partition(":")
    if not repository or (at and not _DIGEST.fullmatch(digest)) or not (tag or digest):
        return None
    return ImageRef(repository=f"{head}{slash}{repository}", tag=tag, digest=digest)


def _wrong(path: Path, text: str, near: str, why: str) -> DevloopError:
    """`near` is a part of the text that is wrong, "" for the whole."""
    before = text[: max(text.find(near), 0)] if near else ""
    line = before.count("\n") + 1
    column = len(before) - (before.rfind("\n") + 1) + 1
    return DevloopError.of(
        Code.CONFIG_VALUE,
        f"{path} is not a file of images: {why}",
        location=Location(str(path), line, column),
        suggestions=(_MAKE_ONE.format(path),),
    )


def _mode() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask
