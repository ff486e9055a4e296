"""A session for those who look at it or steer it from outside: its control socket, what has
happened so far, and what is written down of it for when it is over.

Reads the event stream like `ui/`. What a request does to the session is the app's to say; nothing
here takes a decision about builds or the cluster.
"""
