"""Images made in-process against `docker buildx build --no-cache`: random cases, both sides, the
comparison, and the reduction of what differs.

`recipes` and `edits` make the cases, `candidate` and `reference` the two images, `images` and
`compare` look at them, `campaign` runs many cases side by side and `shrink` makes one small. What
is here must not know how the product takes its decisions: it sees a builder and a registry.
"""
