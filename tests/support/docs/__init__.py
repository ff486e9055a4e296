"""Writes the pages of docs/ that are made from the code: devloop.yaml's keys, the error codes.

`python -m tests.support.docs` writes them anew; a unit test compares what it would write with what
is there. Nothing here is imported by devloop itself.
"""
