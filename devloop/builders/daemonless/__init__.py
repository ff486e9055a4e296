"""Images made without any builder, where a Dockerfile runs nothing."""
