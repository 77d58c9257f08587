"""Limits of credentials: written once, obeyed by all, over when they say so or when one attempt has found out."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from harness.agents.outcomes import AgentOutcome, Auth, Billing, Crash, Ok, Overloaded, RateLimit, UsageLimit
from harness.clock import parse_rfc3339
from harness.config import Agent, Config, Credential
from harness.layout import Layout
from harness.limits import QUICK_TRIES, SLOW_S, Blocked, Kind, LimitRecord, Limits, Permit
from tests.support import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def limits(tmp_path: Path, clock: FakeClock) -> Limits:
    (tmp_path / "state").mkdir()
    return Limits(Layout(tmp_path), clock, jitter=lambda: 0.5)


def met(limits: Limits, clock: FakeClock, outcome: AgentOutcome, ago_s: float = 0.0) -> LimitRecord:
    record = limits.met("team", outcome, started_at=clock.wall() - ago_s, by="a-x.1", agent="claude")
    assert record is not None
    return record


def wait_s(limits: Limits, clock: FakeClock) -> float:
    limit = limits.blocked("team")
    assert limit is not None
    assert limit.until is not None
    return limit.until - clock.wall()


def test_until_the_moment_that_was_told_nothing_starts_and_soon_after_everything(
    limits: Limits, clock: FakeClock
) -> None:
    met(limits, clock, UsageLimit(resets_at=clock.wall() + 3600))
    assert wait_s(limits, clock) == pytest.approx(3600.5, abs=0.01)
    clock.advance(3600.4)
    assert isinstance(limits.start("team"), Blocked)
    clock.advance(0.2)
    assert limits.blocked("team") is None
    assert isinstance(limits.start("team"), Permit)
    assert isinstance(limits.start("team"), Permit)
    assert limits.all() == []


def test_without_a_moment_the_wait_doubles_to_a_minute_and_is_a_quarter_of_an_hour_after_ten_tries(
    limits: Limits, clock: FakeClock
) -> None:
    waits = []
    for _ in range(QUICK_TRIES + 2):
        met(limits, clock, Overloaded())
        waits.append(round(wait_s(limits, clock)))
        clock.advance(waits[-1] + 1)
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60, 60, SLOW_S, SLOW_S]


def test_what_ran_side_by_side_meets_a_limit_once(limits: Limits, clock: FakeClock) -> None:
    first = met(limits, clock, RateLimit(), ago_s=5)
    clock.advance(0.3)
    assert met(limits, clock, RateLimit(), ago_s=5) == first
    clock.advance(2)
    assert met(limits, clock, RateLimit(), ago_s=5) == first
    assert met(limits, clock, RateLimit()).tries == 2


def test_a_later_reset_holds_and_an_earlier_one_does_not_shorten_it(limits: Limits, clock: FakeClock) -> None:
    late = met(limits, clock, UsageLimit(resets_at=clock.wall() + 100))
    assert met(limits, clock, UsageLimit(resets_at=clock.wall() + 50)) == late
    assert met(limits, clock, RateLimit(), ago_s=1) == late
    later = met(limits, clock, UsageLimit(resets_at=clock.wall() + 200))
    assert parse_rfc3339(later.until) - clock.wall() == pytest.approx(200.5, abs=0.01)


@pytest.mark.parametrize("resets_in_s", [-10.0, 0.0, 400 * 86_400.0], ids=str)
def test_a_reset_that_cannot_be_true_counts_as_not_told(
    limits: Limits, clock: FakeClock, resets_in_s: float
) -> None:
    record = met(limits, clock, UsageLimit(resets_at=clock.wall() + resets_in_s))
    assert (record.told, record.tries) == (False, 1)


def test_of_many_that_wait_for_a_limit_of_unknown_end_one_tries(limits: Limits, clock: FakeClock) -> None:
    met(limits, clock, Overloaded())
    clock.advance(1.5)
    one = limits.start("team")
    assert isinstance(one, Permit)
    assert one.tries
    assert isinstance(limits.start("team"), Blocked)
    assert isinstance(limits.blocked("team"), Blocked)
    one.close()  # it died, or was stopped: the next one tries
    assert isinstance(limits.start("team"), Permit)


def test_when_the_service_has_answered_all_may_start(limits: Limits, clock: FakeClock) -> None:
    met(limits, clock, Overloaded())
    clock.advance(1.5)
    one = limits.start("team")
    assert limits.over("team")
    assert isinstance(one, Permit)
    assert isinstance(limits.start("team"), Permit)
    assert met(limits, clock, Overloaded()).tries == 1


def test_who_began_before_a_limit_was_met_does_not_end_it_by_a_good_end(
    limits: Limits, clock: FakeClock
) -> None:
    began = clock.wall()
    clock.advance(5)
    met(limits, clock, UsageLimit(resets_at=clock.wall() + 100))
    clock.advance(1)
    assert not limits.answered("team", began)
    assert limits.blocked("team") is not None
    clock.advance(200)
    assert limits.answered("team", clock.wall())
    assert limits.all() == []


@pytest.mark.parametrize(("outcome", "kind"), [(Auth(detail="401"), Kind.AUTH), (Billing(), Kind.BILLING)])
def test_what_only_a_person_can_repair_stops_the_credential_and_asks(
    limits: Limits, clock: FakeClock, tmp_path: Path, outcome: AgentOutcome, kind: Kind
) -> None:
    met(limits, clock, outcome)
    clock.advance(30 * 86_400)
    limit = limits.blocked("team")
    assert isinstance(limit, Blocked)
    assert (limit.kind, limit.until) == (kind, None)
    question = tmp_path / "state" / "interrupts" / "credential.team.json"
    assert "harnessctl resume --credential team" in json.loads(question.read_text())["remedy"]
    assert limits.over("team")
    assert not question.exists()
    assert limits.blocked("team") is None


def test_a_credential_whose_file_was_replaced_is_tried_again(
    limits: Limits, clock: FakeClock, tmp_path: Path
) -> None:
    key = tmp_path / "key"
    key.write_text("old")
    team = Credential(variable="KEY", file=str(key))
    limits.met("team", Auth(), started_at=clock.wall(), credential=team)
    assert limits.blocked("team", team) is not None
    key.write_text("a new one")
    assert limits.blocked("team", team) is None
    assert isinstance(limits.start("team", team), Permit)


def test_a_short_limit_does_not_replace_a_refusal(limits: Limits, clock: FakeClock) -> None:
    refused = met(limits, clock, Auth())
    assert met(limits, clock, RateLimit(resume_at=clock.wall() + 5)) == refused


@pytest.mark.parametrize("outcome", [Ok(), Crash(exit_code=1)], ids=str)
def test_what_is_no_limit_is_not_written_down(
    limits: Limits, clock: FakeClock, outcome: AgentOutcome
) -> None:
    assert limits.met("team", outcome, started_at=clock.wall()) is None
    assert limits.all() == []


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"v": 2}', '{"v": 1}', '{"v":1,"credential":"team","kind":"x","since":"x","until":"y"}'],
)
def test_a_record_that_cannot_be_read_limits_nothing(limits: Limits, tmp_path: Path, text: str) -> None:
    folder = tmp_path / "state" / "limits"
    folder.mkdir()
    (folder / "team.json").write_text(text)
    assert limits.blocked("team") is None
    assert isinstance(limits.start("team"), Permit)
    assert limits.all() == []


def test_another_credential_goes_on_and_fallbacks_are_taken_in_order(
    limits: Limits, clock: FakeClock
) -> None:
    agents = {name: Agent(adapter="command", argv=("x",), credential=name) for name in ("team", "other")}
    agents["free"] = Agent(adapter="command", argv=("x",))
    config = Config(v=1, agents=agents, credentials={n: Credential(variable="K") for n in ("team", "other")})
    met(limits, clock, UsageLimit(resets_at=clock.wall() + 100))
    assert limits.choose(config, ["team", "free"])[0] == "free"
    assert limits.choose(config, ["other", "team"])[0] == "other"
    limits.met("other", UsageLimit(resets_at=clock.wall() + 50), started_at=clock.wall())
    chosen, limit = limits.choose(config, ["team", "other"])
    assert chosen is None
    assert limit is not None
    assert limit.credential == "other"


def test_the_record_is_for_its_owner_alone(limits: Limits, clock: FakeClock, tmp_path: Path) -> None:
    met(limits, clock, Overloaded())
    assert os.stat(tmp_path / "state" / "limits" / "team.json").st_mode & 0o077 == 0
