"""What a first devloop.yaml says of the projects that people have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from devloop.app.starter.propose import Proposal, Surroundings, propose
from devloop.app.starter.text import project_text
from devloop.app.starter.workloads import FoundWorkload
from devloop.config.files import check_files
from devloop.config.loader import load_project
from devloop.manifests.files import read_manifests

if TYPE_CHECKING:
    from pathlib import Path

PYTHON = (
    'FROM python:3.13\nCOPY requirements.txt .\nCOPY . .\nEXPOSE 8000\nCMD ["python", "app.py"]\n'
)


def deployment(name: str, image: str, *, port: int = 0, kind: str = "Deployment") -> str:
    ports = f", ports: [{{containerPort: {port}}}]" if port else ""
    return (
        f"apiVersion: apps/v1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {{template: "
        f"{{spec: {{containers: [{{name: {name}, image: '{image}'{ports}}}]}}}}}}\n"
    )


SERVICE = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {ports: [{port: 80}]}\n"


class Shop:
    """A project's folder called `shop`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def write(self, files: dict[str, str]) -> None:
        for name, text in files.items():
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def proposal(self, files: dict[str, str], *, name: str = "", **around: Any) -> Proposal:
        self.write(files)
        return propose(self.root, Surroundings(**around), name=name)

    def text(self, proposal: Proposal) -> list[str]:
        """The lines of the file from `services:` on; it is valid, and names what is there."""
        text = project_text(proposal, head="Written by a test.")
        self.write({"devloop.yaml": text, **proposal.manifests})
        assert check_files(load_project(cwd=self.root, env={})) == ()
        return text[text.index("services:\n") :].splitlines()[1:]

    def lines(self, files: dict[str, str], **more: Any) -> list[str]:
        return self.text(self.proposal(files, **more))


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    root = tmp_path / "shop"
    root.mkdir()
    return Shop(root)


def test_a_dockerfile_alone_gets_objects_of_its_own(shop: Shop) -> None:
    proposal = shop.proposal({"Dockerfile": PYTHON, "requirements.txt": "", "app.py": ""})
    assert shop.text(proposal) == [
        "  shop:",
        "    build:",
        "      context: .",
        "      ignore: [devloop.yaml, k8s.yaml]  # there is no .dockerignore",
        "    deploy:",
        "      manifests: [k8s.yaml]  # written for you",
        "    ports: [8000]  # Dockerfile:4 EXPOSE",
    ]
    made = proposal.manifests["k8s.yaml"]
    assert "{name: http, containerPort: 8000}" in made
    assert "kind: Service" in made
    assert proposal.doubts == ()


def test_a_name_may_be_given(shop: Shop) -> None:
    lines = shop.lines({"Dockerfile": PYTHON, ".dockerignore": ""}, name="hello")
    assert lines[:2] == ["  hello:", "    build: ."]


@pytest.mark.parametrize(
    ("dockerfile", "source", "port"),
    [
        ("FROM a\nEXPOSE 80/tcp 9000/udp\n", {}, "8080:80"),
        ("FROM a\nARG P=7000\nEXPOSE $P\n", {}, 7000),
        ("FROM a AS b\nEXPOSE 7001\nFROM b\nRUN x\n", {}, 7001),
        ("FROM a AS b\nEXPOSE 7001\nFROM c\nEXPOSE 7002\n", {}, 7002),
        ("FROM a\nENV PORT=7003\n", {}, 7003),
        ("FROM a\nENV PORT 7003\n", {}, 7003),
        ('FROM a\nCMD ["uvicorn", "app:app", "--port", "7004"]\n', {}, 7004),
        ("FROM a\nCMD gunicorn -b 0.0.0.0:7005 app:app\n", {}, 7005),
        ("FROM a\nCMD gunicorn app:app\n", {}, 8000),
        ("FROM a\nCMD flask --app x run --host=0.0.0.0\n", {}, 5000),
        ("FROM a\nCMD python manage.py runserver 0.0.0.0:7006\n", {}, 7006),
        ('FROM a\nENTRYPOINT ["/app"]\nCMD ["--listen=:7007"]\n', {}, 7007),
        ("FROM a\nCMD x\n", {"server.js": "app.listen(7008, () => {})"}, 7008),
        ("FROM a\nCMD x\n", {"server.js": "app.listen(process.env.PORT || 7009)"}, 7009),
        ("FROM a\nCMD x\n", {"main.go": 'http.ListenAndServe(":7010", nil)'}, 7010),
        ("FROM a\nCMD x\n", {"main.go": 'srv := &http.Server{Addr: "0.0.0.0:7011"}'}, 7011),
        ("FROM a\nCMD x\n", {"a.py": 'port = int(os.environ.get("PORT", "7012"))'}, 7012),
        ("FROM a\nCMD x\n", {"a.py": 'HTTPServer(("", 7013), H)'}, 7013),
        ("FROM a\nCMD x\n", {"a.py": "app.run(port=7014)"}, 7014),
        ("FROM a\nCMD x\n", {"a.rb": "WEBrick::HTTPServer.new(Port: 7018)"}, 7018),
        ("FROM a\nCMD x\n", {"a.rb": "set :port, 7019"}, 7019),
        ("FROM a\nCMD x\n", {"a.py": "Redis(port=6379)\napp.run(port=7023)"}, 7023),
        ("FROM a\nCMD x\n", {"site.conf": "server { listen [::]:7020; root /x; }"}, 7020),
        ("FROM a\nCMD x\n", {"site.conf": "# listen 7021;"}, None),
        ("FROM nginx:1.29\nCOPY a /x\n", {}, "8080:80"),
        ("FROM nginx:1.29\nCOPY a /x\n", {"x.conf": "listen 7022;"}, 7022),
        ("FROM a\nCMD x\n", {"a.py": "app.run(port=7014)", "b.js": "x.listen(7015)"}, None),
        ("FROM a\nCMD x\n", {"tests/a.py": "port = 7016", "a_test.go": ".listen(7017)"}, None),
        ("FROM a\nCMD x\n", {}, None),
    ],
)
def test_the_port_is_the_dockerfiles_or_the_one_that_the_sources_name(
    shop: Shop, dockerfile: str, source: dict[str, str], port: int | str | None
) -> None:
    proposal = shop.proposal({"Dockerfile": dockerfile, **source})
    (service,) = proposal.services
    assert service.ports == ((port,) if port else ())
    assert ("kind: Service" in proposal.manifests["k8s.yaml"]) == bool(port)
    if port is None:
        assert "names no port" in proposal.assumed[-1]


def test_a_local_port_that_is_in_use_is_not_taken(shop: Shop) -> None:
    proposal = shop.proposal(
        {"Dockerfile": "FROM a\nEXPOSE 5000\n"}, is_free=lambda port: port not in (5000, 5001)
    )
    assert proposal.services[0].ports == ("5002:5000",)
    assert "local port 5002 for 5000: 5000 is in use" in proposal.assumed


def test_manifests_that_run_the_image_are_taken(shop: Shop) -> None:
    proposal = shop.proposal(
        {
            "Dockerfile": PYTHON,
            ".dockerignore": "*\n",
            "k8s/app.yaml": deployment("web", "ghcr.io/acme/shop-web:1.2", port=8080),
            "k8s/db.yaml": deployment("db", "postgres:17", kind="StatefulSet"),
            "k8s/service.yaml": SERVICE,
        }
    )
    assert shop.text(proposal) == [
        "  web:",
        "    image: acme/shop-web",
        "    build: .",
        "    deploy:",
        "      manifests: [k8s/*.yaml]  # deployment/web runs ghcr.io/acme/shop-web:1.2",
        "    ports: [8080]  # k8s/app.yaml",
    ]
    assert (proposal.doubts, proposal.manifests) == ((), {})


def test_what_could_be_either_is_in_doubt(shop: Shop) -> None:
    proposal = shop.proposal(
        {
            "Dockerfile": PYTHON,
            "a.yaml": deployment("a", "acme/a"),
            "b.yaml": deployment("b", "acme/b"),
        }
    )
    assert proposal.doubts[0] == (
        "Dockerfile could make any of acme/a (deployment/a), acme/b (deployment/b)"
    )
    assert proposal.manifests == {}
    twice = shop.proposal(
        {"a.yaml": deployment("shop", "shop"), "b/x.yaml": deployment("shop", "shop"), "b.yaml": ""}
    )
    assert twice.doubts == ("shop could be deployment/shop (a.yaml) or deployment/shop (b/x.yaml)",)


def test_each_folder_with_a_dockerfile_is_a_service(shop: Shop) -> None:
    proposal = shop.proposal(
        {
            "api/Dockerfile": "FROM a\nCOPY main.go .\nEXPOSE 8080\n",
            "api/main.go": "",
            "web/Dockerfile": "FROM a\nEXPOSE 8080\n",
            "k8s/api.yaml": deployment("api", "shop/api"),
            "k8s/web.yaml": deployment("web", "shop/web"),
            "k8s/config.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: all}\n",
            "tests/Dockerfile": "FROM a\n",
        }
    )
    assert shop.text(proposal) == [
        "  api:",
        "    image: shop/api",
        "    build: api",
        "    deploy:",
        "      manifests: [k8s/api.yaml, k8s/config.yaml]  # deployment/api runs shop/api",
        "    ports: [8080]  # api/Dockerfile:3 EXPOSE",
        "  web:",
        "    image: shop/web",
        "    build: web",
        "    deploy:",
        "      manifests: [k8s/web.yaml]  # deployment/web runs shop/web",
        '    ports: ["8081:8080"]  # web/Dockerfile:2 EXPOSE',
    ]


def test_a_monorepos_dockerfile_is_built_where_its_files_are(shop: Shop) -> None:
    proposal = shop.proposal(
        {
            "services/cart/Dockerfile": "FROM a\nCOPY libs ./libs\nCOPY services/cart .\n",
            "services/cart/k8s/cart.yaml": deployment("cart", "cart"),
            "services/mail/docker/Dockerfile": "FROM a\nCOPY mail.py .\n",
            "services/mail/mail.py": "",
            "services/mail/k8s/mail.yaml": deployment("mail", "mail"),
            "libs/x": "",
            "other/devloop.yaml": "",
            "other/Dockerfile": "FROM a\n",
            "node_modules/x/Dockerfile": "FROM a\n",
        }
    )
    cart, mail = proposal.services
    assert (cart.name, cart.context, cart.dockerfile) == ("cart", ".", "services/cart/Dockerfile")
    assert (mail.name, mail.context, mail.dockerfile) == (
        "mail",
        "services/mail",
        "docker/Dockerfile",
    )
    assert cart.manifests == ("services/cart/k8s/cart.yaml",)
    shop.text(proposal)


def test_a_variant_of_a_dockerfile_is_no_service(shop: Shop) -> None:
    files = {"Dockerfile": PYTHON, "Dockerfile.prod": "FROM a\n", "Dockerfile.worker": "FROM a\n"}
    proposal = shop.proposal(files)
    assert [each.name for each in proposal.services] == ["shop", "worker"]
    assert proposal.unread == ("Dockerfile.prod: set `build.dockerfile` to use it",)


def test_compose_says_what_is_built(shop: Shop) -> None:
    proposal = shop.proposal(
        {
            "compose.yaml": """\
x-args: &args {args: {MODE: "${MODE:-dev}", FLAG: true, T: "$T$$${PG}"}}
services:
  web:
    build: {<<: *args, context: ./front, dockerfile: docker/Web, target: dev}
    ports: ["3000:80", "127.0.0.1:9229:9229", "53:53/udp"]
    environment: {API: http://api}
  api:
    build: api
    expose: ["7000"]
  db:
    image: postgres:${PG}
""",
            ".env": "PG=17\n",
            "front/docker/Web": "FROM a AS dev\nEXPOSE 80\n",
            "api/Dockerfile": "FROM a\n",
        }
    )
    web, api = proposal.services
    assert (web.context, web.dockerfile, web.target) == ("front", "docker/Web", "dev")
    assert web.args == (("MODE", "${MODE:-dev}"), ("FLAG", "true"), ("T", "${T:-}$$${PG:-}"))
    assert proposal.env_file == ".env"
    assert web.ports == ("3000:80", 9229)
    assert (api.context, api.ports) == ("api", (7000,))
    assert proposal.unread == (
        "compose.yaml: environment of web",
        "compose.yaml: db (postgres:17): have it in the cluster",
    )
    assert list(proposal.manifests) == ["k8s/web.yaml", "k8s/api.yaml"]
    shop.text(proposal)


def test_a_running_deployment_is_patched(shop: Shop) -> None:
    running = (
        FoundWorkload(kind="deployment", name="front", file="", images=(("web", "acme/shop:3"),)),
        FoundWorkload(kind="deployment", name="other", file="", images=(("x", "acme/x"),)),
    )
    proposal = shop.proposal({"Dockerfile": PYTHON, ".dockerignore": ""}, running=lambda: running)
    assert shop.text(proposal) == [
        "  front:",
        "    image: acme/shop",
        "    build: .",
        "    deploy:",
        "      workload: deployment/front  # in the cluster; it runs acme/shop:3",
        "    ports: [8000]  # Dockerfile:4 EXPOSE",
    ]
    assert proposal.manifests == {}


def test_the_cluster_is_not_asked_where_manifests_say_it(shop: Shop) -> None:
    shop.proposal(
        {"Dockerfile": PYTHON, "k8s.yaml": deployment("shop", "shop")},
        running=lambda: pytest.fail("asked"),
    )


def test_a_chart_a_kustomization_and_a_skaffold_file_are_named(shop: Shop) -> None:
    proposal = shop.proposal(
        {
            "Dockerfile": PYTHON,
            "chart/Chart.yaml": "name: shop\n",
            "chart/templates/a.yaml": "{{ x }}\n",
            "overlays/prod/kustomization.yaml": "resources: [../b]\npatches: [{path: p.yaml}]\n",
            "overlays/prod/p.yaml": deployment("shop", "shop"),
            "skaffold.yaml": "apiVersion: skaffold/v4beta11\nkind: Config\n",
        }
    )
    text = shop.text(proposal)
    assert text[-4:] == [
        "# Found, and not made use of:",
        "#   overlays/prod/ (kustomize)",
        "#   chart/ (Helm chart)",
        "#   skaffold.yaml (Skaffold)",
    ]
    assert "      workload: deployment/shop  # a guess: it has to be in the cluster already" in text
    assert proposal.manifests == {}
    assert proposal.doubts


def test_a_plain_kustomizations_files_are_manifests(shop: Shop) -> None:
    proposal = shop.proposal(
        {
            "Dockerfile": PYTHON,
            "k8s/kustomization.yaml": "resources: [app.yaml, service.yaml]\n",
            "k8s/app.yaml": deployment("shop", "shop"),
            "k8s/service.yaml": SERVICE,
        }
    )
    assert proposal.services[0].manifests == ("k8s/app.yaml", "k8s/service.yaml")


def test_a_folder_without_a_dockerfile_has_no_service(shop: Shop) -> None:
    proposal = shop.proposal({"app.py": "", "k8s.yaml": deployment("a", "b")})
    assert proposal.services == ()
    assert proposal.doubts


@pytest.mark.parametrize(
    "text", ["services: [", "- 1\n", "services: {a: {build: {context: 3}}}\n", ""]
)
def test_a_compose_file_that_is_none_is_no_hindrance(shop: Shop, text: str) -> None:
    proposal = shop.proposal({"Dockerfile": PYTHON, "compose.yaml": text})
    assert [each.name for each in proposal.services] == ["shop"]


@pytest.mark.parametrize("name", ["Über uns", "no", "123", "a.b_C"])
def test_any_folders_name_makes_valid_files(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    odd = Shop(tmp_path / name)
    odd.lines({"Dockerfile": PYTHON})
    (first, second) = read_manifests([odd.root / "k8s.yaml"])
    label = first.object["metadata"]["name"]
    assert isinstance(label, str)
    assert first.object["spec"]["selector"]["matchLabels"] == {"app": label}
    assert second.object["spec"]["selector"] == {"app": label}
