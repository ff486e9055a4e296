"""Composition root: config and flags become a wired engine."""

from __future__ import annotations
