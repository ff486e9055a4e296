"""The front door: local ports that outlive pods."""
