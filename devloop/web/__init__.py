"""The page of a session: an HTTP server on loopback, and what a browser gets from it.

Reads what has happened and hands requests on, like `control/`; takes no decision. Imported only
when somebody wants the page. Everything that the browser needs is in `static/`, as it is served:
no build step, nothing from elsewhere.
"""
