"""File sync: what was saved is copied into the running containers, over streams that stand open."""
