"""Random Dockerfiles: every form of COPY that devloop may meet, in every company it keeps.

Most of what is made here can be built; what cannot be is a case, too. A recipe is kept as lines so
that a case can be made smaller line by line.
"""

from __future__ import annotations

import json
import posixpath
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping
    from pathlib import Path

    from tests.support.differential.edits import Tree

__all__ = [
    "BASE_FILES",
    "BASE_LINES",
    "Bases",
    "Recipe",
    "random_recipe",
    "random_split_recipe",
    "varied",
]

# The small base: users, symlinks where a COPY may go, directories with own modes and owners.
# Each: path, type, mode, uid, gid, and the link's target or the file's content.
BASE_FILES: tuple[tuple[str, str, int, int, int, str], ...] = (
    ("etc", "dir", 0o755, 0, 0, ""),
    (
        "etc/passwd",
        "file",
        0o644,
        0,
        0,
        "root:x:0:0::/:/bin/sh\nwww:x:1001:1002::/srv:/bin/sh\n7:x:77:78::/:\nnobody:x:65534:65534::/:\n",
    ),
    ("etc/group", "file", 0o644, 0, 0, "root:x:0:\nweb:x:1002:www\nstaff:x:50:www\n8:x:88:\n"),
    ("app", "dir", 0o750, 1001, 1002, ""),
    ("app/main.py", "file", 0o600, 1001, 1002, "from the base\n"),
    ("app/sub", "file", 0o644, 0, 0, "a file where a directory may come\n"),
    ("srv", "dir", 0o755, 0, 0, ""),
    ("srv/real", "dir", 0o2775, 3, 4, ""),
    ("srv/real/kept", "file", 0o644, 3, 4, "kept\n"),
    ("link", "symlink", 0o777, 0, 0, "srv/real"),
    ("abs", "symlink", 0o777, 0, 0, "/srv/real"),
    ("dangling", "symlink", 0o777, 0, 0, "/not/there"),
    ("file", "file", 0o644, 5, 6, "just a file\n"),
    ("data", "dir", 0o1777, 0, 0, ""),
    ("data/lib", "symlink", 0o777, 0, 0, "../srv"),
    ("work", "dir", 0o700, 1001, 0, ""),
)
BASE_LINES = (
    "ENV DEST=/srv/real BASE=1 PATH=/bin",
    "WORKDIR /work",
    "USER www",
    'LABEL base="yes" both="base"',
    "EXPOSE 8080",
    'ENTRYPOINT ["/bin/start"]',
    'CMD ["base"]',
    "VOLUME /data/volume",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bases:
    """The images to start from, as a FROM names them. `flags` are those that the builder knows of
    `--parents` and `--exclude`;"""

    small: str
    shell: str
    onbuild: str
    flags: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A Dockerfile and how it is built. `beside` puts it outside of the context."""

    lines: tuple[str, ...]
    args: Mapping[str, str] = field(default_factory=dict)
    stage: str | None = None
    beside: bool = False

    @property
    def text(self) -> str:
        return "".join(f"{line}\n" for line in self.lines)

    def dockerfile(self, root: Path) -> Path:
        return root / ("docker/app.Dockerfile" if self.beside else "context/Dockerfile")

    def to_json(self) -> dict[str, Any]:
        return {
            "lines": list(self.lines),
            "args": dict(self.args),
            "stage": self.stage,
            "beside": self.beside,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Recipe:
        return cls(**{**data, "lines": tuple(data["lines"])})


DESTS = (
    *("/", "/app", "/app/", "app", "app/", ".", "./", "/srv/one/", "/a/b/c/", "sub/dir/", "/link/"),
    *(
        "$DEST/",
        "${DEST}/in/",
        "${NOPE:-/fallback}/",
        "$D/x/",
        "../up/",
        "/app/../y/",
        "/a//b/./d/",
    ),
    *("/abs/", "/data/lib/", "/data/", "/etc/", "/work/", "/srv/real/", "/data/volume/", "/many/"),
)
# Where it depends on what is copied, or on the base, whether it can be built.
AWKWARD_DESTS = (
    *("/link", "/abs/x", "/dangling/", "/dangling", "/file", "/file/", "/app/sub/", "/app/sub"),
    *("/a/b/c", "/data", "$D/x", "${DEST}", "/srv/real/kept", "/abs", "/one", "/app/main.py"),
)
CHOWNS = (
    *(
        "0:0",
        "1000",
        "1000:2000",
        "7",
        "8:8",
        "${U:-9:9}",
        "65534:65534",
        "0",
        "4294967294",
        "12:0",
    ),
)
NAMED = (
    *("www", "www:web", "www:staff", "root", "root:root", "1:web", "nobody", "7", "ghost", ":web"),
)
KNOWN = ("www", "www:web", "www:staff", "root", "1:web", "root:root", "1001:web")
CHMODS = (
    "755",
    "755",
    "0755",
    "0644",
    "600",
    "4755",
    "0777",
    "1777",
    "400",
    "0",
    "2750",
    "07777",
    "${M:-711}",
)
META = (
    *(
        "ENV A=1 B='two words'",
        "ENV DEST=/other",
        "ENV D=$DEST/sub",
        "ARG D=/argued",
        "ARG U=12:13",
    ),
    *(
        "ARG M=640",
        "ENV old style value",
        "LABEL x=y both=$A",
        "EXPOSE 80 443/udp",
        "EXPOSE ${PORT:-82}",
    ),
    *(
        "USER www",
        "USER 1234:56",
        "USER nobody",
        "WORKDIR rel",
        "WORKDIR /work/deep",
        "WORKDIR $DEST",
    ),
    *(
        "WORKDIR ../up",
        "WORKDIR /app",
        "WORKDIR /link",
        "CMD run me",
        'CMD ["a", "b $A"]',
        "VOLUME /v",
    ),
    *('ENTRYPOINT ["/e"]', "ENTRYPOINT exec e", "STOPSIGNAL SIGINT", 'SHELL ["/bin/x", "-c"]'),
    *(
        "HEALTHCHECK --interval=5s CMD true",
        "HEALTHCHECK NONE",
        "# a comment",
        "ONBUILD COPY . /later",
    ),
    *(
        "MAINTAINER me",
        "ENV PATH=/opt:$PATH",
        "WORKDIR '/with space'",
        "EXPOSE 9000-9002",
        "ENV E=",
    ),
)
EXCLUDES = (
    "*.md",
    "**/*.md",
    "x.py",
    "**/x.py",
    "sub",
    "app/sub",
    "deep",
    "*",
    "lib/*",
    "data",
    "[ax]*",
)


def random_recipe(rng: random.Random, tree: Tree, bases: Bases) -> Recipe:
    """A Dockerfile over what `tree` has."""
    shape = rng.choices(
        ["plain", "stages", "chain", "run", "odd", "onbuild"], [66, 12, 10, 5, 5, 2]
    )[0]
    args = rng.choice([{}, {}, {"D": "/given"}, {"U": "1000:1000", "M": "0600"}, {"PORT": "81"}])
    stage = None
    base = rng.choices(["scratch", bases.small, bases.shell], [35, 50, 15])[0]
    match shape:
        case "stages":
            lines = _stages(rng, tree, bases, base)
        case "chain":
            lines = [f"FROM {base} AS first", *_body(rng, tree, bases, base, 2)]
            lines += ["FROM first AS second", *_body(rng, tree, bases, base, 2)]
            stage = rng.choice([None, None, "first", "SECOND"])
        case "run":
            lines = [f"FROM {bases.shell}", *_body(rng, tree, bases, bases.shell, 2)]
            lines.insert(rng.randint(1, len(lines)), rng.choice(RUNS))
        case "onbuild":
            lines = [f"FROM {bases.onbuild}", *_body(rng, tree, bases, bases.onbuild, 2)]
        case "odd":
            lines = [f"FROM {base}", *_body(rng, tree, bases, base, 3)]
            lines.insert(rng.randint(1, len(lines)), rng.choice(STRANGE))
        case _:
            lines = [f"FROM {base}", *_body(rng, tree, bases, base, rng.randint(1, 5))]
    if rng.random() < 0.1:
        lines.insert(0, rng.choice(["ARG TOP=/top", "# plain comment", "# escape=\\"]))
    return Recipe(lines=tuple(lines), args=args, stage=stage, beside=rng.random() < 0.15)


def random_split_recipe(rng: random.Random, tree: Tree, bases: Bases) -> Recipe:
    """One whose last instructions need no builder, and something before them does."""
    args = rng.choice([{}, {}, {"D": "/given"}, {"U": "1000:1000", "M": "0600"}, {"PORT": "81"}])
    run = rng.choice(RUNS)
    base = bases.shell

    def body(base: str, copies: int) -> list[str]:
        return _body(rng, tree, bases, base, copies)

    shape = rng.choices(["run", "taken", "chain"], [50, 35, 15])[0]
    if shape == "run":
        lines = [f"FROM {base}", *body(base, rng.randint(0, 1)), run]
    elif shape == "taken":
        lines = [f"FROM {base} AS build", "RUN mkdir -p /made/in && echo made > /made/in/x"]
        base = rng.choice([bases.small, bases.small, "scratch", bases.shell])
        lines += [f"FROM {base}", *body(base, rng.randint(0, 1))]
        lines.append(f"COPY --from=build /made/ {rng.choice(['/made/', '/app/', '/a/b/', '.'])}")
    else:
        lines = [f"FROM {base} AS first", *body(base, 1), run, *body(base, 1)]
        lines.append("FROM first AS second")
    lines += body(base, rng.randint(1, 3))
    if rng.random() < 0.1:
        lines.insert(0, rng.choice(["ARG TOP=/top", "# plain comment", "# escape=\\"]))
    return Recipe(lines=tuple(lines), args=args, beside=rng.random() < 0.15)


RUNS = (
    "RUN mkdir -p /made && echo made > /made/x",
    "RUN ls -R / > /dev/null; echo $A > /var/tmp/seen",
    "RUN cat /app/* /srv/one/* 2>/dev/null | wc -c > /counted || true",
    "RUN --mount=type=bind,target=/mnt ls -R /mnt | sort > /listed || true",
    "RUN chmod -R go-rwx /app 2>/dev/null; chown -R 9:9 /srv 2>/dev/null; rm -rf /a/b; true",
)
STRANGE = (
    "COPY <<EOF /here/doc\nhello $A\nEOF",
    "ADD --chown=1:1 *.tar* /unpacked/",
    "COPY missing-for-sure /x",
    "COPY missing-*.none /x/",
    "ADD . /added/",
    "ADD app/ lib/ /added",
    "COPY --chmod=u=rwX,go=rX app /symbolic",
    "COPY --link=false . /linked/",
    "COPY --link=true --chown=1:2 . /linked",
    "copy  app   /lower",
    "COPY app \\\n  # comment\n  lib /continued/",
    'COPY ["app", "/json/"]',
    "COPY . /a/\nCOPY --chown=www app /a/app",
    "COPY . /x\nRUN true",
)


def _stages(rng: random.Random, tree: Tree, bases: Bases, base: str) -> list[str]:
    first = [f"FROM {base} AS build", *_body(rng, tree, bases, base, 2), "COPY . /sure/sub/"]
    other = rng.choice(["scratch", bases.small])
    second = [f"FROM {other}", *_body(rng, tree, bases, other, 2)]
    source = rng.choice(["/", "/sure", "/sure/.", "/sure/*", "/sure/sub"])
    flags = rng.choice(["", "--chown=5:6 ", "--link ", "--chmod=700 "])
    dest = rng.choice(["/from/", "/from/", "/app/", "/app/sub/", "."])
    second.insert(rng.randint(1, len(second)), f"COPY --from=build {flags}{source} {dest}")
    if rng.random() < 0.2:
        # A stage that nothing needs.
        second[:0] = [f"FROM {bases.small} AS unused", "COPY . /unused", "RUN false"]
    return first + second


def _body(rng: random.Random, tree: Tree, bases: Bases, base: str, copies: int) -> list[str]:
    wild = rng.random() < 0.3
    lines = [copy_line(rng, tree, bases, base, wild=wild) for _ in range(copies)]
    for line in rng.sample(META, rng.randint(0, 5)):
        lines.insert(rng.randint(0, len(lines)), line)
    return lines


def copy_line(rng: random.Random, tree: Tree, bases: Bases, base: str, *, wild: bool = True) -> str:
    """One COPY or ADD; `wild` takes what seldom works, or not everywhere in the same way."""
    flags = []
    if rng.random() < 0.3:
        names = KNOWN if base == bases.small else ()
        choice = rng.choice([CHOWNS, NAMED if wild else names or CHOWNS])
        flags.append(f"--chown={rng.choice(choice)}")
    if rng.random() < (0.2 if wild else 0.06):
        flags.append(f"--chmod={rng.choice(CHMODS)}")
    if rng.random() < 0.12:
        flags.append("--link")
    word = "COPY" if rng.random() < 0.88 else "ADD"
    if word == "COPY" and "--parents" in bases.flags and rng.random() < 0.25:
        flags.append("--parents")
    if word == "COPY" and "--exclude" in bases.flags:
        for _ in range(rng.choice([0, 0, 0, 1, 2])):
            flags.append(f"--exclude={rng.choice(EXCLUDES)}")  # noqa: PERF401 - a random number
    rng.shuffle(flags)
    sources = [
        _source(rng, tree, links=wild) for _ in range(rng.choices([1, 2, 3], [70, 20, 10])[0])
    ]
    if "--parents" in flags and rng.random() < 0.4:
        sources = [_pivot(rng, source) for source in sources]
    dest = rng.choice(AWKWARD_DESTS if wild and rng.random() < 0.2 else DESTS)
    if len(sources) > 1 and rng.random() < 0.95 and not dest.endswith("/"):
        dest += "/"
    words = [*sources, dest]
    if any(c in word for word in words for c in ' "\\\n\t') or rng.random() < 0.05:
        return " ".join([word, *flags, json.dumps(words, ensure_ascii=False)])
    return " ".join([word, *flags, *words])


def _pivot(rng: random.Random, source: str) -> str:
    parts = source.split("/")
    parts.insert(rng.randint(0, len(parts) - 1), ".")
    return "/".join(parts)


def _source(rng: random.Random, tree: Tree, *, links: bool) -> str:
    roll = rng.random()
    if roll < 0.3:
        return rng.choice([".", "./", "/", "./."])
    if roll < 0.5:
        return rng.choice(
            [
                "*",
                "*.py",
                "*.*",
                "a*",
                "l*/",
                "?",
                "[a-d]*",
                "app/*",
                "*/x.py",
                "*/*",
                "[!a]*",
                "app*",
            ]
        )
    choice = [p for p in (*tree.files, *tree.directories) if _writable(p)]
    if links and tree.links and rng.random() < 0.06:
        choice = list(tree.links)
    if not choice:
        return "."
    shallow = [p for p in choice if "/" not in p]
    path = rng.choice(shallow if shallow and rng.random() < 0.6 else choice)
    match rng.randint(0, 9):
        case 0:
            return f"/{path}"
        case 1:
            return f"./{path}"
        case 2 if path in tree.directories:
            return f"{path}/"
        case 3 if path in tree.directories:
            return f"{path}/."
        case 4:
            return posixpath.join(path, "..", posixpath.basename(path))
        case 5:
            return f"../../{path}"
    return path


def _writable(path: str) -> bool:
    """Whether a Dockerfile can name this path (it is text in UTF-8 without line breaks)."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return not any(c in path for c in "\n\r\x01\x7f\u202e") and not path.startswith("--")


def varied(rng: random.Random, recipe: Recipe, tree: Tree, bases: Bases) -> Recipe:
    """The same with one line added, dropped or changed; the first FROM stays."""
    lines = list(recipe.lines)
    start = next(i for i, line in enumerate(lines) if line.startswith("FROM")) + 1
    where = rng.randint(start, len(lines))
    roll = rng.random()
    if roll < 0.5:
        line = rng.choice(META) if rng.random() < 0.5 else copy_line(rng, tree, bases, "")
        lines.insert(where, line)
    elif where < len(lines) and not lines[where].startswith("FROM"):
        lines.pop(where)
    else:
        lines.append("# changed")
    return replace(recipe, lines=tuple(lines))
