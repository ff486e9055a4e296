"""What else is installed under devloop's name: another project on PyPI is called `devloop`, while
this one is `devloop-k8s`, and both bring a package `devloop`."""

from __future__ import annotations


def foreign() -> str:
    """A warning if that project is in this environment, where each overwrites files of the other;
    else empty."""
    from importlib import metadata  # noqa: PLC0415 - takes longer than all else of --version

    try:
        other = metadata.distribution("devloop")
    except metadata.PackageNotFoundError:
        return ""
    return (
        f"another project, devloop {other.version}, is installed in the same environment and "
        "overwrites files of this one, or this one its: `pip uninstall devloop devloop-k8s`, then "
        "`pip install devloop-k8s` (better: `uv tool install devloop-k8s`, with an environment of "
        "its own)"
    )
