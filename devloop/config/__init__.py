"""devloop.yaml: finding it, reading it with positions, checking it, and its JSON Schema.

Reads files and the environment; never the network, Docker or a cluster. Imports nothing by
itself, so that a command which needs no configuration does not pay for it.
"""
