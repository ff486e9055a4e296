"""A proposal as the text of a devloop.yaml: short, with a remark where something was assumed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devloop.config.yaml_text import flow, scalar

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devloop.app.starter.propose import Proposal, ProposedService
    from devloop.config.yaml_text import Plain


MODELINE = "yaml-language-server: $schema=./.devloop/schema.json"


def project_text(proposal: Proposal, *, head: str) -> str:
    """The file's text; `head` are its first lines, as remarks."""
    lines = [*(f"# {line}" for line in head.splitlines()), "version: 1"]
    if proposal.env_file:
        lines.append(f"env_file: {scalar(proposal.env_file)}")
    lines.append("services:")
    for service in proposal.services:
        lines += _service(service)
    if proposal.unread:
        lines += ["# Found, and not made use of:", *(f"#   {each}" for each in proposal.unread)]
    return "".join(f"{line}\n" for line in lines)


def _service(service: ProposedService) -> Iterator[str]:
    why = service.why
    yield f"  {scalar(service.name)}:"
    if service.image:
        yield f"    image: {scalar(service.image)}"
    yield from _build(service)
    deploy: list[str] = []
    if service.manifests:
        remark = why.get("manifests")
        deploy.append(_with(f"manifests: {flow(list(service.manifests))}", remark))
    if service.kustomize:
        deploy.append(_with(f"kustomize: {scalar(service.kustomize)}", why.get("rendered")))
    if service.chart:
        deploy.append(_with(f"helm: {flow({'chart': service.chart})}", why.get("rendered")))
    if service.workload:
        deploy.append(_with(f"workload: {scalar(service.workload)}", why.get("workload")))
    if deploy:
        yield "    deploy:"
        yield from (f"      {each}" for each in deploy)
    if service.ports:
        yield _with(f"    ports: {flow(list(service.ports))}", why.get("ports"))


def _build(service: ProposedService) -> Iterator[str]:
    more = (service.dockerfile, service.target, service.args, service.ignore, service.cache)
    if not any(more):
        yield f"    build: {scalar(service.context)}"
        return
    yield "    build:"
    yield f"      context: {scalar(service.context)}"
    if service.dockerfile:
        yield f"      dockerfile: {scalar(service.dockerfile)}"
    if service.target:
        yield f"      target: {scalar(service.target)}"
    if service.args:
        args: dict[str, Plain] = dict(service.args)
        yield f"      args: {flow(args)}"
    if service.cache:
        yield _with("      cache: auto", service.why.get("cache"))
    if service.ignore:
        yield _with(f"      ignore: {flow(list(service.ignore))}", service.why.get("ignore"))


def _with(line: str, remark: str | None) -> str:
    return f"{line}  # {remark}" if remark else line
