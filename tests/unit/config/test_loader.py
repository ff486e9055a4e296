"""From devloop.yaml to a Project: defaults, precedence, places, and every problem in one pass."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from devloop.config.loader import load_project
from devloop.config.places import user_config_path
from devloop.config.schema import Port, SyncRule
from devloop.errors import DevloopError, ExitStatus, Location
from tests.unit.config.corpus import service

if TYPE_CHECKING:
    from tests.unit.config.conftest import Directory


def test_the_least_file_gets_every_default(directory: Directory) -> None:
    project = directory.load(service()).project
    web = project.services["web"]
    assert (project.name, project.root, project.file) == (
        "shop",
        directory.path,
        directory.path / "devloop.yaml",
    )
    assert (web.image, web.line) == ("web", 3)
    assert web.build.context == directory.path
    assert web.build.dockerfile == directory.path / "Dockerfile"
    assert (web.deploy.workload_kind, web.deploy.workload_name) == ("deployment", "web")
    assert (web.deploy.timeout, web.deploy.replace, web.deploy.on_failure) == (120.0, "auto", None)
    assert web.logs.containers == ("*",)
    assert project.namespace is project.registry is project.context is None


def test_every_key(directory: Directory) -> None:
    text = """\
version: 1
name: market
namespace: dev
registry: localhost:5001
allow_contexts: [team-dev]
services:
  api:
    image: shop/api
    build:
      context: api
      dockerfile: docker/Dockerfile.dev
      target: dev
      args: {PYTHON: 3.10, DEBUG: true, EMPTY: "", TOKEN: , ABSENT: }
      secrets: [id=pip,src=pip.conf]
      ssh: [default, git=keys/id]
      platform: linux/amd64
      ignore: ["*.md"]
      cache: [/root/.cache/x]
      builder: command
      command: [sh, -c, 'make "$DEVLOOP_IMAGE"']
    deploy:
      workload: statefulset/db
      container: api
      manifests: [k8s/*.yaml, "./more/**/x.yml"]
      timeout: 1m30s
      replace: rolling
      on_failure: rollback
    ports: [8080, "9000:80", 9001:50]
    logs: {containers: [api, "side*"]}
"""
    directory.env["TOKEN"] = "t"
    project = directory.load(text).project
    api = project.services["api"]
    assert (project.name, project.namespace, project.registry, project.allow_contexts) == (
        "market",
        "dev",
        "localhost:5001",
        ("team-dev",),
    )
    build = api.build
    assert build.dockerfile == directory.path / "api/docker/Dockerfile.dev"
    assert build.args == {"PYTHON": "3.10", "DEBUG": "true", "EMPTY": "", "TOKEN": "t"}
    assert build.secrets == (f"id=pip,src={directory.path}/pip.conf",)
    assert build.ssh == ("default", f"git={directory.path}/keys/id")
    assert build.command == ("sh", "-c", 'make "$DEVLOOP_IMAGE"')
    assert (build.target, build.platform, build.ignore) == ("dev", "linux/amd64", ("*.md",))
    assert build.cache == ("/root/.cache/x",)
    assert (api.deploy.workload_kind, api.deploy.workload_name) == ("statefulset", "db")
    assert api.deploy.manifests == (
        f"{directory.path}/k8s/*.yaml",
        f"{directory.path}/more/**/x.yml",
    )
    assert api.deploy.timeout == 90.0
    assert api.ports == (
        Port(local=8080, container=8080),
        Port(local=9000, container=80),
        Port(local=9001, container=50),
    )
    assert api.logs.containers == ("api", "side*")


@pytest.mark.parametrize(
    ("text", "seconds"), [("120s", 120), ("2m", 120), ("500ms", 0.5), ("90", 90), ("1h", 3600)]
)
def test_timeouts(directory: Directory, text: str, seconds: float) -> None:
    loaded = directory.load(service(f"deploy: {{timeout: {text}}}"))
    assert loaded.project.services["web"].deploy.timeout == seconds


@pytest.mark.parametrize(
    ("name", "expected"),
    [("My Shop", "my-shop"), ("a.b_c", "a-b-c"), ("---", "project"), ("x" * 80, "x" * 63)],
)
def test_the_directory_gives_the_name(tmp_path: Path, name: str, expected: str) -> None:
    root = tmp_path / name
    root.mkdir()
    (root / "devloop.yaml").write_text(service())
    assert load_project(cwd=root, env={}).project.name == expected


def test_a_directory_with_glob_characters_is_no_pattern(tmp_path: Path) -> None:
    root = tmp_path / "a[b]*"
    root.mkdir()
    (root / "devloop.yaml").write_text(service("deploy: {manifests: [k8s/*.yaml]}"))
    (pattern,) = load_project(cwd=root, env={}).project.services["web"].deploy.manifests
    assert pattern == f"{tmp_path}/a[[]b][*]/k8s/*.yaml"


# Finding the file


def test_found_in_a_parent_and_shown_as_typed(directory: Directory) -> None:
    directory.write("devloop.yaml", service("port: 1"))
    below = directory.path / "src/pkg"
    below.mkdir(parents=True)
    assert directory.error(cwd=below).location == Location("../../devloop.yaml", 5, 5)
    assert directory.error().location == Location("devloop.yaml", 5, 5)


def test_a_named_file_is_relative_to_the_working_directory(directory: Directory) -> None:
    directory.write("deploy/dev.yaml", service())
    loaded = directory.load(file=Path("deploy/dev.yaml"))
    assert loaded.project.root == directory.path / "deploy"
    assert loaded.locate("version") == Location("deploy/dev.yaml", 1, 1)
    directory.env["DEVLOOP_FILE"] = "deploy/dev.yaml"
    assert directory.load().project.file == directory.path / "deploy/dev.yaml"


@pytest.mark.parametrize("named", [None, Path("no.yaml"), Path()])
def test_no_file(directory: Directory, named: Path | None) -> None:
    with pytest.raises(DevloopError) as caught:
        load_project(cwd=directory.path, file=named, env={})
    assert caught.value.code == "config/not-found"
    assert caught.value.exit_status == ExitStatus.USAGE


def test_the_other_ending_is_pointed_out(directory: Directory) -> None:
    directory.write("devloop.yml")
    with pytest.raises(DevloopError) as caught:
        directory.load()
    assert caught.value.diagnosis.suggestions[0] == "rename devloop.yml to devloop.yaml"


def test_a_file_that_cannot_be_read(directory: Directory) -> None:
    (directory.path / "devloop.yaml").symlink_to("devloop.yaml")
    with pytest.raises(DevloopError) as caught:
        directory.load()
    assert caught.value.code == "env/file-unreadable"


def test_not_utf8(directory: Directory) -> None:
    (directory.path / "devloop.yaml").write_bytes(b"version: 1\nname: caf\xe9\n")
    with pytest.raises(DevloopError) as caught:
        directory.load()
    assert caught.value.code == "config/parse"
    assert caught.value.diagnosis.location == Location("devloop.yaml", 2, 10)


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n"])
def test_empty(directory: Directory, text: str) -> None:
    assert "empty" in directory.error(text).message


# Problems


def test_all_problems_at_once_each_at_its_place(directory: Directory) -> None:
    text = """\
version: 1
namspace: dev
services:
  web:
    image: Shop/Web
    build: {context: ., platform: x86_64}
    needs: [apo]
    ports: [8080, "${PROT}"]
  api:
    build: .
    ports: ["8080:80"]
    deploy: {replace: quick}
"""
    directory.env["PORT"] = "1"
    found = directory.errors(text)
    assert [
        (each.code, each.location and (each.location.line, each.location.column)) for each in found
    ] == [
        ("config/unknown-key", (2, 1)),
        ("config/image-name", (5, 12)),
        ("config/value", (6, 35)),
        ("config/value", (7, 13)),
        ("config/variable", (8, 20)),
        ("config/value", (11, 13)),
        ("config/value", (12, 23)),
    ]
    assert found[0].suggestions == ("did you mean `namespace`?",)
    assert found[0].cause is not None
    assert "allow_contexts" in found[0].cause
    assert "uppercase" in found[1].message
    assert found[1].suggestions == ("shop/web",)
    assert found[2].suggestions == ("linux/amd64",)
    assert found[4].suggestions[0] == "did you mean ${PORT}?"
    assert found[5].cause == "`web` has it at devloop.yaml:8:13"


def test_a_misspelt_key_is_not_missing_as_well(directory: Directory) -> None:
    found = directory.error("version: 1\nservices: {web: {biuld: .}}")
    assert (found.code, found.suggestions) == ("config/unknown-key", ("did you mean `build`?",))


def test_a_newer_version_is_the_only_problem(directory: Directory) -> None:
    found = directory.error("version: 2\nservices: {web: {biuld: .}}\nfuture: 1\n")
    assert (found.code, found.location) == ("config/version", Location("devloop.yaml", 1, 10))
    assert found.suggestions == ("update devloop",)


def test_a_missing_version(directory: Directory) -> None:
    found = directory.error("services: {web: {build: .}}")
    assert (found.code, found.suggestions) == ("config/version", ("add `version: 1`",))


def test_wrong_types_say_what_was_expected(directory: Directory) -> None:
    found = directory.error(service() + "namespace: 12")
    assert found.code == "config/type"
    assert found.message == "`namespace` must be text, not the number 12"
    assert found.suggestions == ('put it in quotes: "12"',)
    assert found.location == Location("devloop.yaml", 5, 12)


def test_more_than_one_document(directory: Directory) -> None:
    found = directory.error(service() + "---\na: 1\n")
    assert (found.code, found.location) == ("config/parse", Location("devloop.yaml", 6, 1))


def test_a_secret_needs_an_id(directory: Directory) -> None:
    found = directory.error(service(build="build: {secrets: [src=pip.conf]}"))
    assert found.location == Location("devloop.yaml", 4, 23)


def test_no_control_character_of_the_file_reaches_the_terminal(directory: Directory) -> None:
    found = directory.error(service() + '"a\\e[31m\\nb": 1')
    assert found.message == r"unknown key `a\x1b[31m\nb`"


# Variables


def test_variables_are_values_and_nothing_else(directory: Directory) -> None:
    directory.env |= {"P": "8080", "V": "1", "T": "yes: [no]", "N": ""}
    text = service(build="build: {target: '${T}', args: {A: 'x${N}$$y'}}")
    text = text.replace("version: 1", "version: ${V}") + "    ports: ['${P}']\nname: ${N:-shop2}\n"
    project = directory.load(text + "namespace: ${N}\n").project
    web = project.services["web"]
    assert (web.build.target, web.build.args) == ("yes: [no]", {"A": "x$y"})
    assert (web.ports[0].local, project.name, project.namespace) == (8080, "shop2", None)


def test_a_value_from_a_variable_is_checked_at_its_place(directory: Directory) -> None:
    directory.env["P"] = "http"
    found = directory.error(service("ports: ['${P}']"))
    assert (found.code, found.location) == ("config/value", Location("devloop.yaml", 5, 13))


def test_the_place_of_a_variable_inside_a_text(directory: Directory) -> None:
    text = service(
        build='build:\n      target: |\n        a $$\n        b ${X}\n      dockerfile: "a${Y}"'
    )
    places = [each.location for each in directory.errors(text)]
    assert places == [Location("devloop.yaml", 7, 11), Location("devloop.yaml", 8, 21)]


def test_env_file_stands_below_the_environment(directory: Directory) -> None:
    directory.env["NS"] = "from-env"
    directory.write(".env", "NS=from-file\nNAME=named\n")
    loaded = directory.load(service() + "env_file: .env\nnamespace: ${NS}\nname: ${NAME}\n")
    assert (loaded.project.namespace, loaded.project.name) == ("from-env", "named")
    assert loaded.files == (directory.path / "devloop.yaml", directory.path / ".env")


def test_a_missing_env_file_is_the_problem_not_its_variables(directory: Directory) -> None:
    found = directory.error(service() + "env_file: .env\nname: ${NAME}\n")
    assert (found.code, found.location) == ("config/file-missing", Location("devloop.yaml", 5, 11))


def test_a_broken_env_file_names_its_line(directory: Directory) -> None:
    directory.write(".env", "A=1\nnot a line\n")
    found = directory.error(service() + "env_file: .env\nname: ${NAME}\n")
    assert found.location == Location(".env", 2, 1)


# Precedence and places


def test_precedence(directory: Directory, tmp_path: Path) -> None:
    user = tmp_path / "config.yaml"
    user.write_text("registry: u.io\nnamespace: user\ncontext: kind-u\nallow_contexts: [u]\n")
    plain = service()
    project = directory.load(plain, user_config=user).project
    assert (project.registry, project.namespace, project.context, project.allow_contexts) == (
        "u.io",
        "user",
        "kind-u",
        ("u",),
    )
    text = plain + "registry: f.io\nnamespace: file\n"
    assert directory.load(text, user_config=user).project.registry == "f.io"
    directory.env |= {
        "DEVLOOP_REGISTRY": "e.io",
        "DEVLOOP_CONTEXT": "kind-e",
        "DEVLOOP_NAMESPACE": "",
    }
    loaded = directory.load(text, user_config=user)
    assert (loaded.project.registry, loaded.project.context) == ("e.io", "kind-e")
    assert loaded.project.namespace == "file"
    loaded = directory.load(text, user_config=user, registry="flag.io", context="kind-f")
    assert (loaded.project.registry, loaded.project.context) == ("flag.io", "kind-f")
    assert loaded.locate("registry") == Location("--registry")
    assert loaded.locate("namespace") == Location("devloop.yaml", 6, 1)


def test_problems_name_their_source(directory: Directory, tmp_path: Path) -> None:
    user = tmp_path / "config.yaml"
    user.write_text("services: {}\nregistry: x\n")
    directory.env |= {"DEVLOOP_REGISTRY": "http://x", "HOME": str(tmp_path)}
    found = directory.errors(service(), user_config=user, namespace="No")
    assert [str(each.location) for each in found] == [
        "~/config.yaml:1:1",
        "~/config.yaml:2:11",
        "DEVLOOP_REGISTRY",
        "--namespace",
    ]


def test_a_user_config_that_does_not_exist(directory: Directory) -> None:
    assert directory.load(service(), user_config=directory.path / "no.yaml").project.context is None


def test_where_the_user_config_is() -> None:
    home = {"HOME": "/home/me"}
    assert user_config_path(home) == Path("/home/me/.config/devloop/config.yaml")
    assert user_config_path(home | {"XDG_CONFIG_HOME": "/x"}) == Path("/x/devloop/config.yaml")
    assert user_config_path(home | {"XDG_CONFIG_HOME": "x"}) == user_config_path(home)
    assert user_config_path({}) is None


def test_locate_falls_back_to_what_stands_above(directory: Directory) -> None:
    loaded = directory.load(service("deploy:\n  manifests:\n  - a.yaml\n  - b.yaml"))
    web = ("services", "web")
    assert loaded.locate(*web, "deploy", "manifests", 1) == Location("devloop.yaml", 8, 9)
    assert loaded.locate(*web, "deploy", "workload") == Location("devloop.yaml", 5, 5)
    assert loaded.locate(*web, "build", "context") == Location("devloop.yaml", 4, 5)
    assert loaded.locate("registry") == Location("devloop.yaml")


# Workloads


def test_a_list_of_workloads_names_the_picked_one_first(directory: Directory) -> None:
    text = service("deploy: {workload: [cronjob/tick, deployment/web]}")
    deploy = directory.load(text).project.services["web"].deploy
    assert (deploy.workload_kind, deploy.workload_name) == ("cronjob", "tick")
    assert deploy.workloads == ("cronjob/tick", "deployment/web")
    assert not deploy.workload_default


def test_a_list_of_workloads_is_for_services_without_manifests(directory: Directory) -> None:
    given = "deploy: {workload: [deployment/a, deployment/b], manifests: [k8s/*.yaml]}"
    error = directory.error(service(given))
    assert error.code == "config/value"
    assert error.suggestions == ("workload: deployment/a",)


# Sync


@pytest.mark.parametrize(
    ("cache", "column", "message", "suggestion"),
    [
        ("[~/.npm]", 21, "'~/.npm' is not absolute; it is a directory in the build", "/root/.npm"),
        ("[.npm]", 21, "'.npm' is not absolute; ", "/root/.npm"),
        ("[/c, target]", 25, "'target' is not absolute; ", "/app/target"),
        ("['./target']", 21, "'./target' is not absolute; ", "/app/target"),
        ("['/a b']", 21, "'/a b' is not a directory that can be kept", None),
        ("[/a/../b]", 21, "'/a/../b' is not a directory that can be kept", None),
        ("[/]", 21, "'/' is not a directory that can be kept", None),
        (
            "yes",
            20,
            "`services.web.build.cache` must be a list or the word auto",
            "write `auto`, or a list",
        ),
        ("true", 20, "`services.web.build.cache` must be a list", "write `auto`, or a list"),
        ("Auto", 20, "`services.web.build.cache` must be a list", "did you mean `auto`?"),
        ("[1]", 21, "`services.web.build.cache[0]` must be text", 'put it in quotes: "1"'),
    ],
)
def test_caches_that_cannot_be(
    directory: Directory, cache: str, column: int, message: str, suggestion: str | None
) -> None:
    found = directory.error(service(build=f"build: {{cache: {cache}}}"))
    assert found.location == Location("devloop.yaml", 4, column)
    assert message in found.message
    if suggestion is not None:
        assert found.suggestions == (suggestion,)


@pytest.mark.parametrize(
    ("keys", "code", "message", "suggestion"),
    [
        ("deploy: {replace: hott}", "config/value", "one of auto, hot, in-place", "`hot`"),
        ("deploy: {replace: true}", "config/value", "one of auto, hot, in-place", None),
        ("deploy: {replace: [hot]}", "config/type", "one of auto, hot, in-place", None),
        ("deploy: {supervise: no}", "config/type", "not the text 'no'", "write false"),
        ("deploy: {supervise: 'true'}", "config/type", "true or false", "write true"),
        ("deploy: {supervise: 1}", "config/type", "true or false", None),
        ("deploy: {stop_timeout: 0}", "config/value", "longer than 0 and at most 1h", "1s"),
        ("deploy: {stop_timeout: 61m}", "config/value", "longer than 0 and at most 1h", "1s"),
        ("deploy: {stop_timeout: fast}", "config/value", "not a length of time", "120s"),
        ("deploy: {stop_timeout: [1]}", "config/type", "a number or text like 1s", None),
        ("deploy: {stop_timeout: }", "config/type", "not nothing", "give it a value"),
    ],
)
def test_hot_keys_that_cannot_be(
    directory: Directory, keys: str, code: str, message: str, suggestion: str | None
) -> None:
    found = directory.error(service(keys))
    assert (found.code, found.location and found.location.line) == (code, 5)
    assert message in found.message
    assert (suggestion or "") in "".join(found.suggestions)
    assert bool(suggestion) == bool(found.suggestions)


def test_sync_rules(directory: Directory) -> None:
    directory.env["REST"] = "true"
    rules = "sync: [{src: 'a/**', dest: /app}, {src: b, dest: '/${X:-srv}', restart: '${REST}'}]"
    assert directory.load(service(rules)).project.services["web"].sync == (
        SyncRule(src="a/**", dest="/app"),
        SyncRule(src="b", dest="/srv", restart=True),
    )
    assert directory.load(service("sync: auto")).project.services["web"].sync == "auto"
    assert directory.load(service()).project.services["web"].sync == ()


@pytest.mark.parametrize(
    ("text", "column", "message", "suggestion"),
    [
        ("sync: [{src: a, dest: app/x}]", 27, "'app/x' is not absolute; ", "/app/app/x"),
        ("sync: [{src: a, dest: /app/../etc}]", 27, "'/app/../etc' holds `..`", None),
        ("sync: [{src: ../a, dest: /app}]", 18, "'../a' leads out of the build context", None),
        ("sync: [{src: /a/b, dest: /app}]", 18, "'/a/b' is absolute; ", "a/b"),
        ("sync: [{src: a}]", 12, "the key `dest` is missing", None),
        ("sync: Auto", 11, "`services.web.sync` must be a list or the word auto", "`auto`"),
        ("sync: src", 11, "`services.web.sync` must be a list or the word auto", "[src]"),
        ("sync: [{src: a, dest: /a, restart: 1}]", 40, "must be true or false", None),
    ],
)
def test_sync_rules_that_cannot_be(
    directory: Directory, text: str, column: int, message: str, suggestion: str | None
) -> None:
    found = directory.error(service(text))
    assert found.location == Location("devloop.yaml", 5, column)
    assert message in found.message
    if suggestion is None:
        assert found.suggestions == ()
    else:
        assert suggestion in found.suggestions[0]


NEEDS = "version: 1\nservices:\n  api: {build: ., needs: [base]}\n  base: {build: base}\n"


def test_a_need_is_another_service(directory: Directory) -> None:
    project = directory.load(NEEDS).project
    assert project.services["api"].needs == ("base",)
    found = directory.error(NEEDS.replace("[base]", "[bas]"))
    assert (found.code, str(found.location)) == ("config/value", "devloop.yaml:3:27")
    assert (found.message, found.suggestions) == (
        "there is no service `bas`",
        ("did you mean `base`?",),
    )


def test_services_that_need_each_other_are_named_with_their_places(directory: Directory) -> None:
    text = NEEDS.replace("build: base}", "build: base, needs: [core]}")
    text += "  core: {build: core, needs: [core, api]}\n  web: {build: ., needs: [api]}\n"
    found = directory.error(text.replace("core, api", "api"))
    assert found.message == "services need each other: api -> base -> core -> api"
    assert str(found.location) == "devloop.yaml:3:27"
    assert found.cause == (
        "api needs base at devloop.yaml:3:27, base needs core at devloop.yaml:4:31, "
        "core needs api at devloop.yaml:5:31"
    )
    found = directory.error(text.replace("core, api", "core"))
    assert found.message == "services need each other: core -> core"


def test_a_service_that_others_need_and_that_nothing_deploys_is_only_built(
    directory: Directory,
) -> None:
    project = directory.load(NEEDS).project
    assert [name for name in project.services if project.only_built(name)] == ["base"]
    text = NEEDS.replace("build: base}", "build: base, deploy: {workload: deployment/b}}")
    assert not directory.load(text).project.only_built("base")


def test_named_contexts(directory: Directory) -> None:
    keys = "{a: ../libs/a, docker.io/library/alpine:latest: docker-image://x, g: git@h.test:a/b}"
    build = directory.load(service(build=f"build: {{contexts: {keys}}}")).project.services
    found = build["web"].build
    libs = directory.path.parent / "libs/a"
    assert found.contexts == {
        "a": str(libs), "alpine": "docker-image://x", "g": "git@h.test:a/b"
    }  # fmt: skip
    assert found.directories == {"a": libs}


@pytest.mark.parametrize(
    ("build", "message", "suggestion"),
    [
        ("contexts: {A: b}", "'A' is not a name that FROM and COPY --from can have", "a"),
        ("contexts: {a: docker-image:b}", "no source of a named context", "a: docker-image://b"),
        ("contexts: {a: 'target:b'}", "'target:b' is no source of a named context", None),
        ("contexts: [a]", "`services.web.build.contexts` must be", None),
        (
            "platforms: [linux/amd64], platform: linux/arm64",
            "`platform` and `platforms` exclude each other",
            "remove `platform`",
        ),
        ("platform: 'linux/amd64,linux/arm64'", "several are `platforms`", None),
        ("platforms: []", "`services.web.build.platforms`", None),
        ("builder: command, command: [x], contexts: {a: b}", "`contexts` is not read", None),
    ],
)
def test_contexts_and_platforms_that_cannot_be(
    directory: Directory, build: str, message: str, suggestion: str | None
) -> None:
    found = directory.error(service(build=f"build: {{{build}}}"))
    assert message in found.message
    if suggestion is not None:
        assert found.suggestions == (suggestion,)


def test_platforms(directory: Directory) -> None:
    def built(text: str) -> tuple[str | None, tuple[str, ...]]:
        loaded = directory.load(service(build=f"build: {{platforms: {text}}}"))
        build = loaded.project.services["web"].build
        return build.platform, build.platforms

    assert built("[linux/amd64, linux/amd64]") == ("linux/amd64", ())
    assert built("[linux/arm64, linux/amd64]") == (None, ("linux/arm64", "linux/amd64"))
