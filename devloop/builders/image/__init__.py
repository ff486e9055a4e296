"""Images made in this process, without a builder: what a COPY puts where, layers, the delta layer.

Everything here must give what `docker buildx build --no-cache` would have given, file by file, or
say that it cannot prove that (`NeedsFullBuild`). The differential test compares the two.
"""
