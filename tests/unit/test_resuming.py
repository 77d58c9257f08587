"""Which attempts go on with the session of an earlier one."""

from __future__ import annotations

from typing import Any

import pytest

from harness.model import Attempt, End, Grant, Item, Outcome, Verdict
from harness.resuming import goes_on, preferred
from harness.sessionrecord import RunRecord, SessionRecord


def run(attempt: int, outcome: str) -> RunRecord:
    return RunRecord(round=attempt, attempt=f"x-1.{attempt}", slot="agent-1", started_at="", outcome=outcome)


def session(*outcomes: str, **more: Any) -> SessionRecord:
    fields = {
        "item": "x",
        "uid": "x-1",
        "agent": "claude",
        "adapter": "claude",
        "session": "s",
        "conversation": "c",
    }
    runs = tuple(run(n, outcome) for n, outcome in enumerate(outcomes, 1))
    return SessionRecord(**{**fields, "runs": runs, **more})


def ended(outcome: Outcome, reason: str = "why", n: int = 1, **more: Any) -> Attempt:
    return Attempt(n=n, claim=None, end=End(n=n, outcome=outcome, by="agent-1", reason=reason), **more)


@pytest.mark.parametrize(
    ("outcome", "run_ended", "expected"),
    [
        (Outcome.RELEASED, "usage_limit", "why"),
        (Outcome.RELEASED, "interrupted", "why"),
        (Outcome.EXPIRED, "crash", "the process that ran you died"),
        (Outcome.FAILED, "crash", "why"),
        (Outcome.FAILED, "stalled", "why"),
        (Outcome.FAILED, "timed_out", "why"),
        (Outcome.FAILED, "max_turns", "why"),
        (Outcome.FAILED, "no_result", "why"),
        (Outcome.FAILED, "ok", ""),  # a red gate: it had its rounds
        (Outcome.FAILED, "refusal", ""),
        (Outcome.FAILED, "bad_request", ""),
        (Outcome.FAILED, "budget", ""),
        (Outcome.DONE, "ok", ""),
        (Outcome.CANCELLED, "ok", ""),
    ],
)
def test_what_broke_a_session_off_decides_whether_it_goes_on(
    outcome: Outcome, run_ended: str, expected: str
) -> None:
    assert goes_on([ended(outcome)], session(run_ended), "claude") == expected


def test_a_result_that_was_returned_is_tried_anew() -> None:
    verdict = Verdict(n=1, returned="conflict")
    assert goes_on([ended(Outcome.DONE, verdict=verdict)], session("ok"), "claude") == ""


def test_a_person_who_says_retry_wants_it_anew_and_who_parked_it_wants_it_to_go_on() -> None:
    grant = Grant(n=1, extra=1, by="cli")
    assert goes_on([ended(Outcome.FAILED, grant=grant)], session("crash"), "claude") == ""
    assert goes_on([ended(Outcome.HELD, "later", grant=grant)], session("interrupted"), "claude") == "later"


@pytest.mark.parametrize(
    "record",
    [None, session("crash", conversation=""), session("crash", agent="codex")],
    ids=["no record", "it never began", "another agent"],
)
def test_without_a_conversation_of_this_agent_a_new_one_begins(record: SessionRecord | None) -> None:
    assert goes_on([ended(Outcome.RELEASED)], record, "claude") == ""


def test_a_run_that_nobody_has_ended_may_have_begun_a_conversation() -> None:
    assert goes_on([ended(Outcome.EXPIRED)], session("", conversation=""), "claude")


def test_a_session_that_ends_badly_again_and_again_is_given_up() -> None:
    attempts = [ended(Outcome.EXPIRED, n=1), ended(Outcome.EXPIRED, n=2)]
    assert goes_on(attempts, session("crash", "crash"), "claude") == ""
    assert goes_on(attempts, session("crash", "ok", "crash"), "claude")


def test_limits_do_not_count_against_a_session() -> None:
    attempts = [ended(Outcome.RELEASED, n=n) for n in range(1, 10)]
    assert goes_on(attempts, session(*["rate_limit"] * 9), "claude")


def test_the_agent_whose_turn_it_is_comes_first_and_the_others_are_fallbacks() -> None:
    item = Item(uid="x-1", id="x", prompt="p", project="app", agents=("a", "b", "c"))
    failed = [ended(Outcome.FAILED, n=n) for n in (1, 2, 3, 4)]
    assert preferred(item, []) == ("a", "b", "c")
    assert preferred(item, failed[:1]) == ("b", "c", "a")
    assert preferred(item, failed) == ("c", "a", "b")
    assert preferred(Item(uid="x-1", id="x", prompt="p", project="app"), []) == ()
