"""Showing the event stream to people and programs; reads events and nothing else."""
