"""The delta layer: after a first image, only what changed is added to it."""
