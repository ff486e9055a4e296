"""`devloop schema`: the JSON Schemas of devloop.yaml and of the event stream."""

from __future__ import annotations

import json

import click


@click.command("schema")
@click.argument("of", type=click.Choice(["config", "events"]), default="config")
def command(of: str) -> int:
    """Print a JSON Schema: of devloop.yaml, or with `events` of a line of the event stream.

    Write the first to .devloop/schema.json and begin devloop.yaml with the line
    `# yaml-language-server: $schema=./.devloop/schema.json`; editors then check and complete it.
    """
    # Both are built at import, which other commands' --help need not wait for.
    if of == "events":
        from devloop.event_schema import event_schema  # noqa: PLC0415

        schema = event_schema()
    else:
        from devloop.config.json_schema import project_schema  # noqa: PLC0415

        schema = project_schema()
    click.echo(json.dumps(schema, indent=2))
    return 0
