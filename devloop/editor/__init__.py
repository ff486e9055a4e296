"""Files that make editors run devloop and list its problems: what each should hold, from facts of
the project and from what it holds now. Pure; reads and writes nothing.

One module an editor, each with `files(project, read)`: path in the workspace -> its text, where
`read` returns the text that a path has now, or None. The tasks are in tasks.py, how problems look
in problems.py, and jsonc.py changes entries of ours in a file that somebody else owns.
"""
