"""Recorded runs of real agents through the whole daemon, by a fake one that also misbehaves (tests/replay.py)."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from harness.clock import parse_rfc3339
from harness.model import Outcome
from tests import replay
from tests.daemons import Daemon, daemon

pytestmark = pytest.mark.timeout(180)
DATA = Path(__file__).resolve().parent.parent / "data" / "agents"
COMMIT = "echo hello > hello.txt; git add -A; git commit -q -m hello"
Start = Callable[..., AbstractContextManager[Daemon]]


def orders(recording: str, **more: Any) -> dict[str, Any]:
    return {"recording": str(DATA / f"{recording}.jsonl"), **more}


@pytest.fixture
def fake(tmp_path: Path) -> Start:
    """A daemon whose agent does as it is told: one dict of orders, or one for each start of a session."""

    @contextmanager
    def start(*told: Mapping[str, Any], **more: Any) -> Iterator[Daemon]:
        env = {"REPLAY": json.dumps(list(told))}
        made = {"adapter": "claude", "binary": replay.installed(tmp_path), "env": env}
        with daemon(tmp_path, agents={"tool": made}, project={"agent": "tool"}, **more) as d:
            d.drop("a", {"id": "a", "prompt": "Create hello.txt and commit it"})
            yield d

    return start


def ends(d: Daemon) -> list[Outcome | None]:
    return [attempt.end.outcome if attempt.end else None for attempt in d.items()["a"].attempts]


def test_a_usage_limit_of_a_subscription_is_waited_for_and_the_session_goes_on(
    fake: Start,
) -> None:
    limit = orders("claude-oauth-usage", replace=[["1767318737", "NOW+3"]])
    with fake(limit, orders("claude-resume", shell=COMMIT)) as d:
        assert d.run_until_idle() == 0
        assert ends(d) == [Outcome.RELEASED, Outcome.DONE]
        raw = next(d.layout.sessions.glob("*/*/stdout.1.log")).read_text()
        reset = json.loads(raw.splitlines()[1])["rate_limit_info"]["resetsAt"]
        again = parse_rfc3339(d.events("agent_started")[1]["ts"])
        assert 0 <= again - reset < 20
        assert [run.resumed for run in d.session("a").runs] == [False, True]


def test_a_refused_key_is_told_at_the_first_retry_and_not_after_all_of_them(fake: Start) -> None:
    began = time.monotonic()
    with fake(orders("claude-auth", hang=True)) as d:
        assert d.run_until_idle() == 1
        assert time.monotonic() - began < 30
        assert [e["kind"] for e in d.events("limit_met")] == ["auth"]
        assert not d.ours()


def test_an_agent_that_says_nothing_any_more_is_a_stall_and_its_session_goes_on(fake: Start) -> None:
    still = orders("claude-kill1", hang=True)
    health = {"beat_s": 0.2, "hang_s": 60.0, "stall_s": 2.0}
    with fake(still, orders("claude-resume", shell=COMMIT), health=health) as d:
        assert d.run_until_idle() == 0
        assert ends(d) == [Outcome.FAILED, Outcome.DONE]
        assert [run.outcome for run in d.session("a").runs] == ["stalled", "ok"]
        assert d.session("a").runs[1].resumed
        assert d.session("a").used.estimated
