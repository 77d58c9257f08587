"""Real agents run by the real daemon, against a model on loopback."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.agents.fleets import CONVERSATION, VARIABLES, fleet, session
from tests.agents.server import ModelServer
from tests.daemons import git

pytestmark = pytest.mark.timeout(600)
ALL = pytest.mark.parametrize("name", list(VARIABLES))


@ALL
def test_a_commit_of_the_agent_is_merged(tmp_path: Path, name: str) -> None:
    with ModelServer(conversation=CONVERSATION) as server, fleet(name, server, "commit", tmp_path) as d:
        d.drop("a", {"id": "a", "prompt": "Create hello.txt and commit it"})
        assert d.run_until_idle(120) == 0
        assert git(d.app, "show", "main:hello.txt") == "hello"
        record = session(d, "a")
        print(record)
        assert [run.outcome for run in record.runs] == ["ok"]
        print(server.spent(), server.escapes)
