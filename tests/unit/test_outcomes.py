"""Outcomes of agents, and what they mean for an attempt."""

from __future__ import annotations

import typing

import pytest

from harness.agents import outcomes
from harness.agents.outcomes import (
    AgentOutcome,
    Auth,
    CostsAttempt,
    Crash,
    GoOn,
    Interrupted,
    Ok,
    Overloaded,
    RateLimit,
    Released,
    TimedOut,
    UsageLimit,
    consequence,
    described,
    name_of,
    named,
)
from harness.config import OutcomeName

NOW = 1_800_000_000.0


@pytest.mark.parametrize("name", list(OutcomeName))
def test_every_name_makes_its_outcome_and_back(name: OutcomeName) -> None:
    assert name_of(named(name)) is name


def test_every_outcome_has_a_name_of_its_own() -> None:
    kinds = typing.get_args(AgentOutcome)
    assert len({name_of(kind()) for kind in kinds}) == len(kinds) == len(OutcomeName)


@pytest.mark.parametrize(
    "name",
    [
        OutcomeName.MAX_TURNS,
        OutcomeName.BUDGET,
        OutcomeName.BAD_REQUEST,
        OutcomeName.REFUSAL,
        OutcomeName.STALLED,
        OutcomeName.TIMED_OUT,
        OutcomeName.CRASH,
        OutcomeName.NO_RESULT,
        OutcomeName.EMPTY,
    ],
)
def test_what_the_run_did_itself_costs_an_attempt(name: OutcomeName) -> None:
    assert isinstance(consequence(named(name), now=NOW), CostsAttempt)


def test_ok_goes_on_to_the_gates() -> None:
    assert consequence(Ok(), now=NOW) == GoOn()


@pytest.mark.parametrize("outcome", [RateLimit(resume_at=NOW + 77), UsageLimit(resets_at=NOW + 77)])
def test_a_limit_that_says_when_it_ends_is_believed(outcome: AgentOutcome) -> None:
    result = consequence(outcome, now=NOW, releases=5)
    assert isinstance(result, Released)
    assert result.not_before == NOW + 77


@pytest.mark.parametrize("outcome", [RateLimit(), UsageLimit(), Overloaded()])
def test_a_limit_that_does_not_say_waits_longer_each_time_up_to_a_maximum(outcome: AgentOutcome) -> None:
    waits = []
    for releases in (0, 1, 2, 3, 4, 1000):
        result = consequence(outcome, now=NOW, releases=releases)
        assert isinstance(result, Released)
        assert result.not_before is not None
        waits.append(result.not_before - NOW)
    assert waits == [60, 120, 240, 480, 900, 900]


def test_what_only_a_person_can_repair_costs_no_attempt() -> None:
    result = consequence(Auth(detail="key refused"), now=NOW)
    assert result == Released(reason="auth: key refused", not_before=NOW + outcomes.PERSON_WAIT_S)


def test_what_we_stopped_is_released_at_once() -> None:
    assert consequence(Interrupted(why="drain"), now=NOW) == Released(
        reason="interrupted: drain", not_before=None
    )


def test_descriptions_are_one_line_with_what_is_known() -> None:
    assert described(Crash(exit_code=3, detail="boom")) == "crash: exit 3: boom"
    assert described(Crash(signal=9)) == "crash: signal 9"
    assert described(Crash()) == "crash"
    assert described(TimedOut(after_s=12.5)) == "timed_out: after 12.5 s"
    assert described(Ok()) == "ok"
    assert described(Overloaded()) == "overloaded"
