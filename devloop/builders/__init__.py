"""Making an image from a build context: reading the Dockerfile, choosing and driving a builder."""
