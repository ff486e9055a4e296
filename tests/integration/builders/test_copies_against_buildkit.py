"""`place` says what the real builder does, path by path.

Many small cases are stages of one Dockerfile, gathered in one tar: a build for each would take
minutes. DEVLOOP_TEST_BUILDER names another builder than the default one; flags that a builder does
not know are left out there, and so is what `FileEntry.unsure` says that it decides.
"""

from __future__ import annotations

import json
import os
import posixpath
import random
import subprocess
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from devloop.builders.dockerfile import parse
from devloop.builders.image.copies import FileEntry, StageState, merge, place, stage_copies
from devloop.builders.image.full_build import NeedsFullBuild
from devloop.builders.image.layer import read_layer, write_layer
from tests.unit.builders.kit import snapshot_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from devloop.model import Snapshot

pytestmark = pytest.mark.docker

LONG = "long-" + "x" * 120
OWNERS = {"nobody": (65534, 65534), "nobody:nogroup": (65534, 65534), "root": (0, 0)}


@dataclass(frozen=True)
class Case:
    text: str
    base: str = "scratch"
    args: Mapping[str, str] = field(default_factory=dict)
    only: str = ""


def build(context: Path, dockerfile: str, args: Mapping[str, str]) -> bytes:
    """The tar of the last stage. Raises CalledProcessError."""
    command = ["docker", "buildx", "build", "--no-cache", "--progress=plain"]
    command.append(f"--builder={os.environ.get('DEVLOOP_TEST_BUILDER', 'default')}")
    command += [f"--build-arg={name}={value}" for name, value in args.items()]
    command += ["--output=type=tar,dest=-", "-f-", str(context)]
    return subprocess.run(
        command, input=dockerfile.encode(), capture_output=True, check=True, timeout=300
    ).stdout


def gathered(cases: Mapping[str, Case]) -> str:
    stages = [f"FROM {case.base} AS {name}\n{case.text}\n" for name, case in cases.items()]
    last = [f"COPY --from={name} /{case.only} /{name}/{case.only}" for name, case in cases.items()]
    return "\n".join((*stages, "FROM scratch", "COPY marker /", *last, ""))


def predicted(case: Case, snapshot: Snapshot) -> dict[str, FileEntry]:
    dockerfile = parse(f"FROM {case.base}\n{case.text}\n")
    copies = stage_copies(dockerfile, None, case.args, StageState())
    layers: list[Mapping[str, FileEntry]] = [made_first(case.text)]
    layers += [place(copy, snapshot, owner_of(copy.chown)) for copy in copies]
    found = {path: entry for path, (_, entry) in merge(layers).items()}
    if not case.only:
        return found
    inside = f"{case.only}/"
    return {path: entry for path, entry in found.items() if path.startswith(inside)}


def made_first(text: str) -> dict[str, FileEntry]:
    """The directories of the WORKDIRs, which come before any COPY here."""
    found, directory = {}, "/"
    for line in text.splitlines():
        keyword, _, path = line.partition(" ")
        if keyword == "WORKDIR":
            directory = posixpath.normpath(posixpath.join(directory, path))
            parts = directory.strip("/").split("/")
            for count in range(1, len(parts) + 1):
                above = "/".join(parts[:count])
                found[above] = FileEntry(path=above, type="dir", mode=0o755)
    return found


def owner_of(chown: str | None) -> tuple[int, int]:
    if chown is None:
        return 0, 0
    if chown in OWNERS:
        return OWNERS[chown]
    user, _, group = chown.partition(":")
    return int(user), int(group or user)


def shown(entry: FileEntry, *, with_mode: bool = True) -> str:
    mode = f" {entry.mode:o} {entry.uid}:{entry.gid}" if with_mode else ""
    return f"{entry.type}{mode} {entry.link} {entry.digest[:8]}"


def differences(
    cases: Mapping[str, Case], snapshot: Snapshot, real: Mapping[str, FileEntry]
) -> list[str]:
    default = os.environ.get("DEVLOOP_TEST_BUILDER", "default") == "default"
    found = []
    for name, case in cases.items():
        try:
            wanted = predicted(case, snapshot)
        except NeedsFullBuild as needed:
            # Here another COPY names what the symlink leads to; in a build alone nobody would.
            if "no pattern may name" not in needed.reason:
                raise
            continue
        inside = f"{name}/{case.only}/" if case.only else f"{name}/"
        cut = len(name) + 1
        got = {path[cut:]: e for path, e in real.items() if path.startswith(inside)}
        for path in sorted(wanted.keys() | got.keys()):
            there, here = got.get(path), wanted.get(path)
            sure = default or here is None or not here.unsure
            one = shown(there, with_mode=sure) if there else "nothing"
            other = shown(here, with_mode=sure) if here else "nothing"
            if one != other:
                found.append(f"{name} {case.text!r}: /{path} is {one}, place says {other}")
    return found


def check(context: Path, cases: Mapping[str, Case]) -> None:
    args = {name: value for case in cases.values() for name, value in case.args.items()}
    try:
        tar = build(context, gathered(cases), args)
    except subprocess.CalledProcessError as error:
        pytest.fail(error.stderr.decode()[-3000:])
    found = differences(cases, snapshot_of(context), read_layer([tar]))
    assert not found, "\n".join(found)


def fill(context: Path) -> None:
    directories = (
        "src/pkg/deep",
        "src/empty",
        "src/one",
        "data",
        "docs/de",
        "docs/en",
        "with space",
    )
    for name in (*directories, "ünï", "perm/sticky", "perm/setgid", LONG):
        (context / name).mkdir(parents=True)
    files = {
        "marker": "m",
        "a.txt": "a",
        "b.txt": "bb",
        "c.md": "c",
        ".hidden": "h",
        "run.sh": "#!/bin/sh\n",
        "src/main.py": "print(1)\n",
        "src/pkg/__init__.py": "",
        "src/pkg/x.py": "x = 1\n",
        "src/pkg/deep/y.py": "y = 2\n",
        "src/one/a.txt": "another a",
        "data/a.txt": "data a",
        "data/big.bin": "0" * 70000,
        "docs/readme.md": "r",
        "docs/de/readme.md": "de",
        "docs/en/readme.md": "en",
        "with space/f g.txt": "f",
        "ünï/ö.txt": "ö",
        "perm/setuid": "s",
        "perm/private": "p",
        "perm/sticky/in": "i",
        f"{LONG}/{LONG}.txt": "long",
        "[odd].txt": "odd",
        "single/a/b/c.txt": "abc",
    }
    for name, text in files.items():
        (context / name).parent.mkdir(parents=True, exist_ok=True)
        (context / name).write_text(text)
    links = {
        "link.txt": "a.txt",
        "linkdir": "src/pkg",
        "abs": "/src/one",
        "src/up": "../a.txt",
        "data/dangling": "nowhere",
        "src/pkg/loop": "..",
        "data/chain": "../link.txt",
        "data/" + "l" * 110: "t" * 120,
    }
    for name, target in links.items():
        (context / name).symlink_to(target)
    modes = {
        "run.sh": 0o755,
        "perm": 0o711,
        "perm/setuid": 0o4755,
        "perm/private": 0o600,
        "perm/sticky": 0o1777,
        "perm/setgid": 0o2775,
        "src/empty": 0o700,
        "docs/de": 0o750,
    }
    for name, mode in modes.items():
        (context / name).chmod(mode)


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("context")
    fill(directory)
    return directory


PLAIN = (
    "COPY a.txt /",
    "COPY a.txt /x",
    "COPY a.txt /x/",
    "COPY a.txt /x/y/z.txt",
    "COPY a.txt b.txt /x/",
    "COPY src /x",
    "COPY src/ /x/",
    "COPY src/pkg docs /x/",
    "COPY . /x",
    "COPY . /",
    "COPY ./src/../data /x",
    "COPY ../../a.txt /x",
    "COPY *.txt /x/",
    "COPY *.txt src /x/",
    "COPY ?.* /x/",
    "COPY [ab].txt /x/",
    "COPY [^a].txt /x/",
    "COPY [!a]* /x/",
    "COPY [a-c].* /x/",
    "COPY docs/* /x/",
    "COPY docs/*/readme.md /x/",
    "COPY *s*/*.txt /x/",
    "COPY s* /x/",
    "COPY src/p?g/*.py /x/",
    "COPY nothing* a.txt /x/",
    "COPY nothing* /x/",
    "COPY link.txt /x",
    "COPY link.txt /x/",
    "COPY l* /x/",
    "COPY linkdir /x",
    "COPY linkdir/deep /x",
    "COPY linkdir/*.py /x/",
    "COPY abs /x",
    "COPY abs/a.txt /x/",
    "COPY data/chain /x/",
    "COPY src/up /x",
    "COPY --chown=12:34 src /x",
    "COPY --chown=12 a.txt /x/y/z",
    "COPY --chown=12:34 --chmod=640 a.txt /x/",
    "COPY --chmod=4711 src /x",
    "COPY --chmod=0755 data /x/y",
    "COPY --chmod=1777 perm /x",
    "COPY perm /x",
    "COPY perm/* /y/",
    "COPY --link a.txt /x/",
    "COPY --link --chown=5:6 src /x/y",
    "COPY --link=false a.txt /x",
    'COPY ["with space/f g.txt", "/x y/"]',
    'COPY ["with space", "/x y"]',
    "COPY 'a.txt' \"/q/\"",
    "COPY ünï /ü",
    f"COPY {LONG} /{LONG}",
    "COPY .hidden /x/",
    "COPY src/main.py src/pkg /x/",
    "COPY src /x\nCOPY src/one /x/pkg",
    "COPY src /x\nCOPY --chown=3:4 docs/de /x",
    "COPY perm /x\nCOPY src/one /x/sticky",
    "COPY src /x\nCOPY --chown=7:8 --chmod=600 src /x",
    "COPY src/pkg /x\nCOPY single /x/deep/",
    "COPY a.txt /x\nCOPY b.txt /x",
    "COPY --chown=1:1 a.txt /x/\nCOPY --chown=2:2 b.txt /x/",
    "WORKDIR /w\nCOPY a.txt .",
    "WORKDIR /w\nCOPY a.txt ./",
    "WORKDIR /w\nCOPY a.txt b",
    "WORKDIR /w\nWORKDIR v/../u\nCOPY src .",
    "WORKDIR /w\nCOPY a.txt /w",
    "WORKDIR /w/v\nCOPY a.txt /w",
    "WORKDIR /w\nCOPY src /w\nCOPY run.sh /w",
    "ENV D=/dir\nCOPY a.txt $D/b",
    "ENV D=/dir E=${D:-x}y\nCOPY a.txt ${E:-/z}/",
    "ENV D /old style\nCOPY a.txt ${D}",
    "ARG F=a.txt\nCOPY $F /x/${F}.copy",
    "ARG F=a\\\n.txt\nCOPY $F \\\n  # comment\n  /x/",
    "ARG A=1\nENV B=$A\nARG C=${B}2\nCOPY a.txt /x/$A$B$C",
    "ENV Q='$Z' R=\"a b\"\nCOPY a.txt /x/$Q",
    "COPY a.txt /x/${NOT:-default}",
    "COPY a.txt /x/${NOT:+set}y",
    "COPY a.txt /x/\\$literal",
    "COPY a.txt /x//y///z",
    "COPY a.txt /x/./y/../z",
    "COPY a.txt x",
    "ADD a.txt /x/",
    "ADD src /x",
    "ADD --chown=9:9 *.md /x/",
    "ADD data/a.txt src/main.py /x/",
    "COPY src /x/.",
    "COPY a.txt b.txt /x",
    "COPY src a.txt /x",
    "COPY src/empty /x",
    "COPY src/empty /x/\nCOPY a.txt /x/",
    "COPY data/a.txt src/one /x/",
    "COPY src/one data/a.txt /x/",
    "COPY a.txt/ /x",
    "COPY /a.txt /x",
    "COPY src//pkg/ /x",
    "COPY docs/*/ /x/",
    "COPY docs/../.hidden\t /x",
    "COPY --chmod=0 a.txt src /x/",
    'COPY ["*.txt", "/x/"]',
    "ENV X=a.txt Y=/x\nENV Z=$Y/$X\nCOPY ${X} $Z",
    "COPY src /x\nCOPY src/up /x/pkg/",
)


def test_plain_copies(context: Path) -> None:
    check(context, {f"c{number}": Case(text) for number, text in enumerate(PLAIN)})


def test_owners_by_name_and_a_base(context: Path, base_image: str) -> None:
    texts = (
        "COPY --chown=nobody a.txt /out/",
        "COPY --chown=nobody:nogroup src /out/y",
        "USER nobody\nCOPY src /out/z",
        "ARG WHO=nobody\nCOPY --chown=$WHO a.txt /out/z",
        "COPY src /bin\nCOPY a.txt /out/a",
    )
    cases = [Case(text, base=base_image, only="out") for text in texts]
    check(context, {f"b{number}": case for number, case in enumerate(cases)})


def test_arguments(context: Path) -> None:
    given = {"F": "b.txt", "UNUSED": "x"}
    texts = (
        "ARG F=a.txt\nCOPY $F /x/",
        "ARG F\nCOPY $F /x/",
        "ENV G=c.md\nARG F\nCOPY $F $G /x/",
        "COPY a.txt${F} /x/",
    )
    check(context, {f"a{n}": Case(text, args=given) for n, text in enumerate(texts)})


def test_stages_on_stages(context: Path) -> None:
    text = """
ARG TOP=/top
ARG BASE=one
FROM scratch AS one
ARG TOP
ARG KEPT=kept
ENV SET=set
WORKDIR $TOP/w
COPY a.txt .
FROM $BASE AS two
COPY b.txt $SET/$KEPT/
FROM two
ARG TOP=/other
COPY c.md $TOP/
"""
    copies = stage_copies(parse(text), None, {}, None)
    snapshot = snapshot_of(context)
    wanted = merge(place(copy, snapshot, (0, 0)) for copy in copies)
    real = read_layer([build(context, text, {})])
    assert {p: shown(e) for p, (_, e) in wanted.items()} == {p: shown(e) for p, e in real.items()}


# What `place` cannot say must be what the builder refuses, or differs between builders.
REFUSED = (
    "COPY missing /x",
    "COPY data/dangling /x",
    "COPY d* /x",
    "COPY src /x\nCOPY b.txt /x/up",
    "COPY src /x\nCOPY b.txt /x/pkg/loop/",
    "COPY missing/*.py /x",
    "COPY src /x\nCOPY a.txt /x/pkg/deep\nCOPY src/pkg /x/pkg/deep",
    "COPY a.txt /x\nCOPY src /x",
    "COPY a.txt /x\nCOPY b.txt /x/y",
    "COPY --chmod=99 a.txt /x",
    "COPY --nope a.txt /x",
    "COPY a.txt",
    "COPY a.txt ${X:?needed}",
    'COPY "a.txt /x',
)


@pytest.mark.parametrize("text", REFUSED)
def test_what_the_builder_refuses(context: Path, text: str) -> None:
    with pytest.raises(NeedsFullBuild):
        predicted(Case(text), snapshot_of(context))


FLAGGED = (
    "COPY --parents src/pkg/x.py /x/",
    "COPY --parents src/pkg /x",
    "COPY --parents docs/*/readme.md a.txt /x/",
    "COPY --parents single/./a/b /x",
    "COPY --parents single/a/./b/c.txt /x/",
    "COPY --parents **/*.py /x/",
    "COPY --parents --chown=3:4 --chmod=700 docs/de perm/sticky/in /x/",
    "COPY --parents src/**/deep /x",
    "COPY --exclude=*.py src /x",
    "COPY --exclude=**/*.py src /x",
    "COPY --exclude=pkg src /x",
    "COPY --exclude=pkg/deep --exclude=one src docs /x",
    "COPY --exclude=** --exclude=!pkg/deep src /x",
    "COPY --exclude=pkg/** --exclude=!**/y.py src /x",
    "COPY --exclude=*.md --exclude=data . /x",
    "COPY --exclude=*.txt *.txt src /x/",
    "COPY --exclude=main.py --parents src /x/",
    "COPY --exclude=docs/de/ --exclude=data/ . /x",
    "ADD --exclude=*.py src /x",
)


def knows_them(context: Path) -> bool:
    try:
        build(context, "FROM scratch\nCOPY --parents --exclude=x marker /\n", {})
    except subprocess.CalledProcessError as error:
        if b"unknown flag" in error.stderr:
            return False
        raise
    return True


def test_parents_and_exclude(context: Path) -> None:
    if not knows_them(context):
        pytest.skip("this builder knows neither --parents nor --exclude")
    check(context, {f"f{number}": Case(text) for number, text in enumerate(FLAGGED)})


def test_a_layer_made_here_is_what_the_builder_makes(context: Path, tmp_path: Path) -> None:
    """Through an ADD, which has the builder unpack it."""
    copies = stage_copies(parse("FROM scratch\nCOPY --chown=2097152:7 . /\n"), None, {}, None)
    placed = place(copies[0], snapshot_of(context), (2097152, 7))
    (tmp_path / "layer.tar").write_bytes(write_layer(placed.values(), context))
    real = read_layer([build(tmp_path, "FROM scratch\nADD layer.tar /\n", {})])
    if os.environ.get("DEVLOOP_TEST_BUILDER", "default") == "default":
        assert {p: shown(e) for p, e in real.items()} == {p: shown(e) for p, e in placed.items()}


NAMES = ("a", "b", "c.py", "d e", "é", ".f")


@st.composite
def instructions(draw: st.DrawFn) -> str:
    """One to three COPYs over the names above, plausible and less so."""
    lines = []
    if draw(st.booleans()):
        lines.append("WORKDIR " + draw(st.sampled_from(("/w", "/x/y", "/a"))))
    part = st.sampled_from((*NAMES, "*", "?", "[a-c]*", "*.py", ".", ".."))
    source = st.lists(part, min_size=1, max_size=3).map("/".join)
    dests = ("/", ".", "./", "/x", "/x/", "/x/y", "/a/b/", "x", "/w", "/w/")
    for _ in range(draw(st.integers(1, 3))):
        flags = draw(
            st.sampled_from(("", "", "--chown=1:2 ", "--chmod=750 ", "--chown=3 --chmod=0644 "))
        )
        words = [*draw(st.lists(source, min_size=1, max_size=3)), draw(st.sampled_from(dests))]
        lines.append(f"COPY {flags}{json.dumps(words, ensure_ascii=False)}")
    return "\n".join(lines)


def random_tree(directory: Path, seed: int) -> None:
    rng = random.Random(seed)
    (directory / "marker").write_text("m")
    directories = [directory]
    for _ in range(rng.randrange(4, 24)):
        path = rng.choice(directories) / rng.choice(NAMES)
        if os.path.lexists(path):
            continue
        kind = rng.random()
        if kind < 0.4 and len(path.relative_to(directory).parts) < 4:
            path.mkdir()
            directories.append(path)
        elif kind < 0.85:
            path.write_text(str(path.relative_to(directory)))
            path.chmod(rng.choice((0o644, 0o600, 0o755, 0o4711)))
        else:
            path.symlink_to(rng.choice(("a", "../b", "/c.py", "nowhere", ".", "d e/a")))
    for path in directories[1:]:
        path.chmod(rng.choice((0o755, 0o700, 0o1777)))


@settings(
    max_examples=int(os.environ.get("DEVLOOP_TEST_EXAMPLES", "4")),
    deadline=None,
    database=None,
    phases=(Phase.generate,),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.large_base_example],
)
@given(
    texts=st.lists(instructions(), min_size=40, max_size=60, unique=True),
    seed=st.integers(0, 2**32),
)
def test_random_copies(
    tmp_path_factory: pytest.TempPathFactory, texts: Sequence[str], seed: int
) -> None:
    directory = tmp_path_factory.mktemp("random")
    random_tree(directory, seed)
    snapshot = snapshot_of(directory)
    cases = {}
    for number, text in enumerate(texts):
        try:
            predicted(Case(text), snapshot)
        except NeedsFullBuild:
            continue
        cases[f"r{number}"] = Case(text)
    check(directory, cases)
