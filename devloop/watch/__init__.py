"""Noticing changes: the scan is the truth, file events are hints for when to scan."""
