"""Deciding what to do: pure state and plan, and the one thread that owns them.

Nothing here knows Docker, Kubernetes or a terminal; those are reached through `ports`.
"""
