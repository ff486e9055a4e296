"""Following container logs: one stream a container, each line once, across replacements."""
