"""What is imported before there is something to see: each in a Python of its own.

The speed of a start is kept by what it imports; a time would only measure the machine.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

from devloop.cli import main as cli

if TYPE_CHECKING:
    from pathlib import Path


def python(
    code: str, cwd: Path | None = None, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `code` in a Python that has imported nothing yet."""
    argv = [sys.executable, "-c", textwrap.dedent(code)]
    return subprocess.run(
        argv, cwd=cwd, env=env, capture_output=True, text=True, timeout=60, check=False
    )


def test_help_imports_nothing_heavy() -> None:
    """In one process: what one imported stays for the others, and the first that did is named."""
    argvs = [["--help"], ["--version"], *([name, "--help"] for name in cli.COMMANDS)]
    heavy = ("kubernetes", "docker", "rich", "yaml", "watchfiles", "urllib3")
    done = python(
        f"""
        import sys
        from devloop.cli.main import main
        for argv in {argvs!r}:
            status = main(argv)
            heavy = [name for name in {heavy!r} if name in sys.modules]
            print(*argv, "ends with", status, "heavy:", heavy, file=sys.stderr)
        """
    )
    assert done.returncode == 0, done.stderr
    told = [line for line in done.stderr.splitlines() if "ends with" in line]
    assert told == [f"{' '.join(argv)} ends with 0 heavy: []" for argv in argvs]
    assert all(f"Usage: devloop {name} " in done.stdout for name in cli.COMMANDS)


def test_a_tab_imports_nothing_that_a_session_needs(tmp_path: Path) -> None:
    heavy = (
        *("kubernetes", "docker", "rich", "watchfiles", "urllib3", "socket", "subprocess"),
        *("devloop.app", "devloop.watch", "devloop.builders", "devloop.cluster.api.connection"),
    )
    (tmp_path / "devloop.yaml").write_text(
        "version: 1\nservices:\n  web: {build: .}\n  worker: {build: w}\n  api: {build: api}\n"
    )
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text("contexts: [{name: kind-a, context: {}}, {name: team-b, context: {}}]\n")
    done = python(
        f"""
        import sys
        from click.shell_completion import ShellComplete
        from devloop.cli.main import command
        complete = ShellComplete(command, {{}}, "devloop", "_DEVLOOP_COMPLETE")
        for words in (["dev"], ["dev", "--context"], []):
            print(len(complete.get_completions(words, "")))
        print([name for name in {heavy!r} if name in sys.modules])
        """,
        cwd=tmp_path,
        env={**os.environ, "KUBECONFIG": str(kubeconfig)},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["3", "2", str(len(cli.COMMANDS)), "[]"]


def test_the_first_word_comes_before_anything_slow_is_imported(tmp_path: Path) -> None:
    """And the errors after it are the same as ever."""
    slow = "['yaml', 'urllib3', 'rich', 'devloop.app']"
    done = python(
        "import sys; from devloop.cli import session;"
        "from devloop.cli.options import CommonOptions;"
        "say = session.report_early;"
        "session.report_early = lambda *a, **k: ("
        f"say(*a, **k), print([m for m in {slow} if m in sys.modules]));"
        "sys.exit(session.run_session(CommonOptions(), mode='dev', services=(), output='lines'))",
        cwd=tmp_path,
    )
    first, imported, *rest = done.stdout.splitlines()
    assert first.startswith("devloop: ")
    assert "reading devloop.yaml" in first
    assert imported == "[]"
    assert "config/not-found" in rest[0]
    assert done.returncode == 2


def test_the_first_requests_wait_for_no_import_of_what_comes_after_them() -> None:
    late = (
        "devloop.app.wiring",
        "devloop.app.control",
        "devloop.builders.select",
        "devloop.cluster.deploy.deployments",
        "devloop.cluster.rollout",
        "devloop.engine.loop",
        "devloop.logs",
        "devloop.manifests",
        "devloop.port_forward",
        "devloop.sync",
        "devloop.watch.source",
        "devloop.web",
        "asyncio",
        "docker",
        "kubernetes",
        "rich",
        "watchfiles",
    )
    done = python(
        "import sys, devloop.cli.dev, devloop.app.session, devloop.config.loader;"
        f"print(*(name for name in {late!r} if name in sys.modules))"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def test_deploying_does_not_load_the_client_library() -> None:
    done = python(
        "import sys, devloop.cluster.deploy.deployments; print('kubernetes' in sys.modules)"
    )
    assert done.stdout == "False\n", done.stderr


def test_plain_outputs_import_no_rich() -> None:
    done = python(
        """
        import io, sys
        from devloop.ui import make_sink
        import devloop.ui.text
        for output in ("lines", "json", "quiet", "auto"):
            make_sink(output, io.StringIO(), env={})
            print(*(name for name in sys.modules if name.partition(".")[0] == "rich"))
        """
    )
    assert done.stdout == "\n\n\n\n", done.stderr
