"""What is read of an agent and when, with one that says what it says all at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devloop.base.cancel import Cancel
from devloop.sync.agent_session import Agent
from tests.integration.hot.test_syncer import LocalStream

if TYPE_CHECKING:
    from pathlib import Path

SAYS = (
    r"agent 1 supervised\ncontent image\ndone\n"
    r"done\nrestarting 2\nevent started 7 8 2\nevent listening 2\n"
)


def test_news_that_come_with_the_end_of_a_batch_are_heard(tmp_path: Path) -> None:
    stream = LocalStream(["sh", "-c", f"printf '{SAYS}'; exec cat > /dev/null"])
    agent = Agent(stream, Cancel())
    try:
        agent.begin()
        assert agent.supervised
        assert agent.apply((), tmp_path, 1.0) == {}
        assert [news.kind for news in agent.process_news()] == [
            "restarting",
            "started",
            "listening",
        ]
        assert agent.process_news() == []
    finally:
        agent.close()
