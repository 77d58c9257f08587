"""Outcomes of agents, and what they mean for an attempt."""

from __future__ import annotations

import typing

import pytest

from harness.agents.outcomes import (
    AgentOutcome,
    Auth,
    Billing,
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
    assert isinstance(consequence(named(name)), CostsAttempt)


def test_ok_goes_on_to_the_gates() -> None:
    assert consequence(Ok()) == GoOn()


@pytest.mark.parametrize(
    "outcome",
    [
        RateLimit(resume_at=NOW + 77),
        UsageLimit(resets_at=NOW + 77),
        Overloaded(),
        Auth(detail="key refused"),
        Billing(),
        Interrupted(why="drain"),
    ],
    ids=lambda outcome: type(outcome).__name__,
)
def test_limits_refused_keys_and_our_own_stops_cost_no_attempt(outcome: AgentOutcome) -> None:
    assert consequence(outcome) == Released(reason=described(outcome))


def test_descriptions_are_one_line_with_what_is_known() -> None:
    assert described(Crash(exit_code=3, detail="boom")) == "crash: exit 3: boom"
    assert described(Crash(signal=9)) == "crash: signal 9"
    assert described(Crash()) == "crash"
    assert described(TimedOut(after_s=12.5)) == "timed_out: after 12.5 s"
    assert described(Ok()) == "ok"
    assert described(Overloaded()) == "overloaded"
