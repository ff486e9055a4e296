"""Makes a machine ready for devloop's demo and tests, and says what it found.

Only the standard library is used, for this runs before the project is installed. A laptop with
Docker and the internet takes the short way (everything is pulled); a bare Debian machine that can
reach nothing but package registries gets Docker Engine from Debian packages and its images made
from Debian packages and Go modules.  Nothing here is imported by devloop itself.
"""
