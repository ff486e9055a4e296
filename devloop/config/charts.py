"""The keys of `deploy.helm`: a chart and what it is rendered with; see schema.py for the rest."""
# Annotations are read when this module is imported, so they cannot be put off (PEP 563).

from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal

from devloop.base.lazy_dataclass import dataclass
from devloop.config import resolve, rules
from devloop.config.grammar import Choice, Flag, Key, List, Map, Text, block
from devloop.config.resolve import ServiceScope
from devloop.errors import Location

_TEXT = Text(rules.ANY_TEXT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A chart and how it is rendered. `chart` is as it is written, `directory` where it is if it is
    a local one; `values` are absolute. `namespace` is None for the project's. `location` is where
    the chart is named."""

    chart: Annotated[
        str,
        Key(
            _TEXT,
            "The chart: its directory or archive relative to devloop.yaml, or as Helm has it: a "
            "name with `repo`, REPOSITORY/NAME, or oci://REGISTRY/NAME.",
            required=True,
        ),
    ]
    directory: Path
    release: Annotated[
        str, Key(Text(rules.LABEL), "The release's name.", default="the service's name")
    ] = ""
    values: Annotated[
        tuple[Path, ...],
        Key(
            List(_TEXT, single=True),
            "Files of values relative to devloop.yaml; a later one wins.",
            read=lambda items, scope: tuple(map(scope.path, resolve.texts(items))),
        ),
    ] = ()
    set: Annotated[
        dict[str, str],
        Key(
            Map(key=rules.ANY_TEXT, value=Text(rules.ARGUMENT, scalar=True), noun="value"),
            "Single values by their path, as `--set` of Helm: {image.tag: dev}.",
        ),
    ] = field(default_factory=dict)
    version: Annotated[
        str | None,
        Key(Text(rules.ANY_TEXT), "The version of a remote chart.", default="the newest"),
    ] = None
    repo: Annotated[str | None, Key(_TEXT, "The URL of the repository that has the chart.")] = None
    namespace: Annotated[
        str | None,
        Key(Text(rules.LABEL), "The namespace of the release.", default="the project's"),
    ] = None
    skip_tests: Annotated[
        bool,
        Key(
            Flag(),
            "Whether the chart's tests are left out; else they run after each deploy.",
            default="true",
        ),
    ] = True
    mode: Annotated[
        Literal["template", "release"],
        Key(
            Choice(("template", "release")),
            "What deploys: with `template` devloop applies what `helm template` renders, with "
            "`release` it is `helm upgrade --install`, so that `helm list` shows a release.",
            default="template",
        ),
    ] = "template"
    location: Location | None = field(default=None, compare=False)


def _finish(found: dict[str, Any], _values: dict[str, Any], scope: ServiceScope) -> None:
    found["directory"] = scope.path(found.get("chart", "."))
    _, service, *_ = scope.where
    found.setdefault("release", service)
    found["location"] = scope.locations.key((*scope.where, "chart"))


CHART = block(
    Chart,
    about="The Helm chart that renders the manifests. What in it runs an image that is called like "
    "the service's gets the built one, whatever its tag; `set` makes a chart's own image the "
    "service's. Dependencies are built where charts/ lacks them; hooks of installs and upgrades "
    "run as Helm runs them, those of a release by Helm itself.",
    finish=_finish,
)
