"""`devloop schema`: the JSON Schema of devloop.yaml, for editors."""

from __future__ import annotations

import json

import click


@click.command("schema")
def command() -> int:
    """Print the JSON Schema of devloop.yaml.

    Write it to .devloop/schema.json and begin devloop.yaml with the line
    `# yaml-language-server: $schema=./.devloop/schema.json`; editors then check and complete it.
    """
    # The grammar is built at import, which other commands' --help need not wait for.
    from devloop.config.json_schema import project_schema  # noqa: PLC0415

    click.echo(json.dumps(project_schema(), indent=2))
    return 0
