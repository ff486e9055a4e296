"""Judging a rollout and saying what is wrong with its pods."""
