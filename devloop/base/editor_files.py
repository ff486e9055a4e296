"""Names that are nobody's source: what editors write beside a file while they save it.

Such files come and go within milliseconds, so they must neither start an iteration nor be part of
what an image is made from, unless they stay: a project's own file may be called so, and then it is
in the image as with `docker build`. Only names that a tool is known to use count.

Sources: Tilt's internal/ignore/ephemeral.go for the list of editors, each editor's own manual.
"""

from __future__ import annotations

import fnmatch
import re

LEFT_OUT_DIRECTORIES = frozenset({".git", ".devloop"})
"""Directories that are left out at any depth: git writes its own at every operation (an image that
changed with each `git fetch` would never be "unchanged"), and devloop writes `.devloop`. A project
whose image needs `.git` says so with an exception, `!.git` or `!.git/HEAD`, in its ignore file."""

TEMPORARY = (
    "*~",  # backups: emacs, vim, gedit, kate; vim's undo file *.un~
    ".*.sw[a-z]",  # vim's and nano's swap files
    "4913",  # vim asks whether it may create files here
    "*___jb_tmp___",  # JetBrains' safe write
    "*___jb_old___",
    ".#*",  # emacs: lock (a dangling symlink)
    "#*#",  # emacs: auto-save
    "flymake_*",  # emacs: copies for checkers
    "flycheck_*",
    ".*.kate-swp",
    ".goutputstream-*",  # everything that saves through GLib
    ".~lock.*#",  # LibreOffice
    f".*.kak.{'[0-9A-Za-z]' * 6}",  # Kakoune
    "*.vsctmp",  # VS Code's atomic write
    "*-go-tmp-umask",  # gofmt asks for the umask
    f".nfs{'[0-9a-f]' * 16}*",  # deleted on NFS while still open
    f".fuse_hidden{'[0-9a-f]' * 8}*",  # the same on FUSE
)
"""The base names of editors' temporary files, as patterns that fnmatch and .dockerignore read
alike."""

_TEMPORARY = re.compile("|".join(map(fnmatch.translate, TEMPORARY)))

# Nearly no name has one of these, and looking for them is much quicker than the expression.
_MARKS = re.compile(r"[~#]|4913|___jb|^flyc?|\.(?:sw|kate|gout|kak|vsct|nfs|fuse)|umask")


has_mark = _MARKS.search
"""Cheap: None for a name that `is_temporary` says no to; anything for one that is worth asking."""


def is_temporary(name: str) -> bool:
    """Whether a file (never a directory) of this base name is an editor's temporary file."""
    return _MARKS.search(name) is not None and _TEMPORARY.match(name) is not None
