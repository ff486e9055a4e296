"""Skaffold's configuration, read as it is: a skaffold.yaml becomes the tree of a devloop.yaml whose
values keep their places in skaffold.yaml, and notes on what of it devloop does otherwise or not.

`source` reads files, everything else is pure: profiles are put over the document in the version it
is written in, the result is brought to the newest version (`upgrade`), each key is looked up
(`keys`), and the rest makes devloop's keys of Skaffold's. Must not check what a value may be: the
tree goes through the same reader as a devloop.yaml.
"""
